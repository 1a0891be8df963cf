"""Windows of ``length`` tokens that occur more than once, by either of two exact engines.

A window lies inside one span: there is no separator that could take part in a match, and positions
are those of whole tokens, so no match ends inside a character. Both engines find the same classes:

    suffix_array   libdivsufsort; about 16 bytes of memory per token
    hash           rolling hashes, sorted in as many passes as the memory asks for, then verified
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from sft.errors import UserError

ENGINES = ("suffix_array", "hash")
MEMORY = 2**30  # bytes that the hash engine may use, unless told otherwise


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


def classes(
    corpus: Corpus, length: int, engine: str = "suffix_array", memory: int = MEMORY
) -> Iterator[Classes]:
    """Every class of equal windows with at least two members once, whole, in some batch.

    Both engines give the same classes, in different order and batches. A batch is small, unless
    one class is large.

    Args:
      length: tokens of a window.
      memory: bytes that the hash engine may use beside the corpus and the batch it has given out,
        see ``hash_windows.classes``. The suffix array takes what it needs.

    Raises:
      UserError: ``length``, ``engine`` or ``memory`` is not usable.
    """
    from sft.data.dedup import hash_windows, suffix_array

    if length < 1:
        raise UserError(
            f"deduplication: windows of {length} tokens, expected 1 or more. Set the length to "
            "50, for example."
        )
    if engine not in ENGINES:
        raise UserError(
            f"deduplication: unknown engine {engine!r}, expected one of {', '.join(ENGINES)}. "
            "Choose one of them."
        )
    if engine == "suffix_array":
        return suffix_array.classes(corpus, length)
    least = hash_windows.least_memory(length)
    if memory < least and corpus.windows(length):
        raise UserError(
            f"deduplication: {memory} bytes of memory for windows of {length} tokens, expected "
            f"{least} or more. Raise the memory of the hash engine."
        )
    return hash_windows.classes(corpus, length, memory)


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
