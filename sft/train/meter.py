"""Reads a step's metrics one step late, checks them, and writes them down."""

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator

import jax

from sft import hosts
from sft.data.pipeline import TrainPlan
from sft.errors import UserError
from sft.train import log
from sft.types import Batch, Tree


class Meter:
    """Between the step and the log. Metrics are fetched when the next step is under way.

    Args:
      workdir: of the run; written to by the first host only.
      step: steps done already.
      log_every: steps between rows of ``metrics.jsonl``.
      devices: that the step runs on, of all processes.
      flops_per_step: floating-point operations of one step, over all devices; with
        ``peak_flops`` a row has the model FLOPs utilisation, ``mfu``.
      peak_flops: operations per second that one device can do at most.
      on_first: called by process 0 with the number of the first step that this process finished.
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
    ):
        self._plan, self._log_every, self._devices = plan, log_every, devices
        self._flops = flops_per_step, peak_flops
        self._writer = log.MetricsLog(workdir, step) if hosts.is_first() else None
        self._bar = log.progress(plan.epoch_ends[-1], "train", "step", initial=step)
        self._on_first = on_first if self._writer else None
        self._pending: tuple[int, Tree, float, float] | None = None
        self._since = self._begun = time.perf_counter()
        self._is_first = True  # of a stretch of steps without anything between
        self._wait = 0.0  # for the batch of the step that comes next
        self._waited = 0.0  # for the batches of the steps since the last row
        self._saving = 0.0  # seconds the loop stood still since the last row
        self._stalls, self._stalled, self._stepping = 0, 0.0, 0.0  # of this process

    def waiting(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; what each made the loop wait is in ``wait_seconds``, in the row of its step.

        A step's ``seconds`` begin where the one before has ended; of the first, and of the first
        after a validation or checkpoint, when it gets its batch. Compilation is in them.

        With ``log_every`` above 1, a row has the sum over the steps since the row before.
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
        self._bar.update()
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
        self._saving += seconds

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
        self._waited += wait
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
        self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        if step % self._log_every == 0:
            trained_tokens = float(metrics["loss"].weight)
            self._write(
                "train",
                step,
                loss=loss,
                token_accuracy=float(metrics["correct"].mean()),
                learning_rate=learning_rate,
                grad_norm=grad_norm,
                trained_tokens=trained_tokens,
                trained_tokens_per_second=trained_tokens / seconds,
                **self._speed(seconds),
                seconds=seconds,
                wait_seconds=self._waited,
                save_seconds=self._saving,
            )
            self._waited = self._saving = 0.0

    def validation(self, step: int, values: dict[str, float]) -> None:
        """Writes the validation row of a step.

        Raises:
          UserError: the loss is not finite: a finite gradient can still make a useless update.
        """
        if not math.isfinite(values["loss"]):
            raise UserError(
                f"step {step}: validation loss {values['loss']}; this step is not saved. Lower "
                f"config.optim.learning_rate or set config.optim.clip_norm."
            )
        self._write("validation", step, **values)

    def close(self) -> None:
        """Ends the log, and says what share of the time of the steps went into saving."""
        self._bar.close()
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
