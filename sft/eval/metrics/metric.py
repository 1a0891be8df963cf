"""What a metric is: sufficient statistics of each row, and the value of their sum."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Unfit = tuple[int, str]  # index of a row, and why the metric can say nothing about it
Texts = Sequence[str]
SHARE = (0.0, 1.0)
ANY = (-math.inf, math.inf)

Ends = tuple[np.ndarray | None, np.ndarray | None]


def fits(expected: Texts) -> Unfit | None:
    """Of a metric that fits every task."""
    return None


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number about a set, that can be made again from any sample of its rows.

    Statistics are added, over rows, batches and hosts, and only then made a value: so BLEU is the
    corpus's and not a mean of sentences, perplexity is that of the mean loss, and an interval or a
    paired test needs no text.

    Attributes:
      name: in ``config.eval.metrics`` and in the results.
      better: ``"higher"`` | ``"lower"``.
      signature: the settings that change the number, in the library's own words where it has some;
        ``None`` where there is nothing to choose.
      statistics: two columns of ``n`` rows (predicted and expected answers; see
        ``sft.eval.metrics.likelihood`` for others) → float64 ``[n, k]``.
      value: sums of statistics, float64 ``[..., k]`` → ``[...]``.
      is_mean: statistics are (score, 1) and the value is the mean score. If all scores are 0 or 1,
        intervals and tests of proportions apply (``sft.eval.stats``).
      unfit: expected answers → the first row that makes the metric meaningless, or ``None``.
      bounds: what the value can be at least and at most.
      ends: statistics ``[n, k]`` → those of the same rows if every answer were as low, and as high,
        as can be; ``None`` for an end that is nowhere. For intervals where no row differs.
    """

    name: str
    better: str
    signature: str | None
    statistics: Callable[[Sequence[Any], Sequence[Any]], np.ndarray]
    value: Callable[[np.ndarray], np.ndarray]
    is_mean: bool = False
    unfit: Callable[[Texts], Unfit | None] = fits
    bounds: tuple[float, float] = ANY
    ends: Callable[[np.ndarray], Ends] = lambda statistics: (None, None)


def mean(
    name: str,
    score: Callable[[str, str], float],
    *,
    signature: str | None = None,
    unfit: Callable[[Texts], Unfit | None] = fits,
    bounds: tuple[float, float] = SHARE,
) -> Metric:
    """The mean over rows of ``score(predicted, expected)``; higher is better."""

    def statistics(predicted: Sequence[str], expected: Sequence[str]) -> np.ndarray:
        rows = [(score(p, e), 1.0) for p, e in zip(predicted, expected, strict=True)]
        return np.array(rows, np.float64).reshape(-1, 2)

    return Metric(
        name,
        "higher",
        signature,
        statistics,
        ratio,
        is_mean=True,
        unfit=unfit,
        bounds=bounds,
        ends=ends_of_ratio(bounds),
    )


def ends_of_ratio(bounds: tuple[float, float]) -> Callable[[np.ndarray], Ends]:
    """``Metric.ends`` of a ratio whose rows lie between ``bounds`` too."""

    def ends(statistics_nx2: np.ndarray) -> Ends:
        weight_n = statistics_nx2[:, 1]
        low, high = (
            np.stack([bound * weight_n, weight_n], axis=1) if math.isfinite(bound) else None
            for bound in bounds
        )
        return low, high

    return ends


def ratio(sums: np.ndarray) -> np.ndarray:
    """``[..., 2]`` (total, weight) → total / weight; 0 where the weight is 0."""
    total, weight = sums[..., 0], sums[..., 1]
    return np.divide(total, weight, out=np.zeros(np.shape(total)), where=weight != 0)


def first_unfit(expected: Texts, why: Callable[[str], str | None]) -> Unfit | None:
    """The first row about which ``why`` has something to say."""
    found = ((index, why(text)) for index, text in enumerate(expected))
    return next(((index, reason) for index, reason in found if reason), None)
