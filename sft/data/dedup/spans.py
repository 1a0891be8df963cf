"""Repeated text as spans of rows, from what was found window by window and answer by answer."""

import dataclasses
from typing import Any

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import END
from sft.data.dedup.repeats import Marks, Options
from sft.data.dedup.stretches import Stream, Stretches, flagged, runs

ACTIONS = ("mask", "cut", "drop", "report")


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """Repeated text, as spans of trained tokens in ascending order; they do not overlap.

    Attributes:
      rows: int64 ``[k]``.
      starts, stops: int64 ``[k]``, offsets in the row. A span of all that is trained of an answer
        holds its end of turn as well.
      owners: int64 ``[k]``: a row that holds the copy that stays of what the span starts with; -1
        when none stays.
      templates: the forms, see ``templates.texts``.
    """

    rows: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    owners: np.ndarray
    templates: list[dict[str, Any]]

    def select(self, chosen: np.ndarray) -> "Found":
        """The spans at ``chosen``, bool ``[k]``, with all forms."""
        spans = (self.rows, self.starts, self.stops, self.owners)
        return Found(*(array[chosen] for array in spans), templates=self.templates)


def join(
    examples: Examples,
    stream: Stream,
    marks: Marks,
    whole: tuple[Stretches, np.ndarray] | None,
    options: Options,
    texts: list[dict[str, Any]],
) -> Found:
    """What the windows that are copies, and the whole answers that are, cover together.

    A form inside a window is not covered; one in a whole answer is.

    Args:
      marks: of the windows of the stream.
      whole: the answers that are copies, in ascending order, with the owner of each, int64; or
        ``None`` where answers are not compared.
      texts: the forms of the result.
    """
    size = len(examples.tokens)
    first = np.flatnonzero(marks.copies)
    covered = np.zeros(size, bool)
    covered[stream.places[flagged(first, first + options.length, len(stream))]] = True
    if whole is not None:
        covered |= flagged(whole[0].begins, whole[0].stops, size)
    spans = runs(covered, examples.starts)
    every_turn = stream.turns
    turn = np.searchsorted(every_turn.begins, spans.begins, side="right") - 1
    is_turn = every_turn.begins[turn] == spans.begins
    is_turn &= every_turn.stops[turn] == spans.stops
    has_end = spans.stops < examples.starts[spans.rows + 1]
    has_end &= examples.kinds[np.minimum(spans.stops, size - 1)] == END
    start = examples.starts[spans.rows]
    return Found(
        rows=spans.rows,
        starts=spans.begins - start,
        stops=spans.stops + (is_turn & has_end) - start,
        owners=_owners(spans.begins, stream, marks, whole if options.keep == "first" else None),
        templates=texts,
    )


def _owners(
    begins: np.ndarray,
    stream: Stream,
    marks: Marks,
    whole: tuple[Stretches, np.ndarray] | None,
) -> np.ndarray:
    """int64 ``[k]``: who owns what starts at each of ``begins``: the last copy of a window from
    there or before, or else the whole answer that begins there."""
    copies = np.append(np.flatnonzero(marks.copies), len(stream))
    where = np.searchsorted(stream.places, begins, side="right") - 1
    last = copies[np.searchsorted(copies, where, side="right") - 1]
    owners = np.append(marks.owners, -1)[last].astype(np.int64)
    if whole is None or not len(whole[1]):
        return owners
    turns, earlier = whole
    turn = np.minimum(np.searchsorted(turns.begins, begins), len(earlier) - 1)
    is_turn = turns.begins[turn] == begins
    by_window = np.append(marks.copies, False)[where]
    by_window &= np.append(stream.places, -1)[where] == begins
    return np.where(is_turn & ~by_window, earlier[turn], owners)


def to_drop(
    examples: Examples, found: Found, action: str, drop_share: float, min_trained: int
) -> np.ndarray:
    """bool ``[n]``: the rows that go for the spans found in them, see ``substring.policy``."""
    repeated = np.zeros(len(examples), np.int64)
    np.add.at(repeated, found.rows, found.stops - found.starts)
    if action == "report":
        return np.zeros(len(examples), bool)
    if action == "drop":
        return repeated > 0
    is_mostly = repeated >= drop_share * examples.trained
    is_little_left = examples.trained - repeated < max(min_trained, 1)
    return (repeated > 0) & (is_mostly | is_little_left)
