"""Stretches of tokens, each inside one row, and the stream of tokens that are compared."""

import dataclasses

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import ANSWER


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


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """The tokens that are compared, one after another: those of answers that are no part of a form.

    What a form stood between is adjacent here, so that a window counts what is said beside forms.

    Attributes:
      places: int32 or int64 ``[C]``, ascending positions in the tokens of all rows.
      turns: the ``t`` answers that the tokens are taken from, forms included.
      starts: int64 ``[t + 1]``; answer i has the tokens from ``starts[i]`` to ``starts[i + 1]``,
        which may be none.
    """

    places: np.ndarray
    turns: Stretches
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    @property
    def sizes(self) -> np.ndarray:
        """int64 ``[t]``: tokens of each answer besides forms."""
        return np.diff(self.starts)


def stream(examples: Examples, kept: np.ndarray, forms: np.ndarray) -> Stream:
    """What the answers of the ``kept`` rows say besides forms.

    Args:
      kept: bool ``[n]``.
      forms: bool ``[T]``, tokens of forms.
    """
    said = answers(examples, kept)
    turns = runs(said, examples.starts)
    places = np.flatnonzero(said & ~forms)
    if len(said) < 2**31:
        places = places.astype(np.int32)
    starts = np.append(np.searchsorted(places, turns.begins), len(places)).astype(np.int64)
    return Stream(places, turns, starts)


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


def without(examples: Examples, gone: np.ndarray) -> Examples:
    """The rows without the tokens that are ``gone``, bool ``[T]``; themselves where none is."""
    if not gone.any():
        return examples
    stays = ~gone
    starts = np.concatenate([[0], np.cumsum(stays)])[examples.starts]
    return Examples(examples.tokens[stays], examples.kinds[stays], starts)
