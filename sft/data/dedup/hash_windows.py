"""Repeated windows from sorted hashes, in little memory and from memory-mapped tokens.

The hash of a window is that of Karp and Rabin (1987), modulo 2^64 and with an odd base B, taken
from prefix sums so that any stretch of the corpus is hashed by itself and without a loop:

    S[i] = sum of (t[j] + 1) * B^-j over j < i,    hash[i] = (S[i + length] - S[i]) * B^(i + length)

A pass takes the windows whose hashes lie in a range and sorts keys made of the hash's upper bits
and the position. Windows with equal keys are then compared token by token, so hashes decide about
time and never about the result.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from sft.data.dedup import windows
from sft.data.dedup.windows import Classes, Corpus

_BASE = 0x9E3779B97F4A7C15  # odd
_CHUNK = 2**16  # windows hashed together: their arrays stay in the processor's cache
_BLOCK = 2**17  # keys looked at together
_COMPARED = 2**18  # tokens compared together
_BUCKET_BITS = 12  # hashes are counted by so many upper bits, to lay out the passes
_BUCKETS = 2**_BUCKET_BITS


def least_memory(length: int) -> int:
    """Bytes: the temporaries, and as much again for keys."""
    return 2 * _temporaries(length)


def _temporaries(length: int) -> int:
    """Bytes at the most: of hashing, and of a block of keys, its classes and the tokens compared.

    Hashing has six arrays of 8 bytes; a block has six of 8 bytes and some of 1; of the compared
    tokens there are two int32 arrays and one of bool.
    """
    return 48 * (_CHUNK + length) + 56 * _BLOCK + 12 * max(_COMPARED, length) + 2**17


def classes(corpus: Corpus, length: int, memory: int) -> Iterator[Classes]:
    """See ``engines.classes``.

    A window takes 8 bytes in its pass, and there are as many passes as keep the keys and all
    temporaries within ``memory`` bytes. Only equal windows, and windows whose hashes are alike in
    their upper 12 bits, cannot be parted: a class with more members than a pass has room for takes
    8 bytes a member all the same, and one of more than 131,072 up to 56 while it is looked at.
    """
    capacity = max(1, (memory - _temporaries(length)) // 8)
    return in_passes(corpus, length, capacity)


def in_passes(
    corpus: Corpus, length: int, capacity: int, chunk: int = _CHUNK, block: int = _BLOCK
) -> Iterator[Classes]:
    """``classes`` with at most ``capacity`` windows a pass; no argument changes what is found."""
    if corpus.windows(length) < 2:
        return
    hashing = _Hashing(corpus, length, chunk)
    passes = list(_passes(hashing, capacity))
    buffer = np.empty(max((count for _, _, count in passes), default=0), np.uint64)
    for low, high, count in passes:
        keys = buffer[:count]
        _fill(keys, hashing, low, high)
        keys.sort()
        yield from _blocks(corpus, length, keys, block)


@dataclasses.dataclass
class _Hashing:
    """The windows of a corpus with their hashes, chunk by chunk."""

    corpus: Corpus
    length: int
    chunk: int

    def __post_init__(self):
        # From B^length on: a token with the factor B^0 would show in the lowest bits alone.
        self.up = _powers(_BASE, self.chunk + self.length)[self.length :]
        self.down = _powers(pow(_BASE, -1, 2**64), self.chunk + self.length - 1)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Start, hash of each window from there on, and whether it lies inside one span."""
        end = len(self.corpus.tokens) - self.length + 1
        for start in range(0, end, self.chunk):
            stop = min(start + self.chunk, end)
            fits = self.corpus.fits(self.length, start, stop)
            yield start, self.hashes(start, stop), fits

    def hashes(self, start: int, stop: int) -> np.ndarray:
        """uint64 ``[stop - start]``: of the windows that start there."""
        terms = self.corpus.tokens[start : stop + self.length - 1].astype(np.uint64)
        terms += 1
        terms *= self.down[: len(terms)]
        sums = np.cumsum(terms, out=terms)
        hashes = sums[self.length - 1 :].copy()
        hashes[1:] -= sums[: stop - start - 1]
        hashes *= self.up[: stop - start]
        return hashes


def _powers(base: int, count: int) -> np.ndarray:
    """uint64 ``[count]``: 1, base, base^2, … modulo 2^64."""
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, out=powers)


def _passes(hashing: _Hashing, capacity: int) -> Iterator[tuple[int, int, int]]:
    """Ranges of buckets that hold ``capacity`` windows at the most, or else are of one bucket.

    Yields:
      First bucket, the bucket after the last, and the number of windows.
    """
    count = hashing.corpus.windows(hashing.length)
    if count <= capacity:
        yield 0, _BUCKETS, count
        return
    totals = np.zeros(_BUCKETS + 1, np.int64)
    for _, hashes, fits in hashing:
        buckets = (hashes >> (64 - _BUCKET_BITS)).view(np.int64)[fits]
        totals[1:] += np.bincount(buckets, minlength=_BUCKETS)
    totals = np.cumsum(totals)
    low = 0
    while low < _BUCKETS:
        room = int(np.searchsorted(totals, totals[low] + capacity, "right")) - 1
        high = max(low + 1, room)
        if totals[high] - totals[low] > 1:
            yield low, high, int(totals[high] - totals[low])
        low = high


def _fill(keys: np.ndarray, hashing: _Hashing, low: int, high: int) -> None:
    """Puts the windows of a range of buckets into uint64 ``keys``: hash above the position.

    What the hashes of the range have in common is taken away, to make room for their other bits.
    """
    offset = low << (64 - _BUCKET_BITS)
    largest = ((high - low) << (64 - _BUCKET_BITS)) - 1
    spare = _BUCKET_BITS - (high - low - 1).bit_length()
    bits = windows.position_bits(len(hashing.corpus.tokens))
    filled = 0
    for start, hashes, fits in hashing:
        hashes -= offset
        places = np.flatnonzero(fits & (hashes <= largest))
        chosen = hashes[places]
        chosen <<= spare
        chosen &= 2**64 - 2**bits
        places += start
        chosen |= places.view(np.uint64)
        keys[filled : filled + len(chosen)] = chosen
        filled += len(chosen)


def _blocks(corpus: Corpus, length: int, keys: np.ndarray, block: int) -> Iterator[Classes]:
    """Classes of equal windows from sorted keys, some of the keys at a time."""
    bits = windows.position_bits(len(corpus.tokens))
    start = 0
    while start < len(keys):
        stop = min(start + block, len(keys))
        stop = int(np.searchsorted(keys, keys[stop - 1] | np.uint64(2**bits - 1), "right"))
        yield from _verified(corpus.tokens, length, windows.grouped(keys[start:stop], bits))
        start = stop


def _verified(tokens: np.ndarray, length: int, alike: Classes) -> Iterator[Classes]:
    """Classes of equal windows from those of equal hashes: one of each at a time."""
    while len(alike):
        first = np.repeat(alike.positions[alike.starts[:-1]], np.diff(alike.starts))
        same = _equal(tokens, length, alike.positions, first)
        found = alike.select(same)
        if len(found):
            yield found
        alike = alike.select(~same)


def _equal(tokens: np.ndarray, length: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """bool ``[m]``: whether the windows at ``one`` and at ``other`` hold the same tokens."""
    every = np.lib.stride_tricks.sliding_window_view(tokens, length)
    rows = max(1, _COMPARED // length)
    same = np.ones(len(one), bool)
    for start in range(0, len(one), rows):
        part = slice(start, start + rows)
        differ = every[one[part]] != every[other[part]]
        if differ.any():
            same[part] = ~differ.any(axis=1)
    return same
