"""The training loop. It reads top to bottom: restore, step, validate, save, stop."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Sequence

import numpy as np
from ml_collections import ConfigDict

from sft import config as configs
from sft.data.batches import pipeline
from sft.data.chat.encoding import Example
from sft.errors import Preempted
from sft.mesh import slices
from sft.run import hosts
from sft.train import optim, profile, selection, startup, validation
from sft.train.checkpoint import Checkpoints
from sft.train.meter import Meter
from sft.train.steps import Steps
from sft.train.stop import Stop
from sft.types import Batch, Tree


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained on and validated against.

    Attributes:
      rule: which validation is the best one.
      flops_per_step: model FLOPs of a step on average, over all devices, for the log.
      at_start: called with ``(trainable, frozen)`` before the first step: the model is the base.
      generated: ``(trainable, frozen)`` to metrics of generated answers, at each validation.
    """

    train: Sequence[Example]
    validation: Sequence[Example]
    plan: pipeline.TrainPlan
    rule: selection.Rule = selection.LOSS
    flops_per_step: float | None = None
    at_start: Callable[[Tree, Tree], object] = lambda trainable, frozen: None
    generated: Callable[[Tree, Tree], dict[str, float]] = lambda trainable, frozen: {}


def run(
    config: ConfigDict, workdir: str, task: Task, steps: Steps, params: Tree, trace: bool = False
) -> None:
    """Trains from the newest checkpoint, or from the start, to the end of the last epoch, or until
    ``config.train.patience`` validations in a row were no better than one before.

    Args:
      trace: some steps, to ``workdir/profile``.

    Raises:
      Preempted: SIGTERM or Ctrl-C, on any host; the state of the last finished step is on disk.
      UserError: the loss is not finite; names the step and its examples. A full disk.
    """
    plan = task.plan
    total = plan.epoch_ends[-1]
    rate = optim.schedule(config.optim, total)
    fingerprint = configs.fingerprint(config)
    state, frozen = startup.begin(config, steps, params)
    hosts.barrier("state")  # between CPUs, a first collective gives up on who is 30 s late
    checkpoints = Checkpoints(workdir, config)
    step, position = checkpoints.latest() or 0, {}
    hosts.compare("checkpoint", {"newest checkpoint": step})
    if step:
        state, position = checkpoints.restore(step, state)
        assert position["batches"] == step, position
    batches = _batches(config, task, steps, step)
    history = [row for row in selection.validations(workdir) if row["step"] <= step]
    meter = _meter(config, workdir, task, steps, step, position.get("unlogged"))
    waited_for = meter.waiting(batches)
    if trace:
        waited_for = profile.traced(waited_for, workdir)
    closing = contextlib.closing
    stopping = Stop(validation.mesh_of(steps))
    with closing(meter), closing(checkpoints), closing(batches), stopping as stop:
        if step == 0:
            task.at_start(state.trainable, frozen)
            values = _validate(config, task, steps, state.trainable, frozen)
            values["prompt_loss"] = validation.prompt_loss(
                config, steps, state.trainable, frozen, task.validation
            )
            meter.validation(0, values)
        for batch in waited_for:
            if selection.patience_ended(history, task.rule, config.train.patience):
                break
            state, metrics = steps.train(state, frozen, validation.place(batch, steps))
            learning_rate = float(np.asarray(rate(step)))
            step += 1
            meter.add(step, metrics, learning_rate)
            validated = step in plan.epoch_ends or _every(config.train.validate_every, step)
            if not (validated or _every(config.train.save_every, step) or stop.soon()):
                continue
            meter.flush()  # nothing is saved before it is checked
            ranks: tuple = (None,)
            if validated:
                values = _validate(config, task, steps, state.trainable, frozen)
                history.append({"step": step, "epoch": plan.epoch_at(step)} | values)
                meter.validation(step, values, selection.standing(history, task.rule))
                ranks = task.rule.rank(values)
            position = {"batches": step, "config": fingerprint, "unlogged": meter.unlogged}
            with meter.saving():
                checkpoints.save(step, state, position, *ranks)
            if stop.now() and step < total:
                checkpoints.wait()
                why = stop.caught or "a signal on another host,"
                raise Preempted(f"{why} at step {step} of {total}; saved in {workdir}.")
        meter.finish()


def _every(count: int, step: int) -> bool:
    return bool(count) and step % count == 0


def _validate(
    config: ConfigDict, task: Task, steps: Steps, trainable: Tree, frozen: Tree
) -> dict[str, float]:
    values = validation.validate(config, steps, trainable, frozen, task.validation)
    return values | task.generated(trainable, frozen)


def _batches(
    config: ConfigDict, task: Task, steps: Steps, step: int
) -> Generator[Batch, None, None]:
    """This process's rows of the batches from ``step`` on."""
    part, parts = hosts.share(steps.batch_sharding)
    return pipeline.train_batches(
        task.plan,
        task.train,
        start=step,
        process=part,
        processes=parts,
        workers=config.data.workers,
        prompt_weight=config.loss.prompt_weight,
    )


def _meter(
    config: ConfigDict, workdir: str, task: Task, steps: Steps, step: int, unlogged: dict | None
) -> Meter:
    return Meter(
        workdir,
        task.plan,
        step,
        config.train.log_every,
        devices=steps.batch_sharding.num_devices,
        flops_per_step=task.flops_per_step,
        peak_flops=slices.peak_flops(validation.mesh_of(steps).devices.flat[0].device_kind),
        on_first=functools.partial(startup.report_first_step, workdir),
        unlogged=unlogged,
    )
