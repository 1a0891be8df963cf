"""Which of several equal windows are copies too many."""

import dataclasses
from typing import Any

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.dedup import engines, windows
from sft.data.dedup.stretches import Stream, Stretches, flagged, runs
from sft.errors import UserError

ENGINES = (*engines.ENGINES, "beam")
SCOPES = ("group", "record")
KEEPS = ("first", "none")
ALWAYS, NEVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max  # keys: from here on, copies


@dataclasses.dataclass(frozen=True)
class Options:
    """How repeated text is found: ``config.data.dedup``.

    Attributes:
      length: tokens of a window, besides those of forms.
      engine: ``suffix_array``, ``hash`` or, for ``substring.policy``, ``beam``; the result is the
        same.
      scope: ``group`` or ``record``: where the earlier copy must be.
      keep: the ``first`` copy stays, or ``none``.
      max_copies: groups (in scope ``record``: places that do not overlap) that may hold a window
        before the next one is a copy; for whole answers, rows.
      whole_turns: in scope ``group``, answers of at least ``length`` tokens besides forms that
        equal one of an earlier row are copies also within their group.
      template_share: what this share of a source's rows has is a form, see ``templates``; 0 =
        there are no forms.
      template_rows: the least number of rows that have a form.
      memory: bytes that the hash engine may use.
      beam: options of the Beam pipeline, as on a command line; ``""`` = on this machine.

    Raises:
      UserError: a value that cannot be used.
    """

    length: int = 50
    engine: str = "suffix_array"
    scope: str = "group"
    keep: str = "first"
    max_copies: int = 1
    whole_turns: bool = True
    template_share: float = 0.05
    template_rows: int = 10
    memory: int = engines.MEMORY
    beam: str = ""

    def __post_init__(self) -> None:
        known = {"engine": ENGINES, "scope": SCOPES, "keep": KEEPS}
        for field, names in known.items():
            value = getattr(self, field)
            check(field, value, value in names, f"one of {', '.join(names)}")
        check("substring", self.length, self.length >= 1, "at least 1 token")
        for field in ("max_copies", "template_rows", "memory"):
            check(field, getattr(self, field), getattr(self, field) >= 1, "at least 1")
        check("template_share", self.template_share, 0 <= self.template_share <= 1, "0 to 1")

    @property
    def compares_answers(self) -> bool:
        """Whether whole answers are copies of each other too."""
        return self.whole_turns and self.scope == "group"

    @property
    def gap(self) -> int:
        """Windows are at different places when their keys are so far apart: ranks of groups, or in
        scope ``record`` positions."""
        return 1 if self.scope == "group" else self.length


@dataclasses.dataclass(frozen=True, eq=False)
class Marks:
    """What holds for the window that starts at each token of a stream.

    Attributes:
      copies: bool ``[C]``: it is a copy too many.
      involved: bool ``[C]``: it, or an equal one, is.
      owners: int32 ``[C]``: of a copy, the row whose equal window stays; otherwise -1.
    """

    copies: np.ndarray
    involved: np.ndarray
    owners: np.ndarray


def mark(
    examples: Examples,
    groups: np.ndarray,
    stream: Stream,
    options: Options,
    kept: np.ndarray,
    before: Marks | None = None,
) -> Marks:
    """Looks for equal windows in the tokens of the stream that are in ``kept`` rows, bool ``[n]``.

    Args:
      groups: int64 ``[n]``, the rank of each row's group.
      before: what was found in more rows of the same stream. Only windows involved then are looked
        at.
    """
    size = len(stream)
    look_in = np.repeat(kept[stream.turns.rows], stream.sizes)
    if before is not None:
        first = np.flatnonzero(before.involved)
        look_in &= flagged(first, first + options.length, size)
    parts = runs(look_in, stream.starts)
    parts = parts.select(parts.lengths >= options.length)
    corpus, index = corpus_of(examples.tokens, parts, stream.places)
    shifts, rows_of = parts.begins - corpus.starts[:-1], stream.turns.rows[parts.rows]
    marks = Marks(np.zeros(size, bool), np.zeros(size, bool), np.full(size, -1, np.int32))
    for batch in engines.classes(corpus, options.length, options.engine, options.memory):
        part = index[batch.positions]
        positions, rows = batch.positions + shifts[part], rows_of[part]
        keys = groups[rows] if options.scope == "group" else positions
        limit, first = limits(keys, batch.starts, options.gap, options)
        sizes = np.diff(batch.starts)
        is_copy = keys >= np.repeat(limit, sizes)
        is_involved = np.repeat(np.logical_or.reduceat(is_copy, batch.starts[:-1]), sizes)
        marks.copies[positions[is_copy]] = True
        marks.involved[positions[is_involved]] = True
        if options.keep == "first":
            marks.owners[positions[is_copy]] = np.repeat(rows[first], sizes)[is_copy]
    return marks


def limits(
    keys: np.ndarray, starts: np.ndarray, gap: int, options: Options
) -> tuple[np.ndarray, np.ndarray]:
    """Which members of each class of equal things are copies too many: those from a key on.

    Keys of different places are at least ``gap`` apart. When the first copy is kept, the copies
    are the members above ``max_copies`` different places; otherwise all members of a class that
    has such a member.

    Args:
      keys: int64 ``[m]``, lower keys are kept first.
      starts: int64 ``[k + 1]``, where each class begins in ``keys``; no class is empty.

    Returns:
      int64 ``[k]``: the key from which on members are copies, above all of them where none is;
      and int64 ``[k]``: of each class the first member with the lowest key.
    """
    heads, sizes = starts[:-1], np.diff(starts)
    if not len(heads):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    lowest = np.minimum.reduceat(keys, heads)
    limit = lowest + gap
    for _ in range(options.max_copies - 1):
        above = np.where(keys >= np.repeat(limit, sizes), keys, NEVER)
        limit = np.minimum(np.minimum.reduceat(above, heads), NEVER - gap) + gap
        if (limit == NEVER).all():
            break
    if options.keep == "none":
        limit = np.where(np.maximum.reduceat(keys, heads) >= limit, ALWAYS, NEVER)
    at_lowest = np.flatnonzero(keys == np.repeat(lowest, sizes))
    return limit, at_lowest[np.searchsorted(at_lowest, heads)]


def corpus_of(
    tokens: np.ndarray, parts: Stretches, places: np.ndarray | None = None
) -> tuple[windows.Corpus, np.ndarray]:
    """The tokens of these parts one after another; and of each token its part, int32.

    Args:
      tokens: int32 ``[T]``.
      parts: of the tokens or, where they are given, of ``places`` in these.
    """
    starts = np.concatenate([[0], np.cumsum(parts.lengths)]).astype(np.int64)
    inside = flagged(parts.begins, parts.stops, len(tokens if places is None else places))
    index = np.repeat(np.arange(len(parts.begins), dtype=np.int32), parts.lengths)
    return windows.Corpus(tokens[inside if places is None else places[inside]], starts), index


def check(field: str, value: Any, is_right: bool, expected: str) -> None:
    """Raises a ``UserError`` that names the key unless ``is_right``."""
    if not is_right:
        raise UserError(f"config.data.dedup.{field} = {value!r}: expected {expected}.")
