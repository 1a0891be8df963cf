"""How far two or more raters agree, beyond what chance would give.

Kappa and Spearman are of two raters. Of more, they are the mean over the pairs of raters, each
weighted by the rows that both rated (Light (1971), *Psychological Bulletin* 76:365-377).
Krippendorff's alpha (ordinal) takes any number of raters and missing ratings.

The values are those of scikit-learn, SciPy and krippendorff. Their intervals are over rows drawn
with replacement; all four depend on the ratings only through sums over rows (``tables``), so that
two thousand resamples take a moment.
"""

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sft.eval.judge import resample, tables

NAMES = ("kappa", "weighted_kappa", "spearman")


def measure(
    ratings_nxR: np.ndarray,
    domain: Sequence[int],
    pairs: Sequence[tuple[int, int]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Agreement of raters.

    Args:
      ratings_nxR: float64, one row for each item; NaN where there is no rating.
      domain: every value of the scale, in order.
      pairs: of raters to compare; all if not given. Alpha is always of all.

    Returns:
      ``{name: {"value", "interval"}}``, ``None`` where undefined (as when all ratings are the
      same), and ``rows``: that at least one of the pairs has both rated.
    """
    if pairs is None:
        pairs = list(itertools.combinations(range(ratings_nxR.shape[1]), 2))
    rated_nxR = np.isfinite(ratings_nxR)
    shared = np.any([rated_nxR[:, a] & rated_nxR[:, b] for a, b in pairs], axis=0)
    result: dict[str, Any] = {"rows": int(np.sum(shared))}
    joint = tables.joint(ratings_nxR, domain, pairs)
    for name in NAMES:
        value = _mean_of_pairs(name, ratings_nxR, domain, pairs)
        of_tables = tables.of_pairs(name, len(pairs), len(domain))
        result[name] = _entry(value, joint, of_tables, seed)
    coincidences = tables.coincidences(ratings_nxR, domain)
    of_coincidences = tables.alpha(len(domain))
    result["alpha"] = _entry(_alpha(ratings_nxR, domain), coincidences, of_coincidences, seed)
    return result


def _entry(
    value: float, statistics_nxk: np.ndarray, of: Callable[[np.ndarray], np.ndarray], seed: int
) -> dict[str, Any]:
    if not np.isfinite(value):
        return {"value": None, "interval": None}
    interval = resample.interval(statistics_nxk, of, seed=seed)
    return {"value": float(value), "interval": interval and list(interval)}


def _mean_of_pairs(
    name: str, ratings_nxR: np.ndarray, domain: Sequence[int], pairs: Sequence[tuple[int, int]]
) -> float:
    total = weight = 0.0
    for a, b in pairs:
        both = np.isfinite(ratings_nxR[:, a]) & np.isfinite(ratings_nxR[:, b])
        value = _of_two(name, ratings_nxR[both, a], ratings_nxR[both, b], domain)
        if np.isfinite(value):
            total, weight = total + value * both.sum(), weight + both.sum()
    return total / weight if weight else float("nan")


def _of_two(name: str, a_n: np.ndarray, b_n: np.ndarray, domain: Sequence[int]) -> float:
    from scipy.stats import spearmanr
    from sklearn.metrics import cohen_kappa_score

    if len(a_n) < 2:
        return float("nan")
    with warnings.catch_warnings():  # undefined is NaN, and reported as such
        warnings.simplefilter("ignore")
        if name == "spearman":
            return float(spearmanr(a_n, b_n).statistic)
        weights = "quadratic" if name == "weighted_kappa" else None
        # Without the whole scale, the distance of two scores would depend on which others occur.
        a, b = a_n.astype(int), b_n.astype(int)
        return float(cohen_kappa_score(a, b, labels=list(domain), weights=weights))


def _alpha(ratings_nxR: np.ndarray, domain: Sequence[int]) -> float:
    import krippendorff

    if ratings_nxR.shape[1] < 2:
        return float("nan")
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(
                krippendorff.alpha(
                    reliability_data=ratings_nxR.T,
                    value_domain=list(domain),
                    level_of_measurement="ordinal",
                )
            )
    except ValueError:  # no row has two ratings
        return float("nan")
