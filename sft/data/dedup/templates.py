"""Texts that so many records share that they are formatting, not copies of each other.

A tool-call skeleton or a rubric is in a large share of a source's records. Training on it is the
purpose, so such windows are never masked; they are listed, for a person to decide.
"""

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """Windows of templates.

    Attributes:
      positions: int64 ``[m]``, where they start.
      rows: int64 ``[m]``.
      ids: int64 ``[m]``, which windows are equal: an index into the other two.
      counts: int64 ``[k]``, rows of a source that hold the window; 0 for what is no template.
      origins: int64 ``[k]``, that source: of several, the one with the most such rows.
    """

    positions: np.ndarray
    rows: np.ndarray
    ids: np.ndarray
    counts: np.ndarray
    origins: np.ndarray


def least_rows(origins: np.ndarray, share: float, rows: int) -> np.ndarray:
    """float64 per source: rows that must hold a window before it counts as a template.

    Args:
      origins: int64 ``[n]``, the source of each row.
      share: of the rows of a source; 0 = there are no templates, and the result is empty.
      rows: never fewer rows than this.
    """
    sizes = np.bincount(origins) if share else np.zeros(0)
    return np.maximum(share * sizes, rows)


def of_batch(
    positions: np.ndarray,
    rows: np.ndarray,
    starts: np.ndarray,
    origins: np.ndarray,
    least: np.ndarray,
) -> Windows | None:
    """The templates in a batch of classes of equal windows, ``None`` without any.

    Args:
      positions: int64 ``[m]``, where each window starts.
      rows: int64 ``[m]``, its row; ascending within a class.
      starts: int64 ``[k + 1]``, where each class begins in ``rows``.
      origins: int64 ``[n]``, the source of each row.
      least: from ``least_rows``.
    """
    if not len(least) or not len(rows):
        return None
    is_new = np.ones(len(rows), bool)
    is_new[1:] = rows[1:] != rows[:-1]
    is_new[starts[:-1]] = True
    # A class in fewer rows than any source asks for is none; nearly all are of this kind.
    holders = np.add.reduceat(is_new, starts[:-1], dtype=np.int64)
    if holders.max() < least.min():
        return None
    members = np.flatnonzero(is_new & np.repeat(holders >= least.min(), np.diff(starts)))
    classes = np.searchsorted(starts, members, side="right") - 1
    one = np.ones(len(members), np.int64)
    counts, best = most(classes, origins[rows[members]], one, least, len(holders))
    is_template = np.repeat(counts > 0, np.diff(starts))
    ids = np.repeat(np.arange(len(holders)), np.diff(starts))[is_template]
    return Windows(positions[is_template], rows[is_template], ids, counts, best)


def most(
    classes: np.ndarray, origins: np.ndarray, held: np.ndarray, least: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that hold the windows of a class, of the source with the most among those with enough.

    Args:
      classes: int64 ``[m]``, below ``size``.
      origins, held: int64 ``[m]``, a source and rows of it that hold the class; in several parts
        where they are.
      least: from ``least_rows``.

    Returns:
      int64 ``[size]`` twice: the rows, 0 where no source has enough; and the source, of several
      the first.
    """
    pairs, parts = np.unique(classes * len(least) + origins, return_inverse=True)
    held = np.bincount(parts, held, len(pairs)).astype(np.int64)
    classes, sources = np.divmod(pairs, len(least))
    enough = held >= least[sources]
    classes, sources, held = classes[enough], sources[enough], held[enough]
    order = np.lexsort((-sources, held))  # the last is what stays: most rows, then first source
    counts, best = np.zeros((2, size), np.int64)
    counts[classes[order]] = held[order]
    best[classes[order]] = sources[order]
    return counts, best


def texts(found: Sequence[Windows], tokens: np.ndarray, length: int) -> list[dict[str, Any]]:
    """The maximal texts all of whose windows are templates, the most frequent first.

    A text is left out when longer ones hold all of its windows.

    Args:
      found: windows whose positions are in ``tokens``; those of two items are not equal.
      tokens: int32 ``[T]``.
      length: tokens of a window.

    Returns:
      For each text its ``tokens``, the ``rows`` of one source that hold its most frequent window,
      and that source as ``origin``.
    """
    if not found:
        return []
    sizes = np.cumsum([0, *(len(part.counts) for part in found)])
    positions = np.concatenate([part.positions for part in found])
    rows = np.concatenate([part.rows for part in found])
    ids = np.concatenate([part.ids + size for part, size in zip(found, sizes, strict=False)])
    counts = np.concatenate([part.counts for part in found])
    origins = np.concatenate([part.origins for part in found])
    order = np.argsort(positions)
    positions, rows, ids = positions[order], rows[order], ids[order]
    is_listed = np.zeros(len(counts), bool)
    listing = []
    distinct = distinct_runs(positions, rows, ids)
    for start, stop in sorted(distinct, key=lambda run: (run[0] - run[1], run[0])):
        run = ids[start:stop]
        if is_listed[run].all():
            continue
        is_listed[run] = True
        best = run[np.argmax(counts[run])]
        text = tokens[positions[start] : positions[stop - 1] + length]
        told = {"rows": int(counts[best]), "origin": int(origins[best])}
        listing.append({"tokens": text.tolist(), **told})
    return sorted(listing, key=lambda text: -text["rows"])


def distinct_runs(
    positions: np.ndarray, rows: np.ndarray, ids: np.ndarray
) -> list[tuple[int, int]]:
    """Where windows follow each other token by token in one row: from which index to which.

    Of runs of equal windows only the first is given. The windows are in ascending order, those
    with the same of ``ids`` are equal; all are int64 ``[m]``.
    """
    if not len(positions):
        return []
    is_apart = (np.diff(positions) != 1) | (np.diff(rows) != 0)
    edges = [0, *(np.flatnonzero(is_apart) + 1).tolist(), len(positions)]
    distinct: dict[bytes, tuple[int, int]] = {}
    for start, stop in pairwise(edges):
        distinct.setdefault(ids[start:stop].tobytes(), (start, stop))
    return [*distinct.values()]
