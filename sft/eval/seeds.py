"""How sure a score is over seeds of training, and a difference of two arms over them.

The same configuration trained again with another seed (data order, initialisation) gives another
score; three to five seeds show how much. With so few numbers nothing is resampled: these are
Student's t intervals and tests, which take the scores for normally distributed.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from sft.eval.verdict import Difference

_ALIKE = 1e-9  # spread, as a share of the values, that is rounding and no spread


@dataclasses.dataclass(frozen=True)
class Summary:
    """Of one score over seeds.

    Attributes:
      deviation: the sample's standard deviation; 0 for one seed.
      low, high: of the interval of the mean; infinite if the seeds do not tell.
    """

    count: int
    mean: float
    deviation: float
    low: float
    high: float


def summary(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """Mean and Student's t interval.

    One seed, or seeds all alike, say nothing about the spread: the interval is infinite. All alike
    are most likely the same run several times.

    Raises:
      ValueError: there are no values, or not all are finite.
    """
    scores = _checked(values)
    mean, deviation = float(scores.mean()), _deviation(scores)
    if deviation == 0:
        return Summary(len(scores), mean, 0.0, -math.inf, math.inf)
    from scipy.stats import t

    half = float(t.ppf((1 + confidence) / 2, len(scores) - 1)) * deviation / len(scores) ** 0.5
    return Summary(len(scores), mean, deviation, mean - half, mean + half)


def difference(
    before: Sequence[float],
    after: Sequence[float],
    *,
    paired: bool = False,
    confidence: float = 0.95,
) -> Difference:
    """Mean of ``after`` minus mean of ``before``, each score that of one seed.

    Args:
      paired: score ``i`` of both is of the same seed and that seed makes both go the same way (the
        same data order, the same initial adapters): the t test of the differences. Otherwise
        Welch's, which takes neither equal spreads nor equal numbers of seeds for granted.

    Returns:
      With infinite interval and p = 1 if the seeds do not tell: one only, or no spread at all.

    Raises:
      ValueError: no values, values that are not finite, or unequal numbers of paired ones.
    """
    a, b = _checked(before), _checked(after)
    value = float(b.mean() - a.mean())
    nothing_known = Difference(value, -math.inf, math.inf, 1.0)
    if paired:
        if len(a) != len(b):
            raise ValueError(f"paired seeds: {len(a)} before and {len(b)} after")
        # Rounding of a difference is that of the scores it is taken of.
        if _deviation(b - a, scale=float(abs(np.concatenate([a, b])).max())) == 0:
            return nothing_known
    elif min(len(a), len(b)) < 2 or (_deviation(a) == 0 and _deviation(b) == 0):
        return nothing_known
    from scipy import stats

    test = stats.ttest_rel(b, a) if paired else stats.ttest_ind(b, a, equal_var=False)
    low, high = test.confidence_interval(confidence)
    return Difference(value, float(low), float(high), float(test.pvalue))


def _deviation(scores: np.ndarray, scale: float | None = None) -> float:
    """The sample's standard deviation; 0 where it is rounding, and for one value."""
    if len(scores) < 2:
        return 0.0
    deviation = float(scores.std(ddof=1))
    return deviation if deviation > _ALIKE * (scale or float(abs(scores).max())) else 0.0


def _checked(values: Sequence[float]) -> np.ndarray:
    scores = np.asarray(values, np.float64)
    if scores.ndim != 1 or len(scores) == 0 or not np.isfinite(scores).all():
        raise ValueError(f"expected finite scores, one for each seed; got {values!r}")
    return scores
