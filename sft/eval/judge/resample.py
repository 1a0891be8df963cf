"""Bootstrap intervals of what some resamples leave undefined, as a kappa of equal ratings."""

from collections.abc import Callable

import numpy as np

from sft.eval import bootstrap
from sft.eval.metrics.metric import ANY, Metric, ends_of_ratio


def interval(
    statistics_nxk: np.ndarray,
    value: Callable[[np.ndarray], np.ndarray],
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float] | None:
    """Percentile interval of ``value(statistics.sum(0))`` over rows drawn with replacement.

    Args:
      statistics_nxk: float64; one row for each prompt, so that what belongs to a prompt stays
        together.
      value: ``[..., k]`` sums to ``[...]``, NaN where it is undefined.

    Returns:
      (low, high) of the resamples in which it is defined; ``None`` where that is less than half.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        values = bootstrap.resampled(value, statistics_nxk, resamples, seed)
    defined = values[np.isfinite(values)]
    if len(defined) * 2 < resamples:
        return None
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def mean(statistics_nx2: np.ndarray) -> np.ndarray:
    """Of sums and counts."""
    return statistics_nx2[..., 0] / statistics_nx2[..., 1]


def mean_interval(
    values_n: np.ndarray, bounds: tuple[float, float] = ANY, seed: int = 0
) -> tuple[float, float] | None:
    """The interval of a mean of values between ``bounds``; it has a width where all are equal."""
    statistics_nx2 = np.stack([values_n, np.ones(len(values_n))], axis=1)
    if len(set(values_n.tolist())) > 1:
        return interval(statistics_nx2, mean, seed=seed)
    ends = ends_of_ratio(bounds)
    metric = Metric(
        "mean", "higher", None, lambda *_: statistics_nx2, mean, bounds=bounds, ends=ends
    )
    return bootstrap.interval(metric, statistics_nx2, seed=seed)
