"""The training loop. It reads top to bottom: place, restore, step, validate, save, stop."""

import contextlib
import dataclasses
import functools
import signal
from collections.abc import Sequence
from types import FrameType

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sft import config as configs
from sft.data import pipeline
from sft.data.chat import Example
from sft.errors import Preempted
from sft.model import sharding
from sft.train import log, optim, profile, startup
from sft.train.checkpoint import Checkpoints
from sft.train.meter import Meter
from sft.train.steps import Steps
from sft.types import Batch, Tree


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained on and validated against."""

    train: Sequence[Example]
    validation: Sequence[Example]
    plan: pipeline.TrainPlan


def run(
    config: ConfigDict, workdir: str, task: Task, steps: Steps, params: Tree, trace: bool = False
) -> None:
    """Trains from the newest checkpoint, or from the start, to the end of the last epoch.

    Args:
      trace: some steps, to ``workdir/profile``.

    Raises:
      Preempted: SIGTERM or Ctrl-C; the state of the last finished step is on disk.
      UserError: the loss is not finite; names the step and its examples. A full disk.
    """
    plan = task.plan
    total = plan.epoch_ends[-1]
    rate = optim.schedule(config.optim, total)
    fingerprint = configs.fingerprint(config)
    state, frozen = steps.init(jax.random.key(config.seed), params)
    checkpoints = Checkpoints(workdir, config)
    step = checkpoints.latest() or 0
    if step:
        state, position = checkpoints.restore(step, state)
        assert position["batches"] == step, position
    batches = pipeline.train_batches(
        plan,
        task.train,
        start=step,
        process=jax.process_index(),
        processes=jax.process_count(),
        workers=config.data.workers,
    )
    meter = Meter(
        workdir,
        plan,
        step,
        config.train.log_every,
        devices=steps.batch_sharding.num_devices,
        on_first=functools.partial(startup.report_first_step, workdir),
    )
    waited_for = meter.waiting(batches)
    if trace:
        waited_for = profile.traced(waited_for, workdir)
    closing = contextlib.closing
    with closing(meter), closing(checkpoints), closing(batches), _Signals() as signals:
        if step == 0:
            values = validate(config, steps, state.trainable, frozen, task.validation)
            meter.validation(0, values)
        for batch in waited_for:
            state, metrics = steps.train(state, frozen, place(batch, steps))
            learning_rate = float(np.asarray(rate(step)))
            step += 1
            meter.add(step, metrics, learning_rate)
            at_epoch_end = step in plan.epoch_ends
            due = config.train.save_every and step % config.train.save_every == 0
            if not (at_epoch_end or due or signals.caught):
                continue
            meter.flush()  # nothing is saved before it is checked
            loss = None
            if at_epoch_end:
                values = validate(config, steps, state.trainable, frozen, task.validation)
                meter.validation(step, values)
                loss = values["loss"]
            with meter.saving():
                checkpoints.save(step, state, {"batches": step, "config": fingerprint}, loss)
            if signals.caught and step < total:
                checkpoints.wait()
                raise Preempted(f"{signals.caught} at step {step} of {total}; saved in {workdir}.")


def validate(
    config: ConfigDict, steps: Steps, trainable: Tree, frozen: Tree, examples: Sequence[Example]
) -> dict[str, float]:
    """Loss (nats per trained token) and token accuracy over all examples, unpacked, exactly."""
    sums = None
    bar = log.progress(len(examples), "validation", "example")
    mesh = steps.batch_sharding.mesh
    assert isinstance(mesh, Mesh)
    groups = sharding.groups(mesh)
    for batch in pipeline.eval_batches(
        examples,
        # Rounded up: rows without an example have no weight.
        batch_size=-(-config.eval.batch_size // groups) * groups,
        max_length=config.data.eval_max_length,
        process=jax.process_index(),
        processes=jax.process_count(),
    ):
        part = jax.device_get(steps.evaluate(trainable, frozen, place(batch, steps)))
        sums = part if sums is None else {name: sums[name] + part[name] for name in part}
        bar.update(int(np.sum(batch.segments_BxL[:, 0] > 0)))
    bar.close()
    assert sums is not None
    return {
        "loss": float(sums["loss"].mean()),
        "token_accuracy": float(sums["correct"].mean()),
        "weight": float(sums["loss"].weight),
    }


def place(batch: Batch, steps: Steps) -> Batch:
    """This process's rows as part of global arrays on the devices."""
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(steps.batch_sharding, x), batch
    )


class _Signals:
    """Remembers SIGTERM and SIGINT, to stop at the next step boundary; a second one is not held."""

    def __init__(self):
        self.caught = ""
        self._before = {}

    def __enter__(self) -> "_Signals":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.caught = signal.Signals(number).name
        signal.signal(number, self._before[number])
