"""Evaluation rows whose text is, for the most part, in one training row, in pieces."""

from collections.abc import Iterator

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import PROMPT
from sft.data.dedup import overlap
from sft.data.dedup.overlap import TEXT, Index

_ROWS = 4096  # training rows in work at a time
_WINDOWS = 2**22  # windows of evaluation rows in work at a time
SHORT = 3  # times the n-gram; of fewer tokens a pair of n-grams is most
_COMMON_ROWS = 10  # fewer rows than this never make an n-gram common, but in tiny sets


def pairs(
    train: Examples, held: Examples, length: int, share: float, common_share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows such that the n-grams of one cover the other, all it says and what it asks.

    An n-gram lies in one text of one turn. Those found in a ``common_share`` of the training rows
    are left out, and so are the tokens of the evaluation row that lie in them. A row that asks in
    fewer than ``SHORT`` times ``length`` tokens besides is not judged: two dates of a month share
    half of their tokens and give nothing away.

    Args:
      length: tokens of an n-gram.
      share: of an evaluation row's tokens, to be covered by n-grams of one training row.

    Returns:
      int64 training rows and int64 evaluation rows, ascending by both.
    """
    known = overlap.index(held, TEXT, length)
    rows, ids = overlap.shared(known, train)
    rare = ~_common(rows, ids, len(known), len(train), common_share)
    places = known.positions[~rare[known.ids]]
    is_own = np.isin(held.kinds, TEXT) & ~overlap.covered(len(held.tokens), places, length)
    # Own tokens before each position, of all texts and of the user's.
    own, asked = (
        np.concatenate([[0], np.cumsum(mask)]) for mask in (is_own, is_own & (held.kinds == PROMPT))
    )
    sizes, asked_sizes = (np.diff(before[held.starts]) for before in (own, asked))
    rows, ids = rows[rare[ids]], ids[rare[ids]]
    found = [np.zeros((2, 0), np.int64)]
    for left, right in _candidates(rows, ids, known, len(train), sizes, share, length):
        keys = rows * len(known) + ids
        enough = asked_sizes[right] >= SHORT * length
        for before, size in ((own, sizes), (asked, asked_sizes)):
            enough &= _covered(left, right, keys, known, before, length) >= share * size[right]
        found.append(np.stack([left[enough], right[enough]]))
    left, right = np.concatenate(found, axis=1)
    return left, right


def _common(
    rows: np.ndarray, ids: np.ndarray, size: int, train_rows: int, share: float
) -> np.ndarray:
    """bool ``[size]``: n-grams in so many training rows that they tell nothing."""
    least = min(_COMMON_ROWS, max(2, train_rows // 2))
    return overlap.common(rows, ids, size, np.zeros(train_rows, np.int64), share, least)


def _candidates(
    rows: np.ndarray,
    ids: np.ndarray,
    known: Index,
    train_rows: int,
    sizes: np.ndarray,
    share: float,
    length: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs with so many n-grams in common that they could cover enough, in batches."""
    from scipy.sparse import csr_array

    held_rows = overlap.rows_of(known.examples, known.positions)
    shape = len(known), len(sizes)
    places = csr_array((np.ones(len(held_rows), np.int32), (known.ids, held_rows)), shape=shape)
    windows = np.bincount(held_rows, minlength=len(sizes))
    for first in range(0, train_rows, _ROWS):
        low, high = np.searchsorted(rows, [first, first + _ROWS])
        if low == high:
            continue
        shape = min(_ROWS, train_rows - first), len(known)
        entries = np.ones(high - low, np.int32), (rows[low:high] - first, ids[low:high])
        counts = (csr_array(entries, shape=shape) @ places).tocoo()
        left, right = counts.coords
        likely = (counts.data * length >= share * sizes[right]) & (sizes[right] >= length)
        left, right = left[likely].astype(np.int64) + first, right[likely].astype(np.int64)
        order = np.lexsort((right, left))
        left, right = left[order], right[order]
        batch = np.cumsum(windows[right]) // _WINDOWS
        cuts = np.flatnonzero(np.diff(batch)) + 1
        yield from zip(np.split(left, cuts), np.split(right, cuts), strict=True)


def _covered(
    left: np.ndarray,
    right: np.ndarray,
    keys: np.ndarray,
    known: Index,
    own: np.ndarray,
    length: int,
) -> np.ndarray:
    """int64 ``[p]``: own tokens of each row of ``right`` in n-grams of its row of ``left``.

    Args:
      keys: ascending, ``row * classes + class`` of every n-gram of a training row.
      own: own tokens of the evaluation set before each position.
    """
    order = np.argsort(known.positions)
    positions, ids = known.positions[order], known.ids[order]
    bounds = np.searchsorted(positions, known.examples.starts)
    counts = bounds[right + 1] - bounds[right]
    pair = np.repeat(np.arange(len(left)), counts)
    offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    window = np.repeat(bounds[right], counts) + offset
    wanted = left[pair] * len(known) + ids[window]
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    hit = keys[place] == wanted
    pair, position = pair[hit], positions[window[hit]]
    stop = position + length
    follows = pair[1:] == pair[:-1]
    stop[:-1] = np.where(follows, np.minimum(stop[:-1], position[1:]), stop[:-1])
    return np.bincount(pair, own[stop] - own[position], len(left)).astype(np.int64)
