"""Rows that nearly repeat an earlier one, by shared token n-grams.

MinHash (Broder 1997) with banding (Leskovec et al., Mining of Massive Datasets, 3.4) proposes
pairs, and their n-gram sets decide (``sft.data.dedup.ngrams`` says what is in them). Nothing is
found that is not there; a pair whose sets have Jaccard similarity s is proposed, and so found, with
probability 1 - (1 - s^rows)^bands at least.

Within a set, two rows are near-duplicates when what the user says and what the model says are both
nearly the same: neither another answer to the same long prompt nor the same long answer to another
prompt is a repetition. (Of the ShareGPT conversations 805 are near-duplicates so, and 876 when all
of it counts together; the difference is other questions about the same document.) Between sets,
where the question is what has been seen before, all of it counts together.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.dedup import graph, ngrams
from sft.errors import UserError
from sft.run.progress import Progress

_ROWS_AT_ONCE = 4096  # whose MinHashes exist as Python numbers at a time


@dataclasses.dataclass(frozen=True)
class Options:
    """How near-duplicates are found.

    Attributes:
      ngram: tokens of an n-gram.
      bands, rows: MinHashes are compared ``rows`` at a time, ``bands`` times.
      jaccard: similarity from which two rows are near-duplicates.
      seed: of the MinHashes, and of the rows looked at for a common instruction.

    Raises:
      UserError: a value out of its range.
    """

    ngram: int = 5
    bands: int = 16
    rows: int = 8
    jaccard: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("ngram", 1), ("bands", 1), ("rows", 2), ("seed", 0)):
            value = getattr(self, name)
            if value < least:
                raise UserError(f"near-duplicates: {name} = {value}: expected {least} or more.")
        if not 0 < self.jaccard <= 1:
            raise UserError(
                f"near-duplicates: jaccard = {self.jaccard}: expected above 0 and at most 1."
            )


_USUAL = Options()


def find(examples: Examples, options: Options = _USUAL, together: bool = False) -> np.ndarray:
    """Clusters of near-duplicates: the connected components of all pairs found.

    In each pair the n-grams of the user and those of the model both have at least
    ``options.jaccard``. Two rows of a cluster may be less alike than that.

    Args:
      together: the n-grams of both count as one set: for rows to keep in one split, such as all
        questions about a document, rather than rows to drop.

    Returns:
      int64 ``[n]``: the lowest row of the cluster; of a row without near-duplicates, itself.
    """
    (reader,) = ngrams.readers([examples], options.ngram, options.seed)
    keys_of = _whole_keys if together else _side_keys
    keys = [np.zeros((0, options.bands), np.uint64)]
    keys += [keys_of(grams, count, options) for grams, count in _read(reader)]

    def is_near(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        both, either = ngrams.shared(reader, reader, left, right)
        if together:
            both, either = both.sum(axis=1, keepdims=True), either.sum(axis=1, keepdims=True)
        return ngrams.jaccard(both, either).min(axis=1) >= options.jaccard

    return graph.components(len(examples), *graph.buckets(np.concatenate(keys)), is_near)


def pairs_between(
    left: Examples, right: Examples, options: Options = _USUAL
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of two sets whose n-grams, of the user and the model together, are nearly the same.

    Memory grows with ``right`` and the pairs found, not with ``left``.

    Returns:
      rows of ``left`` and of ``right``, int64 ``[pairs]``, ascending; their Jaccard similarity,
      float64, at least ``options.jaccard``.
    """
    ours, theirs = ngrams.readers([left, right], options.ngram, options.seed)
    width = len(right)
    empty = np.zeros((0, options.bands), np.uint64)
    known = np.concatenate([empty, *(_whole_keys(g, n, options) for g, n in _read(theirs))])
    order = np.argsort(known, axis=0, kind="stable")
    known = np.take_along_axis(known, order, axis=0)
    found = [(np.zeros(0, np.int64), np.zeros(0))]
    start = 0
    for grams, count in _read(ours):
        keys = _whole_keys(grams, count, options)
        codes = []
        for band in range(options.bands):
            low = np.searchsorted(known[:, band], keys[:, band])
            high = np.searchsorted(known[:, band], keys[:, band], side="right")
            row = np.repeat(np.arange(start, start + count), high - low)
            codes.append(row * width + order[graph.ranges(low, high), band])
        code = np.unique(np.concatenate(codes))
        start += count
        both, either = ngrams.shared(ours, theirs, code // width, code % width)
        similarity = ngrams.jaccard(both.sum(axis=1), either.sum(axis=1))
        is_near = similarity >= options.jaccard
        found.append((code[is_near], similarity[is_near]))
    code, similarity = (np.concatenate(part) for part in zip(*found, strict=True))
    return code // max(width, 1), code % max(width, 1), similarity


def _read(reader: ngrams.Reader) -> Iterator[tuple[ngrams.Grams, int]]:
    """n-grams of all rows and the number of rows, some rows at a time, in order."""
    with Progress(len(reader.examples), "near-duplicates", "row", delay=2) as progress:
        for batch in reader.batches():
            for start in range(0, len(batch), _ROWS_AT_ONCE):
                rows = batch[start : start + _ROWS_AT_ONCE]
                yield reader.read(rows), len(rows)
                progress.update(len(rows))


def _side_keys(grams: ngrams.Grams, count: int, options: Options) -> np.ndarray:
    """Half of every band is of the user and half of the model: equal only where both are alike."""
    of_user = options.rows // 2
    user = _minhashes(grams.where(grams.sides == 0), count, of_user, options)
    model = _minhashes(grams.where(grams.sides == 1), count, options.rows - of_user, options)
    return _band_keys([user, model])


def _whole_keys(grams: ngrams.Grams, count: int, options: Options) -> np.ndarray:
    return _band_keys([_minhashes(grams, count, options.rows, options)])


def _minhashes(grams: ngrams.Grams, count: int, rows: int, options: Options) -> np.ndarray:
    """uint64 ``[count, bands, rows]``."""
    from rensa import RMinHash  # ty: ignore[missing-module-member]

    starts = np.searchsorted(grams.rows, np.arange(count + 1)).astype(np.uint64)
    found = RMinHash.digest_matrix_from_flat_token_hashes(
        np.ascontiguousarray(grams.hashes), starts, options.bands * rows, options.seed
    )
    return np.array(found.to_rows(), np.uint64).reshape(count, options.bands, rows)


def _band_keys(minhashes: list[np.ndarray]) -> np.ndarray:
    """uint64 ``[n, bands]``: equal where all MinHashes of a band are, and hardly ever else."""
    parts = np.concatenate(minhashes, axis=2)
    keys = np.zeros(parts.shape[:2], np.uint64)
    for index in range(parts.shape[2]):
        keys = ngrams.mixed(keys ^ parts[:, :, index])
    return keys
