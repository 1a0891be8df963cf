"""Patterns of the two loss curves: the guide's, and a run that does not move or goes astray.

Noise. The same rows are scored at every epoch, so their losses go up and down together, and the
change between two epochs is surer than either loss. With a correlation of at least a half between
them (they are mostly far above), its standard error is at most that of one loss. That bound is
used here; it errs towards saying nothing.
"""

import math

from sft.report.diagnosis import history
from sft.report.diagnosis.history import Finding, percent
from sft.report.load import Run

NOISE = 2.0  # standard errors that a change must exceed: 5 % of changes by chance do
RISE = 0.01  # share of the loss: a smaller rise is not worth fewer epochs
CONVERGED = 0.02  # share of the whole fall in the last epoch: ten more add a fifth at most
STILL = 0.01  # share of the first loss: a run that changed it less has learnt nothing
LEARNT = 0.1  # nats a token: a model that starts below it has nothing to learn
ASTRAY = 1.1  # end over start of the training loss: tuning only ever lowers it if it works


def suboptimal(run: Run) -> Finding | None:
    """Both losses fall, and validation had not converged at the end."""
    start, tuned = history.start(run), history.tuned(run)
    if not (start and tuned):
        return None
    last, before = tuned[-1], ([start, *tuned])[-2]
    fall, step = start.loss - last.loss, before.loss - last.loss
    if last.loss > min(epoch.loss for epoch in tuned) or fall < STILL * start.loss:
        return None
    if step <= max(CONVERGED * fall, last.se):
        return None
    if last.train is not None and before.train is not None and last.train >= before.train:
        return None
    rate = run.config.get("optim.learning_rate")
    count = f"{len(tuned)} epoch{'s' if len(tuned) > 1 else ''}"
    return Finding(
        "suboptimal",
        "warning",
        f"Suboptimal: validation loss was still falling at the end, from {before.loss:.4f} at "
        f"{history.name(before)} to {last.loss:.4f} at {history.name(last)}: "
        f"{percent(step / fall)} of the whole fall in the last of {count}.",
        f"More epochs (config.train.epochs = {run.config.get('train.epochs')}) or a larger "
        f"config.optim.learning_rate (now {rate}, try {_higher(rate)}). If that does not help, "
        "more, or more diverse, data.",
    )


def _higher(rate: float | None) -> str:
    return f"{3 * rate:g}" if rate else "3 times that"


def overfitting(run: Run) -> Finding | None:
    """Training loss keeps falling while validation loss, at its lowest before, has risen."""
    tuned = history.tuned(run)
    if len(tuned) < 2:
        return None
    best, last = min(tuned, key=lambda epoch: epoch.loss), tuned[-1]
    if last is best or best.train is None or last.train is None or last.train >= best.train:
        return None
    start, comparable = history.start(run), not history.with_prompts(run)
    if start and comparable and best.train >= start.loss:  # nothing was learnt to be overfitted
        return None
    rise, se = last.loss - best.loss, max(best.se, last.se)
    if rise <= max(NOISE * se, RISE * best.loss):
        return None
    first = tuned[tuned.index(best) + 1]
    return Finding(
        "overfitting",
        "warning",
        f"Overfitting from {history.name(first)} on: validation loss rose from {best.loss:.4f} at "
        f"{history.name(best)} to {last.loss:.4f} at {history.name(last)} "
        f"(+{percent(rise / best.loss)}, {rise / se:.1f} standard errors), while training "
        f"loss fell from {best.train:.4f} to {last.train:.4f}.",
        f"Use the checkpoint of {history.name(best)}, and tune for {math.ceil(best.number)} "
        "epochs (config.train.epochs); or more and more diverse data, or a smaller "
        "config.lora.rank.",
    )


def not_moving(run: Run) -> Finding | None:
    """Nothing was learnt: no rate, no gradient, or losses that stay where they were."""
    if not run.train:
        return None
    steps = len(run.train)
    remedy = "Check config.lora.targets, config.model.weights and the data."
    if all(record.get("learning_rate") == 0 for record in run.train):
        sentence = f"Nothing moves: the learning rate was 0 at all {steps} logged steps."
        return Finding("not_moving", "error", sentence, "Raise config.optim.learning_rate.")
    if all(record.get("grad_norm") == 0 for record in run.train):
        sentence = f"Nothing moves: the gradient norm was 0 at all {steps} logged steps."
        return Finding("not_moving", "error", sentence, remedy)
    start, tuned = history.start(run), history.tuned(run)
    if not (start and tuned) or start.loss < LEARNT:
        return None
    changes = [abs(epoch.loss - start.loss) for epoch in tuned]
    trained = [epoch.train for epoch in tuned if epoch.train is not None]
    if trained:
        changes.append(abs(trained[-1] - trained[0]))
    if max(changes) >= STILL * start.loss:
        return None
    norms = [r["grad_norm"] for r in run.train if r.get("grad_norm") is not None]
    norm = f", gradient norm {norms[0]:.3g} and {norms[-1]:.3g}" if norms else ""
    rate = run.config.get("optim.learning_rate")
    return Finding(
        "not_moving",
        "error",
        f"Nothing moves: after {steps} steps validation loss is {tuned[-1].loss:.4f} and was "
        f"{start.loss:.4f} at the start; no loss changed by {percent(STILL)} of that{norm}.",
        f"Raise config.optim.learning_rate (now {rate}) tenfold. {remedy}",
    )


def diverged(run: Run) -> Finding | None:
    """A loss that is no number, or training that ends above where it began."""
    remedy = "Lower config.optim.learning_rate, or set config.optim.clip_norm."
    for record in run.train + run.validation:
        if not math.isfinite(record["loss"]):
            sentence = f"The loss is not finite at step {record['step']}: the run diverged."
            return Finding("diverged", "error", sentence, remedy)
    if len(run.train) < 2:
        return None
    first, end = run.train[0], run.train[-max(1, len(run.train) // 10) :]
    after = history.mean_loss(end)
    if after <= max(ASTRAY * first["loss"], first["loss"] + NOISE * history.standard_error(first)):
        return None
    return Finding(
        "diverged",
        "error",
        f"The run diverged: training loss was {first['loss']:.4f} at step {first['step']} and "
        f"{after:.4f} in steps {end[0]['step']} to {end[-1]['step']}.",
        remedy,
    )
