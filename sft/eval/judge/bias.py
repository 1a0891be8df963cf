"""What sways a judge and not people: the length of an answer, and its place."""

from typing import Any

import numpy as np

from sft.eval.judge import resample


def length(beyond_n: np.ndarray, doublings_n: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """How much the judge's score exceeds people's per doubling of the length.

    The slope of least squares of judge less people on log2 of the length, so that a liking that
    people share, because longer answers are better ones, is not held against the judge.

    Args:
      beyond_n: judge less people, of one answer or of the first of two.
      doublings_n: log2 of the characters; of two answers, of their ratio.

    Returns:
      ``slope`` and its bootstrap ``interval``; ``None`` where all lengths are equal.
    """
    x, y = doublings_n - doublings_n.mean(), beyond_n
    statistics_nx5 = np.stack([np.ones(len(x)), x, y, x * x, x * y], axis=1)
    value = float(_slope(statistics_nx5.sum(0)))
    if not np.isfinite(value):
        return {"slope": None, "interval": None}
    interval = resample.interval(statistics_nx5, _slope, seed=seed)
    return {"slope": value, "interval": interval and list(interval)}


def _slope(sums: np.ndarray) -> np.ndarray:
    n, x, y, xx, xy = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = n * xx - x * x
        return np.where(spread > 1e-9 * n * n, (n * xy - x * y) / spread, np.nan)


def place(winners: list[int]) -> dict[str, Any]:
    """Of verdicts 1, 0, -1 for the first, neither, the second: the share first less second."""
    values_n = np.array(winners, np.float64)
    interval = resample.mean_interval(values_n, (-1.0, 1.0))
    return {"bias": float(values_n.mean()), "interval": interval and list(interval)}
