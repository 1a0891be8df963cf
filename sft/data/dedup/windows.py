"""Spans of tokens, and classes of equal windows in them: what every engine takes and gives.

A window lies inside one span: there is no separator that could take part in a match, and positions
are those of whole tokens, so no match ends inside a character.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Spans of tokens one after another. The arrays may be read-only or memory-mapped.

    Attributes:
      tokens: int32 ``[T]``.
      starts: int64 ``[s + 1]``; span i is ``tokens[starts[i] : starts[i + 1]]``, maybe empty.
    """

    tokens: np.ndarray
    starts: np.ndarray

    def __post_init__(self):
        starts = self.starts
        if not len(starts) or starts[0] != 0 or starts[-1] != len(self.tokens):
            raise ValueError("starts must go from 0 to the number of tokens")
        if (np.diff(starts) < 0).any():
            raise ValueError("starts must not decrease")

    def windows(self, length: int) -> int:
        """Number of windows of ``length`` tokens."""
        return int(np.maximum(np.diff(self.starts) - length + 1, 0).sum())

    def fits(self, length: int, start: int, stop: int) -> np.ndarray:
        """bool ``[stop - start]``: whether the window that starts there ends in the same span."""
        first = np.searchsorted(self.starts, start, "right") - 1
        last = np.searchsorted(self.starts, stop, "left")
        begins = np.clip(self.starts[first:last], start, stop)
        ends = self.starts[first + 1 : last + 1]
        full = np.clip(ends - length + 1, begins, stop)  # up to here, windows fit
        runs = np.stack([full - begins, np.minimum(ends, stop) - full], axis=1).reshape(-1)
        return np.repeat(np.resize([True, False], len(runs)), runs)


@dataclasses.dataclass(frozen=True, eq=False)
class Classes:
    """Classes of equal windows, each with two members or more.

    Attributes:
      positions: int64 ``[m]``, first tokens of the windows; ascending within a class.
      starts: int64 ``[k + 1]``; class i is ``positions[starts[i] : starts[i + 1]]``.
    """

    positions: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def select(self, members: np.ndarray) -> "Classes":
        """What is left with only the ``members`` (bool ``[m]``), without those then alone."""
        if members.all():
            return self
        sizes = np.add.reduceat(members, self.starts[:-1], dtype=np.int64)
        kept = members & np.repeat(sizes > 1, np.diff(self.starts))
        starts = np.concatenate([[0], np.cumsum(sizes[sizes > 1])])
        return Classes(self.positions[kept], starts)


def grouped(keys: np.ndarray, bits: int) -> Classes:
    """The classes in sorted uint64 keys ``group << bits | position``, without those of one."""
    groups = keys >> bits
    joins = np.zeros(len(keys) + 1, bool)  # whether key i is of the same group as key i - 1
    np.equal(groups[1:], groups[:-1], out=joins[1:-1])
    kept = joins[:-1] | joins[1:]
    positions = (keys[kept] & ((1 << bits) - 1)).astype(np.int64)
    starts = np.flatnonzero(~joins[:-1][kept])
    return Classes(positions, np.append(starts, len(positions)))


def position_bits(tokens: int) -> int:
    """Bits that hold any position among so many tokens."""
    return max(1, (tokens - 1).bit_length())
