"""The training loop. It reads top to bottom: place, restore, step, validate, save, stop."""

import dataclasses
import math
import signal
import time
from collections.abc import Sequence
from types import FrameType

import jax
import numpy as np
from ml_collections import ConfigDict

from sft.data import pipeline
from sft.data.chat import Example
from sft.errors import Preempted, UserError
from sft.train import log, optim
from sft.train.checkpoint import Checkpoints
from sft.train.steps import Steps
from sft.types import Batch, Tree


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained on and validated against."""

    train: Sequence[Example]
    validation: Sequence[Example]
    plan: pipeline.TrainPlan


def run(config: ConfigDict, workdir: str, task: Task, steps: Steps, params: Tree) -> None:
    """Trains from the newest checkpoint, or from the start, to the end of the last epoch.

    Raises:
      Preempted: SIGTERM or Ctrl-C; the state of the last finished step is on disk.
      UserError: the loss is not finite; names the step and its examples. A full disk.
    """
    plan = task.plan
    total = plan.epoch_ends[-1]
    rate = optim.schedule(config.optim, total)
    state, frozen = steps.init(jax.random.key(config.seed), params)
    checkpoints = Checkpoints(workdir, config)
    step = checkpoints.latest() or 0
    if step:
        state, position = checkpoints.restore(step, state)
        assert position["batches"] == step, position
    writer = log.MetricsLog(workdir, step) if jax.process_index() == 0 else None

    def record(split: str, at: int, **values: float) -> None:
        if writer:
            writer.write(split, at, plan.epoch_at(at), **values)

    def save(at: int, loss: float | None) -> None:
        checkpoints.save(at, state, {"batches": at}, loss)

    if step == 0:
        record("validation", 0, **validate(config, steps, state.trainable, frozen, task.validation))
    batches = pipeline.train_batches(
        plan,
        task.train,
        start=step,
        process=jax.process_index(),
        processes=jax.process_count(),
    )
    pending, saved = None, step  # metrics are read one step late, so that the device never waits
    bar = log.progress(total, "train", "step", initial=step)
    with _Signals() as signals:
        for batch in batches:
            begun = time.perf_counter()
            state, metrics = steps.train(state, frozen, place(batch, steps))
            if pending:
                _report(*pending, record, bar, config, plan)
            pending = (step, metrics, float(rate(step)), begun)
            step += 1
            bar.update()
            at_epoch_end = step in plan.epoch_ends
            due = config.train.save_every and step % config.train.save_every == 0
            if not (at_epoch_end or due or signals.caught):
                continue
            _report(*pending, record, bar, config, plan)  # nothing is saved before it is checked
            pending = None
            loss = None
            if at_epoch_end:
                values = validate(config, steps, state.trainable, frozen, task.validation)
                record("validation", step, **values)
                loss = values["loss"]
            save(step, loss)
            saved = step
            if signals.caught and step < total:
                checkpoints.wait()
                bar.close()
                raise Preempted(f"{signals.caught} at step {step} of {total}; saved in {workdir}.")
    assert saved == total
    bar.close()
    checkpoints.wait()
    checkpoints.close()
    if writer:
        writer.close()


def validate(
    config: ConfigDict, steps: Steps, trainable: Tree, frozen: Tree, examples: Sequence[Example]
) -> dict[str, float]:
    """Loss (nats per trained token) and token accuracy over all examples, unpacked, exactly."""
    sums = None
    bar = log.progress(len(examples), "validation", "example")
    for batch in pipeline.eval_batches(
        examples, batch_size=config.eval.batch_size, max_length=config.data.eval_max_length
    ):
        part = jax.device_get(steps.evaluate(trainable, frozen, place(batch, steps)))
        sums = part if sums is None else jax.tree.map(np.add, sums, part)
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


def _report(step, metrics, rate, begun, record, bar, config, plan) -> None:
    """Waits for the metrics of a step, checks and writes them."""
    metrics = jax.device_get(metrics)
    seconds = time.perf_counter() - begun
    loss = float(metrics["loss"].mean())
    if not math.isfinite(loss) or not math.isfinite(float(metrics["grad_norm"])):
        rows = plan.rows[step * plan.batch_size : (step + 1) * plan.batch_size]
        examples = sorted(int(i) for row in rows for i in row)
        raise UserError(
            f"step {step + 1}: loss {loss}, gradient norm {float(metrics['grad_norm'])}. Its batch "
            f"holds training examples {examples} (counted from 0). Lower "
            f"config.optim.learning_rate, set config.optim.clip_norm, or inspect those examples."
        )
    bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
    if (step + 1) % config.train.log_every == 0:
        record(
            "train",
            step + 1,
            loss=loss,
            token_accuracy=float(metrics["correct"].mean()),
            learning_rate=rate,
            grad_norm=float(metrics["grad_norm"]),
            trained_tokens=float(metrics["loss"].weight),
            trained_tokens_per_second=float(metrics["loss"].weight) / seconds,
            seconds=seconds,
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
