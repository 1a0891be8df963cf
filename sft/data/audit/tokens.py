"""Counts over the token arrays of a set, all rows at once."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from sft.data.batches import truncation
from sft.data.batches.examples import Examples
from sft.data.chat import encoding

PERCENTILES = (5, 25, 50, 75, 90, 95, 99)
_BINS = 32  # at most, where nearly all values of a histogram are


@dataclasses.dataclass(frozen=True)
class RowCounts:
    """Tokens of each row by what they are, every field int64 ``[n]``.

    Attributes:
      prompt: of the user's texts; headers and system instructions are not among them.
      response: of answers and their ends of turn, trained or not.
      row: all tokens.
      trained: with a loss.
      answers: answers (not tokens) whose last token of text is trained.
      ended: trained answers whose end of turn, right after them, is trained.
    """

    prompt: np.ndarray
    response: np.ndarray
    row: np.ndarray
    trained: np.ndarray
    answers: np.ndarray
    ended: np.ndarray


def row_counts(examples: Examples) -> RowCounts:
    """Reads every token kind once; no copy of the tokens is made."""
    kinds, starts = np.asarray(examples.kinds), examples.starts
    answer = kinds == encoding.ANSWER
    followed = np.zeros_like(answer)  # last trained token of the text of an answer
    # Before a repeated stretch that is masked, an answer goes on as context.
    followed[:-1] = answer[:-1] & ~answer[1:] & (kinds[1:] != encoding.CONTEXT)
    ended = np.zeros_like(answer)
    ended[:-1] = followed[:-1] & (kinds[1:] == encoding.END)
    if len(answer):  # a row that ends inside an answer
        followed[starts[1:] - 1] |= answer[starts[1:] - 1]
        ended[starts[1:] - 1] = False
    return RowCounts(
        prompt=per_row(kinds == encoding.PROMPT, starts),
        response=per_row(kinds >= encoding.CONTEXT, starts),
        row=np.diff(starts),
        trained=per_row(kinds >= encoding.ANSWER, starts),
        answers=per_row(followed, starts),
        ended=per_row(ended, starts),
    )


def per_row(mask: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """How often bool ``mask [T]`` holds in each row, int64 ``[n]``; no row is empty."""
    if len(starts) < 2:
        return np.zeros(0, np.int64)
    return np.add.reduceat(mask, starts[:-1], dtype=np.int64)


def distribution(values: np.ndarray) -> dict[str, Any]:
    """Percentiles, largest value, and a histogram whose bins grow with the value.

    Returns:
      ``{"percentiles": {"5": …, "max": …}, "histogram": {"edges": e, "counts": c}}``; bin i holds
      ``e[i] <= value < e[i + 1]``. ``{}`` without values.
    """
    if not len(values):
        return {}
    marks = np.percentile(values, PERCENTILES)
    percentiles = {str(p): round(float(v), 1) for p, v in zip(PERCENTILES, marks, strict=True)}
    edges = _edges(values)
    counts, _ = np.histogram(values, edges)
    return {
        "percentiles": percentiles | {"max": int(values.max())},
        "histogram": {"edges": edges, "counts": [int(count) for count in counts]},
    }


def _edges(values: np.ndarray) -> list[int]:
    """Whole numbers where these are few, else 8, 4, 2 or 1 bins for each doubling.

    The finest grid is taken that has at most 32 bins for all but the outer hundredth of the
    values, so that a long tail coarsens nothing and similar sets get the same grid.
    """
    low, high = int(values.min()), int(values.max())
    if high - low < 2 * _BINS:
        return list(range(low, high + 2))
    inner = np.quantile(values, (0.005, 0.995), method="nearest")
    edges: list[int] = []
    for parts in (8, 4, 2, 1):
        grid = {0, 1, *(round(2 ** (k / parts)) for k in range(30 * parts))}
        below = max(edge for edge in grid if edge <= low)
        above = min(edge for edge in grid if edge > high)
        edges = sorted(edge for edge in grid if below <= edge <= above)
        often = sum(inner[0] <= edge <= inner[1] for edge in edges)
        if often <= _BINS and len(edges) <= 3 * _BINS:
            break
    return edges


def over_long(examples: Examples, length: int, policy: str, trained: int) -> dict[str, Any]:
    """Rows over ``length`` and over other lengths, and what ``policy`` would lose there.

    Args:
      length: configured tokens per row.
      policy: a name of ``sft.data.batches.truncation.POLICIES``.
      trained: trained tokens of the set.

    Returns:
      ``{"length", "policy", "holds": see fit.holding, "at": [{"length", "over", "share", "dropped",
      "lost_trained_tokens", "lost_share"}]}`` at 256, 512, … up to the first length that holds
      every row, and at most 32,768; the configured length is among them.
    """
    rows, at = len(examples.lengths), []
    powers = [2**k for k in range(8, 16)]
    longest = int(examples.lengths.max(initial=1)) - 1  # the last token is only predicted
    enough = next((power for power in powers if power >= longest), powers[-1])
    for tried in sorted({length, *(power for power in powers if power <= enough)}):
        lost = truncation.lost_at(examples, tried, policy)
        at.append(
            {
                "length": tried,
                "over": int(lost["over"]),
                "share": lost["over"] / max(rows, 1),
                "dropped": int(lost["dropped"]),
                "lost_trained_tokens": int(lost["lost_trained_tokens"]),
                "lost_share": lost["lost_trained_tokens"] / max(trained, 1),
            }
        )
    holds = truncation.holding(examples.lengths, length)
    return {"length": length, "policy": policy, "holds": holds, "at": at}


def ends(examples: Examples, counts: RowCounts, length: int, policy: str) -> dict[str, Any]:
    """Trained answers, and how many have a trained end of turn once rows are cut to ``length``.

    Only ``truncate_response`` cuts answers: in a cut row the last token that stays is in one.
    """
    answers, ended = int(counts.answers.sum()), int(counts.ended.sum())
    if policy == "truncate_response":
        cut = counts.row > length + 1
        last = examples.starts[:-1][cut] + length
        ended -= int(np.sum(examples.kinds[last] == encoding.ANSWER))
    return {"answers": answers, "ended": ended, "share": ended / answers if answers else 1.0}


def begins(examples: Examples, bos_id: int, sources: Sequence[str]) -> dict[str, Any]:
    """Rows whose number of ``<bos>`` is not one, and the first of them."""
    found = per_row(np.asarray(examples.tokens) == bos_id, examples.starts)
    wrong = np.flatnonzero(found != 1)
    first = sources[wrong[0]] if len(wrong) else ""
    return {"wrong_rows": len(wrong), "first": first}
