"""Stretches of tokens, each inside one row: where a flag is set, and back."""

import dataclasses

import numpy as np

from sft.data.chat import ANSWER
from sft.data.examples import Examples


@dataclasses.dataclass(frozen=True, eq=False)
class Stretches:
    """Attributes: ``begins``, ``stops``: int64 ``[s]``, positions in the tokens of all rows.
    ``rows``: int64 ``[s]``."""

    begins: np.ndarray
    stops: np.ndarray
    rows: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """int64 ``[s]``: tokens of each."""
        return self.stops - self.begins

    def select(self, chosen: np.ndarray) -> "Stretches":
        """Those at ``chosen``: indices, or a flag for each."""
        return Stretches(self.begins[chosen], self.stops[chosen], self.rows[chosen])


def runs(flags: np.ndarray, starts: np.ndarray) -> Stretches:
    """The longest runs of true ``flags``, bool ``[T]``, that cross none of the rows' ``starts``."""
    begins, ends = flags.copy(), flags.copy()
    begins[1:] &= ~flags[:-1]
    ends[:-1] &= ~flags[1:]
    bounds = starts[(starts > 0) & (starts < len(flags))]
    begins[bounds] = flags[bounds]
    ends[bounds - 1] = flags[bounds - 1]
    first = np.flatnonzero(begins)
    rows = np.searchsorted(starts, first, side="right") - 1
    return Stretches(first, np.flatnonzero(ends) + 1, rows)


def flagged(begins: np.ndarray, stops: np.ndarray, size: int) -> np.ndarray:
    """bool ``[size]``: positions in some stretch; both arrays ascend, stretches may overlap."""
    change = np.zeros(size + 1, np.int8)
    if len(begins):
        is_apart = begins[1:] > stops[:-1]
        change[begins[np.append(True, is_apart)]] = 1
        change[stops[np.append(is_apart, True)]] = -1
    return np.cumsum(change[:-1], dtype=np.int8).view(bool)


def answers(examples: Examples, kept: np.ndarray) -> np.ndarray:
    """bool ``[T]``: trained tokens of answers, without their ends, in the ``kept`` rows."""
    return (examples.kinds == ANSWER) & np.repeat(kept, examples.lengths)
