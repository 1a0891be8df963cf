"""Sets of token n-grams of what the user and the model say, and how much two of them share.

An n-gram lies inside one turn: it never joins what two sides say. Those of the user and those of
the model are different even when their tokens are equal. A turn of fewer than n tokens is one
n-gram, its whole text. System instructions, control tokens and headers are not part of any, and an
answer has the same ones whether it is trained or context.

An n-gram is known by a 64-bit hash; two different ones have the same with probability 2^-64.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import END, PROMPT

TEMPLATE_ROWS = 100  # of the rows looked at, whose prompts have an n-gram that says nothing; or
SMALL_ROWS = 10  # half of the rows where there are fewer than 200, but never fewer than this
_LOOKED_AT = 10_000
_BATCH = 2**20  # tokens read at a time
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclasses.dataclass(frozen=True, eq=False)
class Grams:
    """n-grams of some rows.

    Attributes:
      hashes: uint64 ``[g]``.
      rows: int64 ``[g]``, ascending: the place of each one's row among those that were read.
      sides: int64 ``[g]``: 0 of the user, 1 of the model.
    """

    hashes: np.ndarray
    rows: np.ndarray
    sides: np.ndarray

    def where(self, chosen: np.ndarray) -> "Grams":
        """Those that an index or a mask chooses."""
        return Grams(self.hashes[chosen], self.rows[chosen], self.sides[chosen])

    def distinct(self) -> "Grams":
        """Each once a row; by row, and in it by hash."""
        found = self.where(np.lexsort((self.hashes, self.rows)))
        is_new = np.ones(len(found.rows), bool)
        is_new[1:] = (np.diff(found.rows) > 0) | (found.hashes[1:] != found.hashes[:-1])
        return found.where(is_new)


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
    """Reads the n-grams of a set. Sets that are compared share all but ``examples``.

    Attributes:
      length: tokens of an n-gram.
      ends: int32, ids of ends of turns.
      template: uint64, ascending: n-grams of the user that are left out.
    """

    examples: Examples
    length: int
    ends: np.ndarray
    template: np.ndarray

    def read(self, rows: np.ndarray) -> Grams:
        """All n-grams of the rows, int64 ``[m]``."""
        found = of(self.examples.select(rows), self.length, self.ends)
        return found.where(~np.isin(found.hashes, self.template))

    def batches(self) -> Iterator[np.ndarray]:
        """All rows, in order, a bounded number of tokens at a time."""
        return batches(np.arange(len(self.examples)), self.examples.lengths)


def readers(sets: Sequence[Examples], length: int, seed: int) -> list[Reader]:
    """A reader of each set.

    Left out is the instruction around the prompts of many rows: n-grams that the user says in at
    least ``TEMPLATE_ROWS`` of the rows of one of the sets, or of 10,000 drawn from it; in fewer
    than twice as many rows in half of them, and at least in ``SMALL_ROWS``.
    """
    ends = np.unique(np.concatenate([e.tokens[e.kinds == END] for e in sets]))
    nothing = np.zeros(0, np.uint64)
    template = [_template(Reader(e, length, ends, nothing), seed) for e in sets]
    found = np.unique(np.concatenate(template))
    return [Reader(e, length, ends, found) for e in sets]


def of(examples: Examples, length: int, ends: np.ndarray) -> Grams:
    """All n-grams of a set, as often as they stand there."""
    kinds = examples.kinds
    is_said = (kinds >= PROMPT) & ~np.isin(examples.tokens, ends)
    places = np.flatnonzero(is_said)
    rows = np.repeat(np.arange(len(examples)), examples.lengths)[places]
    sides = (kinds[places] != PROMPT).astype(np.int64)
    opens = np.ones(len(places), bool)  # a turn
    opens[1:] = (np.diff(places) > 1) | (np.diff(rows) > 0) | (np.diff(sides) != 0)
    starts = np.flatnonzero(opens)
    sizes = np.diff(np.append(starts, len(places)))
    left = np.repeat(starts + sizes, sizes) - np.arange(len(places))  # tokens to the turn's end

    values = mixed(examples.tokens[places].astype(np.uint64))
    hashes = sides.astype(np.uint64)
    for offset in range(length):
        hashes *= _MULTIPLIER
        reach = max(len(places) - offset, 0)
        hashes[:reach] += np.where(left[:reach] > offset, values[offset:], np.uint64(0))
    is_gram = opens | (left >= length)
    return Grams(mixed(hashes[is_gram]), rows[is_gram], sides[is_gram])


def shared(
    left: Reader, right: Reader, left_rows: np.ndarray, right_rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the sets of pairs of rows have in common.

    Returns:
      sizes of intersection and of union, both int64 ``[pairs, 2]``: of the user, of the model.
    """
    sizes = left.examples.lengths[left_rows] + right.examples.lengths[right_rows]
    parts = [
        _shared(left, right, left_rows[pairs], right_rows[pairs])
        for pairs in batches(np.arange(len(left_rows)), sizes)
    ]
    empty = np.zeros((0, 2), np.int64)
    both, either = zip(*parts, strict=True) if parts else ([empty], [empty])
    return np.concatenate(both), np.concatenate(either)


def jaccard(both: np.ndarray, either: np.ndarray) -> np.ndarray:
    """Intersection over union, float64; 1 for two empty sets."""
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def batches(items: np.ndarray, sizes: np.ndarray) -> Iterator[np.ndarray]:
    """The items in order, as many at a time as have ``_BATCH`` tokens together, at least one."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(items):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + _BATCH, side="right")), start + 1)
        yield items[start:stop]
        start = stop


def mixed(values: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64 (Steele et al. 2014), a permutation of uint64."""
    values = values + _MULTIPLIER
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _template(reader: Reader, seed: int) -> np.ndarray:
    count = len(reader.examples)
    drawn = np.arange(count)
    if count > _LOOKED_AT:
        drawn = np.sort(np.random.default_rng(seed).choice(count, _LOOKED_AT, replace=False))
    found = [np.zeros(0, np.uint64)]
    for rows in batches(drawn, reader.examples.lengths[drawn]):
        grams = reader.read(rows)
        found.append(grams.where(grams.sides == 0).distinct().hashes)
    hashes, counts = np.unique(np.concatenate(found), return_counts=True)
    return hashes[counts >= min(TEMPLATE_ROWS, max(SMALL_ROWS, len(drawn) / 2))]


def _shared(
    left: Reader, right: Reader, left_rows: np.ndarray, right_rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    rows_a, in_a = np.unique(left_rows, return_inverse=True)
    rows_b, in_b = np.unique(right_rows, return_inverse=True)
    a, b = left.read(rows_a).distinct(), right.read(rows_b).distinct()
    # Ids instead of hashes leave room for the row beside them in 64 bits.
    ids = np.unique(np.concatenate([a.hashes, b.hashes]), return_inverse=True)[1]
    size = len(ids) + 1
    known = np.append(b.rows * size + ids[len(a.hashes) :], np.iinfo(np.int64).max)

    counts = np.bincount(a.rows, minlength=len(rows_a))
    starts = np.cumsum(counts) - counts
    pairs = np.repeat(np.arange(len(left_rows)), counts[in_a])
    first = np.cumsum(counts[in_a]) - counts[in_a]  # of each pair, among ``pairs``
    places = np.arange(len(pairs)) - first[pairs] + starts[in_a][pairs]
    wanted = in_b[pairs] * size + ids[: len(a.hashes)][places]
    is_in = known[np.searchsorted(known, wanted)] == wanted
    both = np.bincount(2 * pairs[is_in] + a.sides[places[is_in]], minlength=2 * len(left_rows))
    both = both.reshape(-1, 2)
    each = [
        np.bincount(2 * grams.rows + grams.sides, minlength=2 * len(rows)).reshape(-1, 2)
        for grams, rows in ((a, rows_a), (b, rows_b))
    ]
    return both, each[0][in_a] + each[1][in_b] - both
