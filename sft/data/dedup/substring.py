"""Text that the answers of several conversations repeat: windows of tokens, and whole answers.

The unit is a window of ``length`` tokens that are trained and lie in one answer. What counts as
its earlier copy is the scope. ``group``: a copy in a group of lower rank, so that code which a
conversation prints again with an edit is left alone, as is all else that a group repeats, except
for whole answers of another row. ``record``: any earlier copy that does not overlap, in the same
answer too.

Of what repeats, the first copy stays (Kandpal et al. 2022: what is memorised grows with the number
of copies), and the others are to become context, which is read but not trained: cutting them out
would leave prompts without answers. ``keep="none"``, ``scope="record"`` and cutting together are
the ExactSubstr of Lee et al. 2021, meant for raw text.

The result depends on the rows and the options alone: not on the engine, its passes or its memory.
Beside the memory of the engine, a search takes about 16 bytes a token.
"""

import dataclasses
from typing import Any

import numpy as np

from sft.data.chat import END
from sft.data.dedup import repeats, turns
from sft.data.dedup.repeats import Marks, Options
from sft.data.dedup.stretches import answers, flagged, runs
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


def find(
    examples: Examples,
    groups: np.ndarray,
    origins: np.ndarray,
    options: Options,
    kept: np.ndarray | None = None,
) -> Found:
    """The text that is repeated in the ``kept`` rows (bool ``[n]``; ``None`` = all).

    The other rows count for nothing, nor towards templates.

    Args:
      groups: int64 ``[n]``, the rank of each row's group: of two groups the lower one is kept.
      origins: int64 ``[n]``, the source of each row, counted from 0.
    """
    kept = np.ones(len(examples), bool) if kept is None else kept
    marks, texts = repeats.mark(examples, groups, origins, options, kept)
    return _spans(examples, groups, options, kept, marks, texts)


def policy(
    examples: Examples,
    groups: np.ndarray,
    origins: np.ndarray,
    options: Options,
    action: str = "mask",
    drop_share: float = 0.8,
    min_trained: int = 8,
) -> tuple[np.ndarray, Found]:
    """Which rows to drop for the text they repeat, and the spans of the others.

    Of the rows with a span, ``mask`` and ``cut`` drop those of whose trained tokens ``drop_share``
    or more are in spans, or fewer than ``min_trained`` are not (or none); ``drop`` drops all, and
    ``report`` none. A dropped row may have held the copy that stays, so the kept rows are searched
    again, with the templates of the first search. That only ever takes tokens out of spans, so no
    further row is to be dropped. With ``keep="none"`` every copy goes, whichever rows are dropped.

    After masking and without templates, a second run changes nothing: templates are a matter of
    counts, which change. Cutting joins what was apart, so it may make new windows.

    Args:
      groups: int64 ``[n]``, as for ``find``.
      origins: int64 ``[n]``, as for ``find``.

    Returns:
      bool ``[n]``; and the spans, none in a dropped row.

    Raises:
      UserError: an unknown action.
    """
    repeats.check("action", action, action in ACTIONS, f"one of {', '.join(ACTIONS)}")
    everything = np.ones(len(examples), bool)
    marks, texts = repeats.mark(examples, groups, origins, options, everything)
    found = _spans(examples, groups, options, everything, marks, texts)
    dropped = _dropped(examples, found, action, drop_share, min_trained)
    if options.keep == "none" or not dropped.any():
        return dropped, found.select(~dropped[found.rows])
    marks, _ = repeats.mark(examples, groups, origins, options, ~dropped, marks)
    return dropped, _spans(examples, groups, options, ~dropped, marks, texts)


def _dropped(
    examples: Examples, found: Found, action: str, drop_share: float, min_trained: int
) -> np.ndarray:
    repeated = np.zeros(len(examples), np.int64)
    np.add.at(repeated, found.rows, found.stops - found.starts)
    if action == "report":
        return np.zeros(len(examples), bool)
    if action == "drop":
        return repeated > 0
    is_mostly = repeated >= drop_share * examples.trained
    is_little_left = examples.trained - repeated < max(min_trained, 1)
    return (repeated > 0) & (is_mostly | is_little_left)


def _spans(
    examples: Examples,
    groups: np.ndarray,
    options: Options,
    kept: np.ndarray,
    marks: Marks,
    texts: list[dict[str, Any]],
) -> Found:
    """What the windows that are copies, and the whole answers that are, cover together."""
    size = len(examples.tokens)
    every_turn = runs(answers(examples, kept), examples.starts)
    first = np.flatnonzero(marks.copies)
    covered = flagged(first, first + options.length, size)
    owners = marks.owners
    if options.whole_turns and options.scope == "group":
        whole, earlier = turns.find(examples, groups, every_turn, options, marks.exempt)
        covered |= flagged(whole.begins, whole.stops, size)
        if options.keep == "first":
            by_window = marks.copies[whole.begins]
            owners = owners.copy()
            owners[whole.begins] = np.where(by_window, owners[whole.begins], earlier)
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
