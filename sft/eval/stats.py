"""Uncertainty of a proportion, and of the difference between two arms on the same examples.

No arrays and no files: counts and booleans in, numbers out.
"""

from collections.abc import Sequence


def wilson(correct: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion; stays inside [0, 1] and is sound at 0 and at ``count``.

    Source: Wilson (1927), *J. Am. Stat. Assoc.* 22:209-212.

    Raises:
      ValueError: ``count`` is 0 or ``correct`` is outside 0…count.
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, count).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Two-sided exact p of the hypothesis that ``a`` and ``b`` are right equally often.

    Only the pairs on which the arms differ carry information; under the hypothesis each is a
    fair coin. 1.0 when there is no such pair. Source: McNemar (1947), *Psychometrika*
    12:153-157, with the binomial instead of the chi-square.

    Raises:
      ValueError: the lengths differ.
    """
    from scipy.stats import binomtest

    only_a = sum(x and not y for x, y in zip(a, b, strict=True))
    only_b = sum(y and not x for x, y in zip(a, b, strict=True))
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def paired_difference(
    a: Sequence[bool], b: Sequence[bool], confidence: float = 0.95
) -> tuple[float, float, float]:
    """``(difference, low, high)`` of the share right in ``b`` minus the share right in ``a``.

    The two Wilson intervals are combined by the square-and-add rule with a continuity-corrected
    correlation. Source: method 10 of Newcombe (1998), *Statistics in Medicine* 17:2635-2650.
    A closed form: no resampling, no seed, and no empty interval when every pair agrees.

    Raises:
      ValueError: the lengths differ or there are no pairs.
    """
    both = sum(x and y for x, y in zip(a, b, strict=True))
    right_a, right_b, count = sum(map(bool, a)), sum(map(bool, b)), len(a)
    low_a, high_a = wilson(right_a, count, confidence)
    low_b, high_b = wilson(right_b, count, confidence)
    share_a, share_b = right_a / count, right_b / count

    phi = _correlation(both, right_a, right_b, count)
    below, above = share_b - low_b, high_a - share_a
    low = (below**2 - 2 * phi * below * above + above**2) ** 0.5
    below, above = share_a - low_a, high_b - share_b
    high = (above**2 - 2 * phi * above * below + below**2) ** 0.5
    difference = share_b - share_a
    return difference, max(-1.0, difference - low), min(1.0, difference + high)


def _correlation(both: int, right_a: int, right_b: int, count: int) -> float:
    """Newcombe's phi: a positive covariance is shrunk by ``count / 2``, but not below 0."""
    margins = right_a * (count - right_a) * right_b * (count - right_b)
    if margins == 0:
        return 0.0
    neither = count - right_a - right_b + both
    covariance = both * neither - (right_a - both) * (right_b - both)
    if covariance > 0:
        covariance = max(covariance - count / 2, 0)
    return covariance / margins**0.5
