"""Examples longer than a row of training: what to do with them, and what that loses.

Every policy keeps ``tokens[:head]`` and ``tokens[tail:]`` of an over-long example:

``error``, ``drop``
    nothing.
``truncate_response``
    the first tokens. Targets at the end are lost, the last end of turn first of all, so that a cut
    answer does not teach the model to stop there.
``truncate_prompt_left``
    the opening (``<bos>`` and the system instruction), and from there on as few of the oldest
    exchanges are left out as the length asks for. When even the last exchange alone is too long,
    its prompt loses tokens on the left, be it within a word, and keeps at least one. Otherwise
    what is left is what ``chat.encode`` gives for the conversation without those exchanges.
    Answers that remain are whole.

An example without a trained token left is dropped, whatever the policy.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import ANSWER, PROMPT
from sft.errors import UserError

POLICIES = ("error", "drop", "truncate_prompt_left", "truncate_response")
_NAMED = 20  # sources of over-long rows in a report
MOST = 0.99  # share of the rows that a length should hold
_CLOSING = 2  # tokens between a user's text and the header of the answer: end of turn, newline


@dataclasses.dataclass(frozen=True)
class _Cuts:
    """int64 arrays over the over-long rows: ``rows``; tokens ``heads`` to ``tails`` of each go;
    ``lost``: trained tokens among them. A dropped row loses all its tokens."""

    rows: np.ndarray
    heads: np.ndarray
    tails: np.ndarray
    lost: np.ndarray
    is_dropped: np.ndarray


def fit(
    examples: Examples, max_length: int, policy: str, max_share: float, sources: Sequence[str]
) -> tuple[Examples, np.ndarray, dict[str, Any]]:
    """Makes every example fit a row: ``len(tokens) - 1 <= max_length``.

    Args:
      max_length: tokens per row; the last token of an example is only a target.
      policy: one of ``POLICIES``.
      max_share: under ``error``, the share of over-long rows that may be dropped.
      sources: where each example comes from.

    Returns:
      As ``cut``.

    Raises:
      UserError: an unknown policy, too many over-long rows under ``error``, or nothing left.
    """
    found = cut(examples, max_length, policy, sources)
    refuse(found[2], max_share)
    return found


def cut(
    examples: Examples, max_length: int, policy: str, sources: Sequence[str]
) -> tuple[Examples, np.ndarray, dict[str, Any]]:
    """``fit`` that loses whatever it must.

    Returns:
      The examples that are left; their indices among those given, int64 ``[m]``; and a report:
      what ``lost_at`` counts; ``rows`` that were given; ``longest``: the tokens that the longest
      row needs, and ``longest_at``, where it comes from; ``holds``, see ``holding``; and
      ``examples``: the sources of the first over-long rows.

    Raises:
      UserError: an unknown policy.
    """
    cuts = _cuts(examples, max_length, policy)
    report = _counts(cuts, len(examples), max_length, policy)
    longest = int(np.argmax(examples.lengths)) if len(examples) else None
    report |= {
        "rows": len(examples),
        "longest": 0 if longest is None else int(examples.lengths[longest]) - 1,
        "longest_at": "" if longest is None else sources[longest],
        "holds": holding(examples.lengths, max_length),
        "examples": [sources[row] for row in cuts.rows[:_NAMED]],
    }
    if not len(cuts.rows):
        return examples, np.arange(len(examples)), report
    stays = np.ones(len(examples.tokens), bool)
    for row, head, tail in zip(cuts.rows, cuts.heads, cuts.tails, strict=True):
        start = examples.starts[row]
        stays[start + head : start + tail] = False
    lengths = examples.lengths.copy()
    lengths[cuts.rows] -= cuts.tails - cuts.heads
    kept = np.delete(np.arange(len(examples)), cuts.rows[cuts.is_dropped])
    starts = np.concatenate([[0], np.cumsum(lengths[kept])])
    return Examples(examples.tokens[stays], examples.kinds[stays], starts), kept, report


def gaps(examples: Examples, max_length: int, policy: str) -> dict[int, tuple[int, int]]:
    """For each over-long row, from which to which of its tokens ``cut`` leaves out."""
    cuts = _cuts(examples, max_length, policy)
    places = zip(cuts.rows.tolist(), cuts.heads.tolist(), cuts.tails.tolist(), strict=True)
    return {row: (head, tail) for row, head, tail in places}


def refuse(report: Mapping[str, Any], max_share: float) -> None:
    """Refuses to train on what ``cut`` has left, if it lost too much.

    Raises:
      UserError: under ``error`` more than ``max_share`` of the rows are too long, or nothing is
        left; names the longest row and the lengths that would do.
    """
    policy = report["policy"]
    is_refused = policy == "error" and report["over"] > max_share * report["rows"]
    is_empty = report["rows"] and report["dropped"] == report["rows"]
    if not is_refused and not is_empty:
        return
    over = (
        f"config.data.max_length = {report['max_length']}: {report['over']} of {report['rows']} "
        f"examples are longer (the longest, {report['longest_at']}, needs {report['longest']})"
    )
    raised = f"{held(report['holds'])}. Raise it"
    if is_refused:
        raise UserError(
            f"{over}; config.data.max_over_long = {max_share} of the rows may be. {raised}, or "
            f"set config.data.over_long to one of {', '.join(POLICIES[1:])}."
        )
    raise UserError(f"{over}, and with config.data.over_long = {policy!r} none is left. {raised}.")


def holding(lengths: np.ndarray, max_length: int) -> dict[str, int]:
    """The powers of two above ``max_length`` that hold ``most`` of the rows, 99 %, and ``all``.

    Args:
      lengths: int64 ``[n]``, tokens of each row.
    """
    needed = np.sort(lengths) - 1
    found = {}
    for name, share in (("most", MOST), ("all", 1.0)):
        last = needed[max(int(np.ceil(share * len(needed))), 1) - 1] if len(needed) else 0
        found[name] = 1 << (max(int(last), max_length + 1) - 1).bit_length()
    return found


def held(holds: Mapping[str, int]) -> str:
    """``max_length = 512 holds 99 % of the rows, 1,024 all``, for what ``holding`` returns."""
    if holds["most"] == holds["all"]:
        return f"max_length = {holds['all']:,} holds all"
    return f"max_length = {holds['most']:,} holds 99 % of the rows, {holds['all']:,} all"


def lost_at(examples: Examples, length: int, policy: str) -> dict[str, Any]:
    """What ``cut`` would lose with rows of that length; builds nothing.

    Returns:
      ``{"policy", "max_length", "over", "dropped", "truncated", "lost_trained_tokens", "share"}``.

    Raises:
      UserError: an unknown policy.
    """
    return _counts(_cuts(examples, length, policy), len(examples), length, policy)


def _counts(cuts: _Cuts, rows: int, max_length: int, policy: str) -> dict[str, Any]:
    dropped = int(cuts.is_dropped.sum())
    return {
        "policy": policy,
        "max_length": max_length,
        "over": len(cuts.rows),
        "dropped": dropped,
        "truncated": len(cuts.rows) - dropped,
        "lost_trained_tokens": int(cuts.lost.sum()),
        "share": len(cuts.rows) / max(rows, 1),
    }


def _cuts(examples: Examples, max_length: int, policy: str) -> _Cuts:
    if policy not in POLICIES:
        raise UserError(f"config.data.over_long = {policy!r}: expected one of {POLICIES}.")
    limit = max_length + 1
    rows = np.flatnonzero(examples.lengths > limit)
    heads, tails = np.zeros(len(rows), np.int64), examples.lengths[rows]
    if policy == "truncate_response":
        heads[:] = limit
    elif policy == "truncate_prompt_left":
        for i, row in enumerate(rows):
            heads[i], tails[i] = _cut_left(examples[row].tokens, examples[row].kinds, limit)
    starts = examples.starts[rows]
    lost = np.array(
        [
            np.count_nonzero(examples.kinds[a:b] >= ANSWER)
            for a, b in zip(starts + heads, starts + tails, strict=True)
        ],
        np.int64,
    )
    is_dropped = lost == examples.trained[rows]
    heads[is_dropped], tails[is_dropped] = 0, examples.lengths[rows[is_dropped]]
    return _Cuts(rows, heads, tails, lost, is_dropped)


def _cut_left(tokens: np.ndarray, kinds: np.ndarray, limit: int) -> tuple[int, int]:
    """(head, tail) under ``truncate_prompt_left``; all of the example when it cannot fit."""
    # Every example starts with <bos> and a start of turn, which no text can produce.
    turns = np.flatnonzero(tokens == tokens[1])
    turns = turns[len(turns) % 2 :]  # an odd number: the first is that of a system instruction
    users, answers = turns[::2], turns[1::2]
    prompts_before = np.concatenate([[0], np.cumsum(kinds == PROMPT)])
    sizes = prompts_before[answers] - prompts_before[users]
    texts = answers - _CLOSING - sizes  # where the text of each user turn starts
    head = texts[0]
    fitting = texts[head + len(tokens) - texts <= limit]
    if len(fitting):
        return head, fitting[0]
    excess = head + len(tokens) - texts[-1] - limit
    if excess < sizes[-1]:  # a turn of the user keeps at least a token
        return head, texts[-1] + excess
    return 0, len(tokens)
