"""Which of several equal windows are copies too many."""

import dataclasses
from typing import Any

import numpy as np

from sft.data.dedup import templates, windows
from sft.data.dedup.stretches import Stretches, answers, flagged, runs
from sft.data.examples import Examples
from sft.errors import UserError

ENGINES = (*windows.ENGINES, "beam")
SCOPES = ("group", "record")
KEEPS = ("first", "none")
ALWAYS, NEVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max  # keys: from here on, copies


@dataclasses.dataclass(frozen=True)
class Options:
    """How repeated text is found: ``config.data.dedup``.

    Attributes:
      length: tokens of a window.
      engine: ``suffix_array``, ``hash`` or, for ``substring.policy``, ``beam``; the result is the
        same.
      scope: ``group`` or ``record``: where the earlier copy must be.
      keep: the ``first`` copy stays, or ``none``.
      max_copies: groups (in scope ``record``: places that do not overlap) that may hold a window
        before the next one is a copy; for whole answers, rows.
      whole_turns: in scope ``group``, answers of at least ``length`` tokens that equal one of an
        earlier row are copies also within their group.
      template_share: a window in this share of a source's rows is a template and stays; 0 = there
        are no templates.
      template_rows: the least number of rows that hold a template.
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
    template_rows: int = 100
    memory: int = windows.MEMORY
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
    """What holds for the window that starts at each token.

    Attributes:
      copies: bool ``[T]``: it is a copy too many.
      involved: bool ``[T]``: it, or an equal one, is.
      owners: int32 ``[T]``: of a copy, the row whose equal window stays; otherwise -1.
      exempt: bool ``[T]``: it belongs to a template.
    """

    copies: np.ndarray
    involved: np.ndarray
    owners: np.ndarray
    exempt: np.ndarray


def mark(
    examples: Examples,
    groups: np.ndarray,
    origins: np.ndarray,
    options: Options,
    kept: np.ndarray,
    before: Marks | None = None,
) -> tuple[Marks, list[dict[str, Any]]]:
    """Looks for equal windows in the answers of the ``kept`` rows, bool ``[n]``.

    Args:
      groups: int64 ``[n]``, the rank of each row's group.
      origins: int64 ``[n]``, the source of each row.
      before: what was found among more rows. Only windows involved then are looked at, and the
        templates are those.

    Returns:
      The marks; and the texts of new templates.
    """
    size = len(examples.tokens)
    look_in, share = answers(examples, kept), options.template_share
    exempt = np.zeros(size, bool)
    if before is not None:
        first = np.flatnonzero(before.involved)
        look_in &= flagged(first, first + options.length, size)
        exempt, share = before.exempt, 0.0
    places = runs(look_in, examples.starts)
    places = places.select(places.lengths >= options.length)
    corpus, index = _corpus(examples, places)
    shifts = places.begins - corpus.starts[:-1]
    least = templates.least_rows(origins[kept], share, options.template_rows)
    owners = np.full(size, -1, np.int32)
    marks = Marks(np.zeros(size, bool), np.zeros(size, bool), owners, exempt)
    found: list[templates.Windows] = []
    for batch in windows.classes(corpus, options.length, options.engine, options.memory):
        place = index[batch.positions]
        positions, rows = batch.positions + shifts[place], places.rows[place]
        of_template = templates.of_batch(positions, rows, batch.starts, origins, least)
        if of_template is not None:
            found.append(of_template)
            exempt[of_template.positions] = True
        keys = groups[rows] if options.scope == "group" else positions
        limit, first = limits(keys, batch.starts, options.gap, options)
        is_copy = keys >= np.repeat(limit, np.diff(batch.starts))
        is_copy &= ~exempt[positions]
        sizes = np.diff(batch.starts)
        is_involved = np.repeat(np.logical_or.reduceat(is_copy, batch.starts[:-1]), sizes)
        marks.copies[positions[is_copy]] = True
        marks.involved[positions[is_involved]] = True
        if options.keep == "first":
            owners[positions[is_copy]] = np.repeat(rows[first], sizes)[is_copy]
    return marks, templates.texts(found, examples.tokens, options.length)


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


def _corpus(examples: Examples, places: Stretches) -> tuple[windows.Corpus, np.ndarray]:
    """The tokens of these places one after another; and of each token its place, int32."""
    starts = np.concatenate([[0], np.cumsum(places.lengths)]).astype(np.int64)
    inside = flagged(places.begins, places.stops, len(examples.tokens))
    index = np.repeat(np.arange(len(places.begins), dtype=np.int32), places.lengths)
    return windows.Corpus(examples.tokens[inside], starts), index


def check(field: str, value: Any, is_right: bool, expected: str) -> None:
    """Raises a ``UserError`` that names the key unless ``is_right``."""
    if not is_right:
        raise UserError(f"config.data.dedup.{field} = {value!r}: expected {expected}.")
