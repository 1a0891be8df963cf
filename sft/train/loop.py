"""The training loop. It reads top to bottom: place, restore, step, validate, save, stop."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Generator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sft import config as configs
from sft import hosts, topology
from sft.data import pipeline
from sft.data.chat import Example
from sft.errors import Preempted
from sft.model import sharding
from sft.train import log, optim, profile, startup
from sft.train.checkpoint import Checkpoints
from sft.train.meter import Meter
from sft.train.steps import Steps
from sft.train.stop import Stop
from sft.types import Batch, Tree


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained on and validated against.

    Attributes:
      flops_per_step: model FLOPs of a step on average, over all devices, for the log.
    """

    train: Sequence[Example]
    validation: Sequence[Example]
    plan: pipeline.TrainPlan
    flops_per_step: float | None = None


def run(
    config: ConfigDict, workdir: str, task: Task, steps: Steps, params: Tree, trace: bool = False
) -> None:
    """Trains from the newest checkpoint, or from the start, to the end of the last epoch.

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
    state, frozen = steps.init(jax.random.key(config.seed), params)
    hosts.barrier("state")  # between CPUs, a first collective gives up on who is 30 s late
    checkpoints = Checkpoints(workdir, config)
    step = checkpoints.latest() or 0
    hosts.compare("checkpoint", {"newest checkpoint": step})
    if step:
        state, position = checkpoints.restore(step, state)
        assert position["batches"] == step, position
    batches = _batches(config, task, steps, step)
    meter = _meter(config, workdir, task, steps, step)
    waited_for = meter.waiting(batches)
    if trace:
        waited_for = profile.traced(waited_for, workdir)
    closing = contextlib.closing
    stopping = Stop(_mesh(steps))
    with closing(meter), closing(checkpoints), closing(batches), stopping as stop:
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
            if not (at_epoch_end or due or stop.soon()):
                continue
            meter.flush()  # nothing is saved before it is checked
            loss = None
            if at_epoch_end:
                values = validate(config, steps, state.trainable, frozen, task.validation)
                meter.validation(step, values)
                loss = values["loss"]
            with meter.saving():
                checkpoints.save(step, state, {"batches": step, "config": fingerprint}, loss)
            if stop.now() and step < total:
                checkpoints.wait()
                why = stop.caught or "a signal on another host,"
                raise Preempted(f"{why} at step {step} of {total}; saved in {workdir}.")


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
    )


def _meter(config: ConfigDict, workdir: str, task: Task, steps: Steps, step: int) -> Meter:
    return Meter(
        workdir,
        task.plan,
        step,
        config.train.log_every,
        devices=steps.batch_sharding.num_devices,
        flops_per_step=task.flops_per_step,
        peak_flops=topology.peak_flops(_mesh(steps).devices.flat[0].device_kind),
        on_first=functools.partial(startup.report_first_step, workdir),
    )


def validate(
    config: ConfigDict, steps: Steps, trainable: Tree, frozen: Tree, examples: Sequence[Example]
) -> dict[str, float]:
    """Loss (nats per trained token) and token accuracy over all examples, unpacked, exactly."""
    sums = None
    groups = sharding.groups(_mesh(steps))
    part, parts = hosts.share(steps.batch_sharding)
    bar = log.progress(-(-len(examples) // parts), "validation", "example")
    for batch in pipeline.eval_batches(
        examples,
        # Rounded up: rows without an example have no weight.
        batch_size=-(-config.eval.batch_size // groups) * groups,
        max_length=config.data.eval_max_length,
        bucket=math.lcm(pipeline.BUCKET, steps.row_multiple),
        process=part,
        processes=parts,
    ):
        found = jax.device_get(steps.evaluate(trainable, frozen, place(batch, steps)))
        sums = found if sums is None else {name: sums[name] + found[name] for name in found}
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
    _, parts = hosts.share(steps.batch_sharding)

    def on_devices(x: np.ndarray) -> jax.Array:
        shape = len(x) * parts, x.shape[1]  # whole rows, also where another host has their end
        return jax.make_array_from_process_local_data(steps.batch_sharding, x, shape)

    return jax.tree.map(on_devices, batch)


def _mesh(steps: Steps) -> Mesh:
    mesh = steps.batch_sharding.mesh
    assert isinstance(mesh, Mesh)
    return mesh
