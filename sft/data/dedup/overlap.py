"""Windows of tokens that two sets share: one set is indexed, the other is streamed past it.

The result is exact. The hash is drawn anew until it tells all windows of the indexed set apart,
and a window of the other set with a known hash is compared with it token by token. Memory is about
60 bytes a token of the indexed set, 64 MB for the part of the other set in work, and 16 bytes for
each (row, window) that the two have in common.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import ANSWER, CONTEXT, PROMPT

ANSWERS = (ANSWER,)
TEXT = (PROMPT, CONTEXT, ANSWER)
_CHUNK = 2**20  # tokens in work at a time
_FILTER_BITS = 22  # of a hash, by which most windows are told apart without a search


@dataclasses.dataclass(frozen=True)
class Index:
    """Every window of a set, by content; a class is all windows of the same tokens.

    Attributes:
      hashes: uint64 ``[u]``, ascending, one a class.
      first: int64 ``[u]``, token position of the first window of each class.
      positions: int64 ``[w]``, of every window, ascending within a class.
      ids: int64 ``[w]``, class of every window, ascending.
    """

    examples: Examples
    kinds: Sequence[int]
    length: int
    seed: int
    hashes: np.ndarray
    first: np.ndarray
    positions: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.hashes)


def index(examples: Examples, kinds: Sequence[int], length: int) -> Index:
    """Indexes the windows of ``length`` tokens that lie in one run of one of ``kinds``."""
    for seed in itertools.count():
        positions, hashes = windows(examples, 0, len(examples), kinds, length, seed)
        order = np.argsort(hashes, kind="stable")
        positions, hashes = positions[order], hashes[order]
        is_new = np.ones(len(hashes), bool)
        is_new[1:] = hashes[1:] != hashes[:-1]
        again = np.flatnonzero(~is_new)
        pair = (examples.tokens, positions[again]), (examples.tokens, positions[again - 1])
        if _equal(*pair, length).all():
            break
    ids = np.cumsum(is_new) - 1
    return Index(examples, kinds, length, seed, hashes[is_new], positions[is_new], positions, ids)


def shared(found: Index, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """What the rows of ``examples`` have in common with an indexed set.

    Returns:
      int64 ``[h]`` rows and int64 ``[h]`` classes, each pair once, ascending by both.
    """
    keys = [np.zeros(0, np.int64)]
    for positions, ids in _matches(found, examples):
        keys.append(np.unique(rows_of(examples, positions) * len(found) + ids))
    return np.divmod(np.concatenate(keys), max(len(found), 1))


def places(found: Index, examples: Examples) -> np.ndarray:
    """int64, ascending: where windows of ``examples`` start that an indexed set has too."""
    return np.concatenate([np.zeros(0, np.int64), *(at for at, _ in _matches(found, examples))])


def _matches(found: Index, examples: Examples) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Token positions of windows that are in the index, and their classes, some rows at a time."""
    if not len(found):
        return
    shift = np.uint64(64 - _FILTER_BITS)
    known = np.zeros(2**_FILTER_BITS, bool)
    known[found.hashes >> shift] = True
    for first, last in _chunks(examples.starts):
        positions, hashes = windows(examples, first, last, found.kinds, found.length, found.seed)
        likely = np.flatnonzero(known[hashes >> shift])
        positions, hashes = positions[likely], hashes[likely]
        ids = np.minimum(np.searchsorted(found.hashes, hashes), len(found) - 1)
        match = found.hashes[ids] == hashes
        positions, ids = positions[match], ids[match]
        pair = (examples.tokens, positions), (found.examples.tokens, found.first[ids])
        true = _equal(*pair, found.length)
        yield positions[true], ids[true]


def windows(
    examples: Examples, first: int, last: int, kinds: Sequence[int], length: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Windows of rows ``first`` to ``last`` that lie in one run of one of ``kinds``.

    Returns:
      int64 ``[w]`` token positions, ascending, and uint64 ``[w]`` hashes.
    """
    begin, end = int(examples.starts[first]), int(examples.starts[last])
    if end - begin < length:
        return np.zeros(0, np.int64), np.zeros(0, np.uint64)
    kind = examples.kinds[begin:end]
    begins = np.zeros(end - begin, bool)
    begins[1:] = kind[1:] != kind[:-1]
    rows = examples.starts[first:last] - begin
    begins[rows[rows < end - begin]] = True
    run = np.cumsum(begins, dtype=np.int32)
    count = end - begin - length + 1
    whole = run[length - 1 :] == run[:count]
    wanted = np.isin(np.arange(256), kinds)
    places = np.flatnonzero(whole & wanted[kind[:count]])
    return places + begin, _hashes(examples.tokens[begin:end], length, seed)[places]


def common(
    rows: np.ndarray, ids: np.ndarray, size: int, origins: np.ndarray, share: float, least: int
) -> np.ndarray:
    """Classes found in a large share of the rows of some origin: formatting, not content.

    Args:
      rows, ids: from ``shared``.
      size: number of classes.
      origins: int64 ``[n]``, of every row of the set, from 0.
      share: of an origin's rows, from which a class is common.
      least: rows, fewer of which are never enough.

    Returns:
      bool ``[size]``.
    """
    often = np.bincount(ids, minlength=size) >= least
    chosen = often[ids]
    count = int(origins.max(initial=0)) + 1
    keys, rows_with = np.unique(ids[chosen] * count + origins[rows[chosen]], return_counts=True)
    needed = np.maximum(least, share * np.bincount(origins, minlength=count))
    found = np.zeros(size, bool)
    found[keys[rows_with >= needed[keys % count]] // count] = True
    return found


def covered(total: int, positions: np.ndarray, length: int) -> np.ndarray:
    """bool ``[total]``: tokens that lie in one of the windows that begin at ``positions``."""
    edges = np.bincount(positions, minlength=total + length)
    edges[length:] -= np.bincount(positions, minlength=total)
    return np.cumsum(edges)[:total] > 0


def rows_of(examples: Examples, positions: np.ndarray) -> np.ndarray:
    """int64: the row that each token position is in."""
    return np.searchsorted(examples.starts, positions, side="right") - 1


def _chunks(starts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of whole rows of about ``_CHUNK`` tokens, at least one row each."""
    first, rows = 0, len(starts) - 1
    while first < rows:
        last = int(np.searchsorted(starts, starts[first] + _CHUNK, side="right")) - 1
        last = min(max(last, first + 1), rows)
        yield first, last
        first = last


def _hashes(tokens: np.ndarray, length: int, seed: int) -> np.ndarray:
    """uint64 ``[T - length + 1]``: a hash of each window, put together from powers of two."""
    salt = np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    part = _mix(tokens.astype(np.uint64) + salt)  # of the window of ``size`` tokens from here
    size, done, rest = 1, 0, length
    whole = np.zeros(0, np.uint64)  # of the window of ``done`` tokens from here
    while True:
        if rest & 1:
            # Unlike the step below, or (a, b), c would have the hash of (b, a), c.
            whole = _mix(whole[: len(part) - done] + salt) + part[done:] if done else part
            done += size
        rest >>= 1
        if not rest:
            return whole
        part = _mix(part[:-size]) + part[size:]
        size *= 2


def _mix(values: np.ndarray) -> np.ndarray:
    values = values ^ (values >> np.uint64(32))
    values *= np.uint64(0xD6E8FEB86659FD93)
    values ^= values >> np.uint64(29)
    return values


def _equal(
    left: tuple[np.ndarray, np.ndarray], right: tuple[np.ndarray, np.ndarray], length: int
) -> np.ndarray:
    """bool ``[m]``: the windows at these (tokens, positions) are the same tokens."""
    found = np.ones(len(left[1]), bool)
    for offset in range(length):
        found &= left[0][left[1] + offset] == right[0][right[1] + offset]
    return found
