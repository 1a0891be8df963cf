"""Reads a step's metrics one step late, checks them, and writes them down."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import jax

from sft.data.batches.pipeline import TrainPlan
from sft.errors import UserError
from sft.run import display, hosts, log
from sft.run.progress import Progress
from sft.train import selection
from sft.types import Batch, Tree


@dataclasses.dataclass
class _Interval:
    """The steps since the last row of ``metrics.jsonl``, summed up.

    Attributes:
      loss, correct: over ``weight``, the trained tokens.
      grad_norm: summed over the steps.
      seconds: the steps took; ``wait``: of these, the loop waited for batches; ``save``: it stood
        still besides, to save.
    """

    steps: int = 0
    loss: float = 0.0
    correct: float = 0.0
    weight: float = 0.0
    grad_norm: float = 0.0
    seconds: float = 0.0
    wait: float = 0.0
    save: float = 0.0

    def add(self, metrics: Tree, grad_norm: float, seconds: float, wait: float) -> None:
        self.steps += 1
        self.loss += float(metrics["loss"].total)
        self.correct += float(metrics["correct"].total)
        self.weight += float(metrics["loss"].weight)
        self.grad_norm += grad_norm
        self.seconds += seconds
        self.wait += wait

    def mean(self, total: float) -> float:
        """Per trained token."""
        return total / self.weight if self.weight else 0.0


class Meter:
    """Between the step and the log. Metrics are fetched when the next step is under way.

    Args:
      workdir: of the run; written to by the first host only.
      step: steps done already.
      log_every: steps between rows of ``metrics.jsonl``. A row is of all steps since the row
        before: means per trained token, the mean gradient norm, the learning rate of the last.
      devices: that the step runs on, of all processes.
      flops_per_step: floating-point operations of one step, over all devices; with
        ``peak_flops`` a row has the model FLOPs utilisation, ``mfu``.
      peak_flops: operations per second that one device can do at most.
      on_first: called by process 0 with the number of the first step that this process finished.
      unlogged: of the run that goes on, at that step, see ``unlogged``.
    """

    def __init__(
        self,
        workdir: str,
        plan: TrainPlan,
        step: int,
        log_every: int,
        *,
        devices: int = 1,
        flops_per_step: float | None = None,
        peak_flops: float | None = None,
        on_first: Callable[[int], None] | None = None,
        unlogged: dict[str, Any] | None = None,
    ):
        self._plan, self._log_every, self._devices = plan, log_every, devices
        self._flops = flops_per_step, peak_flops
        self._writer = log.MetricsLog(workdir, step) if hosts.is_first() else None
        self._progress: Progress | None = None
        self._on_first = on_first if self._writer else None
        self._pending: tuple[int, Tree, float, float] | None = None
        self._since = self._begun = time.perf_counter()
        self._is_first = True  # of a stretch of steps without anything between
        self._wait = 0.0  # for the batch of the step that comes next
        kept = unlogged or {}
        self._interval = _Interval(**kept.get("row", {}))
        self._since_validation = _Interval(**kept.get("validation", {}))
        self._stalls, self._stalled, self._stepping = 0, 0.0, 0.0  # of this process

    def waiting(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; what each made the loop wait is in ``wait_seconds``, in the row of its step.

        A step's ``seconds`` begin where the one before has ended; of the first, and of the first
        after a validation or checkpoint, when it gets its batch. Compilation is in them.
        """
        since = time.perf_counter()
        for batch in batches:
            self._begun = time.perf_counter()
            self._wait = self._begun - since
            yield batch
            since = time.perf_counter()

    def add(self, step: int, metrics: Tree, learning_rate: float) -> None:
        """Takes the metrics of a step just dispatched and reads those of the one before.

        Raises:
          UserError: as ``flush``.
        """
        if self._is_first:
            self._since, self._is_first = self._begun, False
        self._read()
        self._pending = (step, metrics, learning_rate, self._wait)
        if metrics["grad_norm"].is_ready():  # the backend does not run ahead
            self._read()

    @contextlib.contextmanager
    def saving(self) -> Generator[None]:
        """Around what stops the loop to save; goes into ``save_seconds`` of the row after it.

        The rows of a step are in a bucket before its checkpoint is: a run that goes on from that
        finds them there.
        """
        since = time.perf_counter()
        if self._writer:
            self._writer.sync()
        yield
        seconds = time.perf_counter() - since
        self._stalls, self._stalled = self._stalls + 1, self._stalled + seconds
        self._interval.save += seconds

    @property
    def unlogged(self) -> dict[str, Any]:
        """JSON values of the steps that are in no row yet, for a run that goes on from here."""
        row, validation = self._interval, self._since_validation
        return {"row": dataclasses.asdict(row), "validation": dataclasses.asdict(validation)}

    def flush(self) -> None:
        """Waits for the pending step, because something else than a step comes next.

        Raises:
          UserError: its loss or gradient is not finite; names the step and its examples.
        """
        self._read()
        self._is_first = True

    def _read(self) -> None:
        if self._pending is None:
            return
        step, metrics, learning_rate, wait = self._pending
        self._pending = None
        metrics = jax.device_get(metrics)
        self._finished(step)
        seconds, self._since = time.perf_counter() - self._since, time.perf_counter()
        self._stepping += seconds
        loss, grad_norm = float(metrics["loss"].mean()), float(metrics["grad_norm"])
        if not math.isfinite(loss) or not math.isfinite(grad_norm):
            raise UserError(
                f"step {step}: loss {loss}, gradient norm {grad_norm}. Its batch holds training "
                f"examples {self._plan.examples_of(step - 1)} (counted from 0). Lower "
                f"config.optim.learning_rate, set config.optim.clip_norm, or inspect them."
            )
        for sums in (self._interval, self._since_validation):
            sums.add(metrics, grad_norm, seconds, wait)
        self._show(step, loss, learning_rate, seconds)
        self._last = step, learning_rate
        if step % self._log_every == 0:
            self._row()

    def _row(self) -> None:
        """Writes the interval that ends with the last step that was read, and begins the next."""
        now, (step, learning_rate) = self._interval, self._last
        self._interval = _Interval()
        self._write(
            "train",
            step,
            loss=now.mean(now.loss),
            token_accuracy=now.mean(now.correct),
            learning_rate=learning_rate,
            grad_norm=now.grad_norm / now.steps,
            trained_tokens=now.weight,
            trained_tokens_per_second=now.weight / now.seconds,
            **self._speed(now.seconds / now.steps),
            seconds=now.seconds,
            wait_seconds=now.wait,
            save_seconds=now.save,
        )

    def finish(self) -> None:
        """Writes the steps that no row has yet: no more come.

        Raises:
          UserError: as ``flush``.
        """
        self.flush()
        if self._interval.steps:
            self._row()

    def _show(self, step: int, loss: float, learning_rate: float, seconds: float) -> None:
        """How far the run is. Time is counted from the first step on, which has compiled."""
        if self._progress is None:
            total = self._plan.epoch_ends[-1]
            self._progress = Progress(total, "train", "step", done=step)
            return
        speed = self._plan.batch_size * self._plan.max_length / seconds
        self._progress.update(
            1,
            f"epoch {self._plan.epoch_at(step):.2f}",
            f"loss {loss:.4f}",
            f"lr {learning_rate:.3g}",
            f"{speed:,.0f} tokens/s",
        )

    def validation(self, step: int, values: dict[str, float], standing: str = "") -> None:
        """Writes the validation row of a step, and prints it beside what training has come to.

        Args:
          standing: of this validation among those before.

        Raises:
          UserError: the loss is not finite: a finite gradient can still make a useless update.
        """
        if not math.isfinite(values["loss"]):
            raise UserError(
                f"step {step}: validation loss {values['loss']}; this step is not saved. Lower "
                f"config.optim.learning_rate or set config.optim.clip_norm."
            )
        self._write("validation", step, **values)
        trained, self._since_validation = self._since_validation, _Interval()
        if self._writer:
            print(self._line(step, values, trained, standing), flush=True)

    def _line(self, step: int, values: dict[str, float], trained: _Interval, standing: str) -> str:
        total = self._plan.epoch_ends[-1]
        epochs = len(self._plan.epoch_ends)
        place = f"epoch {self._plan.epoch_at(step):.4g} of {epochs}, step {step:,} of {total:,}"
        show, beside = display.score, ("", "")
        if trained.steps:
            loss = show(trained.mean(trained.loss), "loss")
            right = show(trained.mean(trained.correct), "token_accuracy")
            beside = f" (training {loss})", f" ({right})"
        elif not step and "end_loss" in values:
            text, ends = (show(values[name], "loss") for name in ("answer_loss", "end_loss"))
            beside = f" ({text} in text, {ends} at ends of turn)", ""
        more = [
            f"{display.name(name)} {show(value, name)}"
            for name, value in values.items()
            if name not in ("loss", "token_accuracy", *selection.NOT_METRICS)
        ]
        words = [
            f"validation loss {show(values['loss'], 'loss')}{beside[0]}",
            f"token accuracy {show(values['token_accuracy'], 'token_accuracy')}{beside[1]}",
            *more,
        ]
        end = f"; {standing}" if standing else ""
        return f"{place if step else 'before the first step'}: {', '.join(words)}{end}"

    def close(self) -> None:
        """Ends the log, and says what share of the time of the steps went into saving."""
        if self._progress:
            self._progress.close()
        if self._writer and self._stalls and self._stepping:
            print(
                f"saving {self._stalls} checkpoints stalled the steps for {self._stalled:.2f} s, "
                f"{self._stalled / self._stepping:.2%} of their {self._stepping:.1f} s"
            )
        if self._writer:
            self._writer.close()

    def _speed(self, seconds: float) -> dict[str, float]:
        """Positions per second and device, padding included, as MFU is counted; and that."""
        positions = self._plan.batch_size * self._plan.max_length
        speed = {"tokens_per_second_per_device": positions / seconds / self._devices}
        flops, peak = self._flops
        if flops is not None and peak is not None:
            speed["mfu"] = flops / seconds / (peak * self._devices)
        return speed

    def _finished(self, step: int) -> None:
        if self._on_first:
            self._on_first(step)
            self._on_first = None

    def _write(self, split: str, step: int, **values: float) -> None:
        if self._writer:
            self._writer.write(split, step, self._plan.epoch_at(step), **values)
