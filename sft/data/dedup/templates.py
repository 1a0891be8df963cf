"""Text that many rows of a source share: tool-call skeletons, rubrics, polite endings.

It stands there on purpose, so it is trained and never masked, and does not make rows alike: what is
compared is what rows say besides it. It is listed, for a person to decide.

A token belongs to a form when it lies in a window of ``LENGTH`` tokens that enough rows of a source
have. Such a window is much shorter than a repeated stretch, because a form has slots: between what
two of its slots hold there may be only a few constant tokens.
"""

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import ANSWER, CONTEXT, Example
from sft.data.dedup import engines, overlap
from sft.data.dedup.repeats import Options, corpus_of
from sft.data.dedup.stretches import answers, flagged, runs

LENGTH = 8  # tokens; what many rows have in common and is shorter is an idiom ("here's an example")


@dataclasses.dataclass(frozen=True, eq=False)
class Forms:
    """Attributes: ``tokens``: bool ``[T]``, whether each belongs to a form. ``texts``: see
    ``texts``."""

    tokens: np.ndarray
    texts: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """Windows of forms.

    Attributes:
      positions: int64 ``[m]``, where they start.
      rows: int64 ``[m]``.
      ids: int64 ``[m]``, which windows are equal: an index into the other two.
      counts: int64 ``[k]``, rows of a source that hold the window; 0 for what is not a form.
      origins: int64 ``[k]``, that source: of several, the one with the most such rows.
    """

    positions: np.ndarray
    rows: np.ndarray
    ids: np.ndarray
    counts: np.ndarray
    origins: np.ndarray


def length_of(options: Options) -> int:
    """Tokens of a window of a form: never more than those of a repeated stretch."""
    return min(LENGTH, options.length)


def find(examples: Examples, origins: np.ndarray, options: Options, kept: np.ndarray) -> Forms:
    """The forms in the answers of the ``kept`` rows, bool ``[n]``.

    The engine must be one of this machine.

    Args:
      origins: int64 ``[n]``, the source of each row, counted from 0.
    """
    size, length = len(examples.tokens), length_of(options)
    least = least_rows(origins[kept], options.template_share, options.template_rows)
    if not len(least) or kept.sum() < least.min():
        return Forms(np.zeros(size, bool), [])
    places = runs(answers(examples, kept), examples.starts)
    places = places.select(places.lengths >= length)
    corpus, index = corpus_of(examples.tokens, places)
    shifts = places.begins - corpus.starts[:-1]
    found: list[Windows] = []
    for batch in engines.classes(corpus, length, options.engine, options.memory):
        place = index[batch.positions]
        positions, rows = batch.positions + shifts[place], places.rows[place]
        of_form = of_batch(positions, rows, batch.starts, origins, least)
        if of_form is not None:
            found.append(of_form)
    first = np.sort(np.concatenate([np.zeros(0, np.int64), *(one.positions for one in found)]))
    tokens = flagged(first, first + length, size)
    return Forms(tokens, texts(found, examples.tokens, length))


def inside(examples: Examples, forms: Forms, length: int = LENGTH) -> np.ndarray:
    """bool ``[T]``: which tokens of answers, of these or of other rows, lie in windows of forms.

    Args:
      length: tokens of such a window.
    """
    size = len(examples.tokens)
    if not forms.texts:
        return np.zeros(size, bool)
    each = [np.array(text["tokens"], np.int32) for text in forms.texts]
    listed = Examples.from_list([Example(t, np.full(len(t), ANSWER, np.uint8)) for t in each])
    known = overlap.index(listed, (CONTEXT, ANSWER), length)
    return overlap.covered(size, overlap.places(known, examples), length)


def least_rows(origins: np.ndarray, share: float, rows: int) -> np.ndarray:
    """float64 per source: rows that must hold a window before it belongs to a form.

    Args:
      origins: int64 ``[n]``, the source of each row.
      share: of the rows of a source; 0 = there are no forms, and the result is empty.
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
    """The forms in a batch of classes of equal windows, ``None`` without any.

    Args:
      positions: int64 ``[m]``, where each window starts.
      rows: int64 ``[m]``, its row; ascending within a class.
      starts: int64 ``[k + 1]``, where each class begins in ``rows``.
      origins: int64 ``[n]``, the source of each row.
      least: from ``least_rows``.
    """
    if not len(rows):
        return None
    is_new = np.ones(len(rows), bool)
    is_new[1:] = rows[1:] != rows[:-1]
    is_new[starts[:-1]] = True
    # Nearly all classes are in fewer rows than any source asks for.
    holders = np.add.reduceat(is_new, starts[:-1], dtype=np.int64)
    if holders.max() < least.min():
        return None
    members = np.flatnonzero(is_new & np.repeat(holders >= least.min(), np.diff(starts)))
    classes = np.searchsorted(starts, members, side="right") - 1
    one = np.ones(len(members), np.int64)
    counts, best = most(classes, origins[rows[members]], one, least, len(holders))
    is_form = np.repeat(counts > 0, np.diff(starts))
    ids = np.repeat(np.arange(len(holders)), np.diff(starts))[is_form]
    return Windows(positions[is_form], rows[is_form], ids, counts, best)


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
    """The maximal texts all of whose windows are of forms, those that take up most first.

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
        held = {"rows": int(counts[best]), "origin": int(origins[best])}
        listing.append({"tokens": text.tolist(), **held})
    return sorted(listing, key=lambda text: -text["rows"] * len(text["tokens"]))


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
