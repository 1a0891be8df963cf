"""Examples to batches: padding, reading ahead, and a position that survives any restart.

The whole order of training is a plan made beforehand (``sft.data.batches.packing``). The position
in it is one integer, the global batch index, so a run may be resumed on any number of hosts, and
goes on with the very next batch. Grain reads ahead, on threads or in processes; it never decides
the order.
"""

import os
import signal
import sys
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Any

import numpy as np

from sft.data.batches.packing import TrainPlan as TrainPlan
from sft.data.batches.packing import plan_training as plan_training
from sft.data.chat.encoding import Example
from sft.errors import UserError

if TYPE_CHECKING:  # importing it brings jax, which reading and tokenising do without
    from sft.types import Batch


BUCKET = 64  # tokens: rows that are evaluated are padded to a multiple of it


def make_batch(
    rows: Sequence[Sequence[Example]], length: int, prompt_weight: float = 0.0
) -> "Batch":
    """Numpy batch whose rows hold the given examples one after another, padded to ``length``.

    Args:
      prompt_weight: of the tokens of prompts in the loss; those of answers weigh 1.
    """
    from sft.types import Batch

    shape = (len(rows), length)
    tokens, targets, positions, segments = (np.zeros(shape, np.int32) for _ in range(4))
    weights = np.zeros(shape, np.float32)
    count = np.arange(length, dtype=np.int32)
    for r, row in enumerate(rows):
        start = 0
        for segment, example in enumerate(row, start=1):
            stop = start + len(example.tokens) - 1
            tokens[r, start:stop] = example.tokens[:-1]
            targets[r, start:stop] = example.tokens[1:]
            weights[r, start:stop] = example.is_target[1:]
            if prompt_weight:
                weights[r, start:stop] += prompt_weight * example.is_prompt[1:]
            positions[r, start:stop] = count[: stop - start]
            segments[r, start:stop] = segment
            start = stop
    return Batch(tokens, targets, weights, positions, segments)


class _Source:
    """Random access to this process's share of each batch (a Grain ``RandomAccessDataSource``)."""

    def __init__(
        self,
        plan: TrainPlan,
        examples: Sequence[Example],
        process: int,
        processes: int,
        prompt_weight: float,
    ):
        self._plan, self._examples, self._prompt_weight = plan, examples, prompt_weight
        self._share = plan.batch_size // processes
        self._first = process * self._share

    def __len__(self) -> int:
        return len(self._plan.rows) // self._plan.batch_size

    def __getitem__(self, index: int) -> "Batch":
        first = int(index) * self._plan.batch_size + self._first
        rows = [
            [self._examples[i] for i in row] for row in self._plan.rows[first : first + self._share]
        ]
        return make_batch(rows, self._plan.max_length, self._prompt_weight)


def train_batches(
    plan: TrainPlan,
    examples: Sequence[Example],
    *,
    start: int = 0,
    process: int = 0,
    processes: int = 1,
    workers: int = 0,
    prompt_weight: float = 0.0,
) -> Generator["Batch", None, None]:
    """Batches ``start``, ``start + 1``, … of the plan, this process's rows only, read ahead.

    Args:
      workers: processes that read ahead, each a share of the batches, with a copy of ``plan`` and
        ``examples``; 0 = two threads of this process. The batches and their order are the same.
      prompt_weight: as in ``make_batch``.

    Returns:
      A generator. Its end or its ``close()`` stops the workers.

    Raises:
      UserError: the batch cannot be divided among the processes.
    """
    import grain
    import grain.experimental
    from absl import flags

    if plan.batch_size % processes:
        raise UserError(
            f"config.train.batch_size = {plan.batch_size} is not divisible by {processes} hosts."
        )
    source = grain.MapDataset.source(_Source(plan, examples, process, processes, prompt_weight))
    source = source[start:]
    workers = min(workers, len(source))
    if not workers:
        threads = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
        return _closing(source.to_iter_dataset(threads))
    if not flags.FLAGS.is_parsed():  # Grain asks them, and only a program's main parses them
        flags.FLAGS.mark_as_parsed()
    # Through pipes: shared memory is 64 MiB in a container, and outlives a process that is killed.
    pipes = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
    dataset = source.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    dataset = grain.experimental.WithOptionsIterDataset(dataset, pipes)
    ahead = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=4)
    return _closing(dataset.mp_prefetch(ahead, _in_worker))


def _closing(dataset: Iterable["Batch"]) -> Generator["Batch", None, None]:
    batches: Any = iter(dataset)
    try:
        yield from batches
    finally:
        batches.close()


def _in_worker(worker: int, workers: int) -> None:
    """The process that started a worker decides when it ends: at its end, whatever that is.

    A signal to the whole group asks for a last step and a checkpoint, for which batches are read.
    """
    del worker, workers
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def leave() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def check_eval_lengths(examples: Sequence[Example], max_length: int) -> None:
    """Before any device work, what ``eval_batches`` would refuse.

    Raises:
      UserError: an example is longer than ``max_length``: cutting it would change the number.
    """
    longest = max((len(example.tokens) - 1 for example in examples), default=0)
    if longest > max_length:
        raise UserError(
            f"config.data.eval_max_length = {max_length}, but a validation example has {longest} "
            f"tokens. Raise it: cutting an example would change what is measured."
        )


def eval_order(examples: Sequence[Example]) -> np.ndarray:
    """The order in which ``eval_batches`` takes them, the longest first: int64 ``[n]``."""
    return np.argsort([-len(example.tokens) for example in examples], kind="stable")


def eval_batches(
    examples: Sequence[Example],
    *,
    batch_size: int,
    max_length: int,
    bucket: int = BUCKET,
    process: int = 0,
    processes: int = 1,
) -> Iterator["Batch"]:
    """Every example once, unpacked, each padded to a multiple of ``bucket`` of its batch's longest.

    Independent of every training knob. Sorted by length, so few shapes are compiled; the last
    batch is filled with rows of weight 0. Of each batch this process's rows only; ``batch_size``
    is over all processes and a multiple of their number.

    Raises:
      UserError: an example is longer than ``max_length``: cutting it would change the number.
    """
    check_eval_lengths(examples, max_length)
    order = eval_order(examples)
    for start in range(0, len(order), batch_size):
        rows = [[examples[i]] for i in order[start : start + batch_size]]
        length = -(-(len(rows[0][0].tokens) - 1) // bucket) * bucket
        rows += [[]] * (batch_size - len(rows))
        share = batch_size // processes
        yield make_batch(rows[process * share : (process + 1) * share], length)
