"""A few rows token by token as they are trained: one look shows whether the format is right."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.chat import encoding
from sft.data.conversation import Conversation

ORIGINS, ROWS = 4, 6  # sources and rows shown of a set
_EDGE = 60  # tokens shown at both ends of a row
_AROUND = 20  # ... and on both sides of every place where something else begins
_CHANGES = 24  # such places shown of a row
_GAP = 10  # tokens; fewer are shown
KINDS = {  # of ``chat``, as they are called here
    encoding.SCAFFOLD: "control",
    encoding.SYSTEM: "system",
    encoding.PROMPT: "prompt",
    encoding.CONTEXT: "context",
    encoding.ANSWER: "trained",
    encoding.END: "end",
}
MASKED, CUT = "masked", "cut"  # by deduplication; by deduplication or for the length


@dataclasses.dataclass(frozen=True)
class Shown:
    """Rows to show of a set, all in the same order.

    Attributes:
      before: as the chat format makes them.
      after: as deduplication leaves them.
      cuts: which tokens of ``after`` go for the length, see ``sft.data.batches.truncation.gaps``.
    """

    conversations: Sequence[Conversation]
    before: Examples
    after: Examples
    cuts: Mapping[int, tuple[int, int]]


def choose(
    conversations: Sequence[Conversation], examples: Examples, special: Sequence[int] = ()
) -> list[int]:
    """The rows to show: the first of each of the largest sources, ``special`` ones, the first with
    an answer that is context, the first with a system instruction, and the second of each source.
    """
    origins: dict[str, list[int]] = {}
    for index, conversation in enumerate(conversations):
        origins.setdefault(conversation.origin, []).append(index)
    largest = sorted(origins.values(), key=lambda rows: -len(rows))[:ORIGINS]
    chosen = [rows[0] for rows in largest] + list(special)
    for kind in (encoding.CONTEXT, encoding.SYSTEM):
        places = np.flatnonzero(examples.kinds == kind)[:1]
        chosen += (np.searchsorted(examples.starts, places, side="right") - 1).tolist()
    chosen += [rows[1] for rows in largest if len(rows) > 1]
    return sorted([*dict.fromkeys(chosen)][:ROWS])


def describe(shown: Shown, pieces: Sequence[str]) -> list[dict[str, Any]]:
    """The rows in plain values.

    Args:
      pieces: of the tokenizer, by id.

    Returns:
      For each row ``{"source", "origin", "category", "tokens", "trained", "dropped", "pieces"}``:
      ``tokens`` before anything went; ``trained`` ones that are left; ``dropped``: for its length;
      ``pieces``: ``[kind, text, id]`` of each token, where the kind is a value of ``KINDS``,
      ``masked`` or ``cut``, and ``["gap", number, 0]`` for tokens that are not shown.
    """
    found = []
    for index, conversation in enumerate(shown.conversations):
        before, after = shown.before[index], shown.after[index]
        gap = shown.cuts.get(index, (0, 0))
        kinds = _kinds(before, after, gap)
        found.append(
            {
                "source": conversation.source,
                "origin": conversation.origin,
                "category": conversation.category,
                "tokens": len(kinds),
                "trained": sum(kind in ("trained", "end") for kind in kinds),
                "dropped": gap == (0, len(after.tokens)),
                "pieces": _pieces(before.tokens.tolist(), kinds, pieces),
            }
        )
    return found


def _kinds(before: encoding.Example, after: encoding.Example, gap: tuple[int, int]) -> list[str]:
    """What became of each token."""
    kinds, stays = before.kinds.tolist(), _stays(before.tokens.tolist(), after.tokens.tolist())
    left = after.kinds.tolist()
    found, place = [], 0
    for kind, is_left in zip(kinds, stays, strict=True):
        if not is_left or gap[0] <= place < gap[1]:
            found.append(CUT)
        elif kind >= encoding.ANSWER > left[place]:
            found.append(MASKED)
        else:
            found.append(KINDS[kind])
        place += is_left
    return found


def _stays(before: list[int], after: list[int]) -> list[bool]:
    """Which tokens of a row are those that are left of it, in their order."""
    if len(before) == len(after):
        return [True] * len(before)
    ends = 0  # as many as possible at the end; a single stretch that was cut is found exactly
    while ends < len(after) and before[-1 - ends] == after[-1 - ends]:
        ends += 1
    first, found, place = len(after) - ends, [], 0
    for index, token in enumerate(before):
        is_end = index >= len(before) - ends
        is_left = is_end or (place < first and token == after[place])
        place += is_left and not is_end
        found.append(is_left)
    return found


def _pieces(tokens: list[int], kinds: list[str], pieces: Sequence[str]) -> list[list[Any]]:
    changes = [i for i in range(1, len(kinds)) if kinds[i] != kinds[i - 1]]
    near = np.zeros(len(kinds), bool)
    near[:_EDGE] = near[max(len(kinds) - _EDGE, 0) :] = True
    for change in [*changes[: _CHANGES // 2], *changes[-_CHANGES // 2 :]]:
        near[max(change - _AROUND, 0) : change + _AROUND] = True
    places = np.flatnonzero(near)
    for before, after in itertools.pairwise(places.tolist()):
        if after - before <= _GAP:
            near[before:after] = True
    found: list[list[Any]] = []
    for token, kind, is_near in zip(tokens, kinds, near.tolist(), strict=True):
        if is_near:
            found.append([kind, pieces[token].replace("\u2581", " "), token])
        elif found and found[-1][0] == "gap":
            found[-1][1] += 1
        else:
            found.append(["gap", 1, 0])
    return found
