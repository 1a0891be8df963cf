"""Can the chosen epoch be trusted: is validation large enough, and do the metrics agree?

After a run that diverged no epoch is worth choosing, and these questions are not asked.
"""

import math

from sft.report import scores
from sft.report.diagnosis import curves, history
from sft.report.diagnosis.history import Epoch, Finding
from sft.report.load import Run
from sft.run import display
from sft.train import selection

_ABOUT = (*selection.NOT_METRICS, "step", "epoch", "seconds", "cut")  # of a row, no metrics


def small_validation(run: Run) -> Finding | None:
    """All epochs are within the standard error of the validation loss."""
    start, tuned = history.start(run), history.tuned(run)
    if not start or len(tuned) < 2 or curves.diverged(run):
        return None
    best = min(tuned, key=lambda epoch: epoch.loss)
    spread, se = max(epoch.loss for epoch in tuned) - best.loss, best.se
    fall = abs(start.loss - best.loss)
    # Nothing was learnt that could be told, or the error is too small to hide what is worth having.
    if fall < curves.STILL * start.loss or se <= curves.CONVERGED * fall:
        return None
    if not 0 < spread < se < math.inf:
        return None
    rows = run.data.get("sets", {}).get("validation", {}).get("rows")
    needed = (
        f" About {math.ceil(rows * (curves.NOISE * se / spread) ** 2):,} rows would tell."
        if (rows and spread > curves.RISE * best.loss)
        else ""
    )
    return Finding(
        "small_validation",
        "warning",
        f"The validation set{f' of {rows:,} rows' if rows else ''} is too small to tell the epochs "
        f"apart: their losses differ by {spread:.4f} at most, and the standard error of a loss is "
        f"{se:.4f}.",
        f"A larger validation set.{needed} Until then any of the epochs may be the best.",
    )


def disagreement(run: Run) -> Finding | None:
    """The epoch of the lowest validation loss is not the best one by another metric."""
    tuned = history.tuned(run)
    if len(tuned) < 2 or curves.diverged(run):
        return None
    by_loss = min(tuned, key=lambda epoch: epoch.loss)
    chosen = {row["step"]: row for row in (run.selection or {}).get("epochs", [])}
    rows = [(epoch, epoch.record | chosen.get(epoch.step, {})) for epoch in tuned]
    found = []
    for metric in _metrics([row for _, row in rows]):
        sign = -1 if _lower_is_better(run, metric) else 1
        best, row = max(rows, key=lambda pair: (sign * pair[1][metric], -pair[0].step))
        there = next(row for epoch, row in rows if epoch is by_loss)[metric]
        gain = sign * (row[metric] - there)
        if best is not by_loss and gain > curves.NOISE * _error(run, metric, there, by_loss):
            found.append(
                f"{display.name(metric)} is best at {history.name(best)} "
                f"({display.score(row[metric], metric)}; {display.score(there, metric)} at "
                f"{history.name(by_loss)})"
            )
    if not found:
        return None
    return Finding(
        "disagreement",
        "warning",
        f"Loss and metric disagree: validation loss is lowest at {history.name(by_loss)} "
        f"({by_loss.loss:.4f}), but {', and '.join(found)}.",
        "Choose by what the task is about (config.train.select), and evaluate both checkpoints "
        "on the test set (sft eval --checkpoint=STEP).",
    )


def _metrics(rows: list[dict]) -> list[str]:
    """Metrics other than the loss that all validations have."""
    return [
        key
        for key, value in rows[0].items()
        if key not in _ABOUT
        and key != "loss"
        and isinstance(value, float | int)
        and all(isinstance(row.get(key), float | int) for row in rows)
    ]


def _lower_is_better(run: Run, metric: str) -> bool:
    """As the evaluations and the selection of the run say."""
    selection = run.selection or {}
    said = [selection.get("better")] if selection.get("metric") == metric else []
    said += [
        scores.metrics(r)[metric]["better"]
        for r in run.evals.values()
        if metric in scores.metrics(r)
    ]
    return "lower" in said or metric == "perplexity"


def _error(run: Run, metric: str, value: float, epoch: Epoch) -> float:
    """Standard error of a share of right tokens or answers; of other scores nothing is known.

    Answers are those to ``config.eval.during_training`` prompts, tokens those of validation.
    """
    tokens, answers = epoch.record.get("weight"), run.config.get("eval.during_training")
    count = tokens if metric == "token_accuracy" else answers
    if not count or not 0 <= value <= 1:
        return 0.0
    return math.sqrt(value * (1 - value) / count)
