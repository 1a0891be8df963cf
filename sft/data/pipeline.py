"""Examples to batches: seeded order, packing, padding, and a position that survives any restart.

The whole order of training is a pure function of (lengths, seed, epoch, sizes). The position in it
is one integer, the global batch index, so a run may be resumed on any number of hosts, and goes on
with the very next batch. Grain reads ahead on threads; it never decides the order.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from sft.data.chat import Example
from sft.errors import UserError
from sft.types import Batch


def pack(lengths: np.ndarray, max_length: int, window: int = 64) -> list[np.ndarray]:
    """Puts examples into rows of at most ``max_length`` tokens: best fit over the last open rows.

    Args:
      lengths: int ``[n]``, tokens of each example in training order.
      max_length: size of a row.
      window: rows kept open; the oldest closes when another is needed. Bounds how far an example
        can move from its place in the order.

    Returns:
      Indices into ``lengths`` for each row; rows in order of opening, deterministic.
    """
    rows: list[list[int]] = []
    free = np.zeros(0, np.int64)  # of the open rows, which are rows[-len(free):]
    for index, length in enumerate(lengths):
        fits = np.flatnonzero(free >= length)
        if len(fits):
            place = fits[np.argmin(free[fits])]
            rows[len(rows) - len(free) + place].append(index)
            free[place] -= length
        else:
            rows.append([index])
            free = np.append(free[max(len(free) + 1 - window, 0) :], max_length - length)
    return [np.array(row) for row in rows]


@dataclasses.dataclass(frozen=True)
class TrainPlan:
    """Every batch of a run, by global index: which examples share which row.

    Attributes:
      rows: indices of the examples of each row, over all epochs; batches that an epoch cannot
        fill have empty rows.
      epoch_ends: batches done at the end of each epoch.
      batch_size: rows per batch.
      max_length: tokens per row.
    """

    rows: list[np.ndarray]
    epoch_ends: list[int]
    batch_size: int
    max_length: int

    def examples_of(self, batch: int) -> list[int]:
        """Indices of the examples in one batch, ascending."""
        rows = self.rows[batch * self.batch_size : (batch + 1) * self.batch_size]
        return sorted(int(index) for row in rows for index in row)

    def epoch_at(self, batches: int) -> float:
        """Epochs done after that many batches, with the fraction of the current one."""
        ends = [0, *self.epoch_ends]
        epoch = int(np.searchsorted(self.epoch_ends, batches, side="right"))
        if epoch == len(self.epoch_ends):
            return float(epoch)
        return epoch + (batches - ends[epoch]) / (ends[epoch + 1] - ends[epoch])


def plan_training(
    examples: Sequence[Example],
    *,
    max_length: int,
    batch_size: int,
    epochs: int,
    seed: int,
    packed: bool,
) -> TrainPlan:
    """Shuffles by (seed, epoch), packs (or gives each example its row), cuts into batches.

    A row holds one token less than its last example has: the last token is only a target.

    Raises:
      UserError: an example is longer than ``max_length``; names how many and the longest.
    """
    lengths = np.array([len(example.tokens) - 1 for example in examples])
    over = int(np.sum(lengths > max_length))
    if over:
        raise UserError(
            f"config.data.max_length = {max_length}: {over} of {len(lengths)} training examples "
            f"are longer (the longest has {lengths.max()} tokens). Raise it or remove them."
        )
    rows, ends = [], []
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(examples))
        packs = pack(lengths[order], max_length) if packed else np.arange(len(order))[:, None]
        # Split evenly: a last batch of one example would be an update made by that example alone.
        count = -(-len(packs) // batch_size)
        for part in np.array_split(np.arange(len(packs)), count):
            rows += [order[packs[i]] for i in part]
            rows += [np.zeros(0, np.int64)] * (batch_size - len(part))
        ends.append(len(rows) // batch_size)
    return TrainPlan(rows, ends, batch_size, max_length)


def make_batch(rows: Sequence[Sequence[Example]], length: int) -> Batch:
    """Numpy batch whose rows hold the given examples one after another, padded to ``length``."""
    shape = (len(rows), length)
    tokens, targets, positions, segments = (np.zeros(shape, np.int32) for _ in range(4))
    weights = np.zeros(shape, np.float32)
    for r, row in enumerate(rows):
        start = 0
        for segment, example in enumerate(row, start=1):
            stop = start + len(example.tokens) - 1
            tokens[r, start:stop] = example.tokens[:-1]
            targets[r, start:stop] = example.tokens[1:]
            weights[r, start:stop] = example.is_target[1:]
            positions[r, start:stop] = np.arange(stop - start)
            segments[r, start:stop] = segment
            start = stop
    return Batch(tokens, targets, weights, positions, segments)


class _Source:
    """Random access to this process's share of each batch (a Grain ``RandomAccessDataSource``)."""

    def __init__(self, plan: TrainPlan, examples: Sequence[Example], process: int, processes: int):
        self._plan, self._examples = plan, examples
        self._share = plan.batch_size // processes
        self._first = process * self._share

    def __len__(self) -> int:
        return len(self._plan.rows) // self._plan.batch_size

    def __getitem__(self, index: int) -> Batch:
        first = int(index) * self._plan.batch_size + self._first
        rows = self._plan.rows[first : first + self._share]
        return make_batch([[self._examples[i] for i in row] for row in rows], self._plan.max_length)


def train_batches(
    plan: TrainPlan,
    examples: Sequence[Example],
    *,
    start: int = 0,
    process: int = 0,
    processes: int = 1,
) -> Iterator[Batch]:
    """Batches ``start``, ``start + 1``, … of the plan, this process's rows only, read ahead.

    Raises:
      UserError: the batch cannot be divided among the processes.
    """
    import grain

    if plan.batch_size % processes:
        raise UserError(
            f"config.train.batch_size = {plan.batch_size} is not divisible by {processes} hosts."
        )
    source = grain.MapDataset.source(_Source(plan, examples, process, processes))
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    return iter(source[start:].to_iter_dataset(options))


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


def eval_batches(
    examples: Sequence[Example],
    *,
    batch_size: int,
    max_length: int,
    bucket: int = 64,
    process: int = 0,
    processes: int = 1,
) -> Iterator[Batch]:
    """Every example once, unpacked, each padded to a multiple of ``bucket`` of its batch's longest.

    Independent of every training knob. Sorted by length, so few shapes are compiled; the last
    batch is filled with rows of weight 0. Of each batch this process's rows only; ``batch_size``
    is over all processes and a multiple of their number.

    Raises:
      UserError: an example is longer than ``max_length``: cutting it would change the number.
    """
    check_eval_lengths(examples, max_length)
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].tokens))
    for start in range(0, len(order), batch_size):
        rows = [[examples[i]] for i in order[start : start + batch_size]]
        length = -(-(len(rows[0][0].tokens) - 1) // bucket) * bucket
        rows += [[]] * (batch_size - len(rows))
        share = batch_size // processes
        yield make_batch(rows[process * share : (process + 1) * share], length)
