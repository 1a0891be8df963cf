"""Repeated text as spans of rows, from what was found window by window and answer by answer."""

import dataclasses
from typing import Any

import numpy as np

from sft.data.chat import END
from sft.data.dedup.repeats import Marks, Options
from sft.data.dedup.stretches import Stretches, answers, flagged, runs
from sft.data.examples import Examples

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
      templates: see ``templates.texts``.
    """

    rows: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    owners: np.ndarray
    templates: list[dict[str, Any]]

    def select(self, chosen: np.ndarray) -> "Found":
        """The spans at ``chosen``, bool ``[k]``, with all templates."""
        spans = (self.rows, self.starts, self.stops, self.owners)
        return Found(*(array[chosen] for array in spans), templates=self.templates)


def join(
    examples: Examples,
    kept: np.ndarray,
    marks: Marks,
    whole: tuple[Stretches, np.ndarray] | None,
    options: Options,
    texts: list[dict[str, Any]],
) -> Found:
    """What the windows that are copies, and the whole answers that are, cover together.

    Args:
      kept: bool ``[n]``, the rows that were searched.
      whole: the answers that are copies, in ascending order, with the owner of each, int64; or
        ``None`` where answers are not compared.
      texts: the templates of the result.
    """
    size = len(examples.tokens)
    every_turn = runs(answers(examples, kept), examples.starts)
    first = np.flatnonzero(marks.copies)
    covered = flagged(first, first + options.length, size)
    owners = marks.owners
    if whole is not None:
        turns, earlier = whole
        covered |= flagged(turns.begins, turns.stops, size)
        if options.keep == "first":
            by_window = marks.copies[turns.begins]
            owners = owners.copy()
            owners[turns.begins] = np.where(by_window, owners[turns.begins], earlier)
    spans = runs(covered, examples.starts)
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
        owners=owners[spans.begins].astype(np.int64),
        templates=texts,
    )


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
