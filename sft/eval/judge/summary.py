"""The numbers of a judged set: scores, or wins and losses; what failed; what it cost."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sft.eval.judge import resample, verdicts
from sft.eval.judge.rows import Item
from sft.eval.judge.verdicts import Verdict

# What the first of the two arms gets of a pair.
POINTS = {"loss": 0.0, "tie": 0.5, "win": 1.0}


@dataclasses.dataclass(frozen=True)
class Pair:
    """The verdicts on both orders of two answers.

    Attributes:
      item: in the order of the first verdict.
    """

    item: Item
    verdicts: tuple[Verdict, Verdict]

    @property
    def outcomes(self) -> list[str]:
        """Of each order for the first arm: win, tie or loss; empty unless both have a verdict."""
        if any(verdict.value is None for verdict in self.verdicts):
            return []
        first, second = (verdict.value for verdict in self.verdicts)
        return [
            {"A": "win", "B": "loss", "tie": "tie"}[first],
            {"A": "loss", "B": "win", "tie": "tie"}[second],
        ]

    @property
    def outcome(self) -> str | None:
        """A judge that changes its mind with the order does not know: that is a tie."""
        found = self.outcomes
        return (found[0] if found[0] == found[1] else "tie") if found else None


def pointwise(found: Sequence[Verdict], low: int, high: int) -> dict[str, Any]:
    """Mean score of the verdicts there are, with a bootstrap interval, and their distribution."""
    scores_n = np.array([v.value for v in found if v.value is not None], np.float64)
    interval = resample.mean_interval(scores_n, (low, high)) if len(scores_n) else None
    return {
        "score": float(scores_n.mean()) if len(scores_n) else None,
        "interval": _listed(interval),
        "scale": [low, high],
        "distribution": {str(s): int((scores_n == s).sum()) for s in range(low, high + 1)},
        **_failures(found, len(found) - len(scores_n)),
    }


def pairwise(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Wins of the first arm; how often both orders agree; which place the judge prefers.

    ``win_rate`` counts a tie as half. ``position_bias`` is the share of single verdicts for the
    answer shown first less that for the one shown second: 0 in a judge that does not care.
    """
    judged = [pair for pair in pairs if pair.outcome is not None]
    outcomes = [pair.outcome for pair in judged]
    points_n = np.array([POINTS[str(outcome)] for outcome in outcomes])
    agree_n = np.array([float(len(set(pair.outcomes)) == 1) for pair in judged])
    first_nx2 = np.array([[v.value == "A" for v in pair.verdicts] for pair in judged], np.float64)
    second_nx2 = np.array([[v.value == "B" for v in pair.verdicts] for pair in judged], np.float64)
    result: dict[str, Any] = {
        "wins": outcomes.count("win"),
        "ties": outcomes.count("tie"),
        "losses": outcomes.count("loss"),
    }
    values = {
        "win_rate": points_n,
        "consistency": agree_n,
        "position_bias": (first_nx2 - second_nx2).mean(1) if judged else points_n,
    }
    for name, values_n in values.items():
        least = -1.0 if name == "position_bias" else 0.0
        interval = resample.mean_interval(values_n, (least, 1.0)) if judged else None
        result[name] = float(values_n.mean()) if judged else None
        result[f"{name}_interval"] = _listed(interval)
    result["single_verdicts"] = {
        "first": int(first_nx2.sum()),
        "second": int(second_nx2.sum()),
        "tie": int(2 * len(judged) - first_nx2.sum() - second_nx2.sum()),
    }
    single = [verdict for pair in pairs for verdict in pair.verdicts]
    return result | _failures(single, len(pairs) - len(judged))


def cost(found: Sequence[Verdict], config: ConfigDict) -> dict[str, Any]:
    """Of all replies behind these verdicts, whenever they were asked for; a shared one once."""
    replies = list({id(r): r for verdict in found for r in verdict.replies}.values())
    read, written = sum(r.tokens_in for r in replies), sum(r.tokens_out for r in replies)
    return {
        "replies": len(replies),
        "tokens_in": read,
        "tokens_out": written,
        "price": price(config, read, written),
    }


def price(config: ConfigDict, tokens_in: int, tokens_out: int) -> float:
    """In the unit of ``config.judge.price_in`` and ``price_out``, which are per million tokens."""
    return (tokens_in * config.judge.price_in + tokens_out * config.judge.price_out) / 1e6


def _failures(found: Sequence[Verdict], failures: int) -> dict[str, Any]:
    return {
        "failures": failures,  # rows without a verdict: in no number above
        "problems": verdicts.problems(found),
        "asked_again": sum(len(verdict.replies) - 1 for verdict in found),
        "cut": sum(reply.cut for verdict in found for reply in verdict.replies),
    }


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
