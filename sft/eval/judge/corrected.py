"""A score of many rows by a judge, corrected by the few of them that people rated.

Prediction-powered inference: the judge's mean over all rows, plus what people say on the rated
rows beyond the judge. It is unbiased whatever the judge is worth, as long as the rated rows were
drawn at random; a judge that agrees with people makes the interval shorter.

Sources: Angelopoulos et al., *Prediction-powered inference*, arXiv:2301.09633; the weight of the
judge: Angelopoulos, Duchi and Zrnic, *PPI++*, arXiv:2311.01453, section 6 (the mean).
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Corrected:
    """Attributes:
    value: estimate of people's mean over rows like these.
    low, high: its interval.
    weight: of the judge, 0 = people alone, 1 = plain prediction-powered inference.
    rated: rows with a rating by people.
    judged: rows with none.
    """

    value: float
    low: float
    high: float
    weight: float
    rated: int
    judged: int


def mean(
    people_n: np.ndarray,
    judge_n: np.ndarray,
    judge_N: np.ndarray,
    *,
    weight: float | None = None,
    confidence: float = 0.95,
) -> Corrected:
    """People's mean score.

    Args:
      people_n, judge_n: float64, of the rows that people rated; at least two.
      judge_N: float64, the judge alone, of all other rows; may be empty.
      weight: of the judge; the one with the shortest interval if not given.

    Raises:
      ValueError: fewer than two rated rows: there is no interval.
    """
    from scipy.stats import norm

    n, N = len(people_n), len(judge_N)
    if n < 2:
        raise ValueError("people have rated fewer than two rows")
    if weight is None:
        weight = tuned(people_n, judge_n, N, np.concatenate([judge_n, judge_N]))
    if N == 0:
        weight, judge_N = 0.0, np.zeros(1)
    rest_n = people_n - weight * judge_n
    value = weight * judge_N.mean() + rest_n.mean()
    variance = weight**2 * judge_N.var() / max(N, 1) + rest_n.var() / n
    half = norm.ppf((1 + confidence) / 2) * np.sqrt(variance)
    return Corrected(float(value), float(value - half), float(value + half), float(weight), n, N)


def tuned(people_n: np.ndarray, judge_n: np.ndarray, N: int, judge_all: np.ndarray) -> float:
    """The weight that makes the variance least: covariance over (1 + n/N) variance, within 0…1."""
    variance = judge_all.var(ddof=1)
    if N == 0 or variance == 0:
        return 0.0
    covariance = np.mean((people_n - people_n.mean()) * (judge_n - judge_n.mean()))
    return float(np.clip(covariance / ((1 + len(people_n) / N) * variance), 0.0, 1.0))
