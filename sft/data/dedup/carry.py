"""From the rows that a plan was made from to rows whose prompts were changed since."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import CONTEXT
from sft.data.conversation import Conversation
from sft.data.dedup import graph, plan


def carry(
    chosen: plan.Plan,
    planned: Sequence[Conversation],
    examples: Examples,
    conversations: Sequence[Conversation],
    encoded: Examples,
) -> Examples:
    """``encoded`` with the spans of the plan masked or cut in rows and in their copies.

    Augmentation changes prompts and leaves answers alone, so a span is found again by its place
    among the tokens of the answers.

    Args:
      planned, examples: what the plan was made from.
      conversations: the rows that the plan keeps, in order, each followed by its copies.
      encoded: of ``conversations``.
    """
    originals = _originals([planned[i] for i in chosen.kept], conversations)
    order = np.argsort(chosen.rows, kind="stable")
    rows, starts, stops = (a[order] for a in (chosen.rows, chosen.starts, chosen.stops))
    first, past = (
        np.searchsorted(rows, chosen.kept[originals], side) for side in ("left", "right")
    )
    spans = graph.ranges(first, past)
    copies = np.repeat(np.arange(len(encoded)), past - first)
    before, base = _answers_before(examples), examples.starts[rows]
    offsets = [before[base + place] - before[base] for place in (starts, stops - 1)]
    places = np.flatnonzero(encoded.kinds >= CONTEXT)
    firsts = _answers_before(encoded)[encoded.starts[copies]]
    begin, last = (places[firsts + o[spans]] - encoded.starts[copies] for o in offsets)
    moved = dataclasses.replace(chosen, rows=copies, starts=begin, stops=last + 1)
    return plan.changed(moved, encoded)


def _answers_before(examples: Examples) -> np.ndarray:
    """int64 ``[T + 1]``: tokens of answers before each token."""
    return np.concatenate([[0], np.cumsum(examples.kinds >= CONTEXT)])


def _originals(kept: Sequence[Conversation], conversations: Sequence[Conversation]) -> np.ndarray:
    """int64 ``[n]``: index into ``kept`` of the row that each is or is a copy of."""
    found, index = [], -1
    for conversation in conversations:
        if index + 1 < len(kept) and conversation is kept[index + 1]:
            index += 1
        found.append(index)
    return np.array(found, np.int64)
