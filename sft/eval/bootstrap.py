"""How sure a score is, and a difference of two on the same rows; for any metric.

Rows are drawn again with replacement: another test set as it might have been. Their sufficient
statistics are summed and made a value, so BLEU or F1 of a resample is exact and no text is looked
at. What is used when:

- a share of right answers (``metric.is_mean`` and all scores 0 or 1): no resampling but the closed
  forms of ``sft.eval.stats``, Wilson's interval, Newcombe's for the difference, McNemar's exact p.
  They hold near 0 and 1, where a bootstrap of equal rows has no width;
- any other metric: the bootstrap, and a paired permutation test for the difference;
- where all resamples are alike (one row, all answers right or all wrong), a bootstrap would have no
  width: Wilson's bound on the share of rows that may be unlike those seen, see ``unlike``;
- several seeds of training: ``sft.eval.seeds``. Rows say how the score depends on the test set,
  seeds how it depends on training; neither is the other.
"""

from collections.abc import Callable

import numpy as np

from sft.eval import stats
from sft.eval.metrics.metric import Metric
from sft.eval.verdict import Difference

_CHUNK = 2**21  # counts that exist at a time: 16 MiB

Value = Callable[[np.ndarray], np.ndarray]


def interval(
    metric: Metric,
    statistics_nxk: np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """``(low, high)`` of the metric over test sets like this one; within the metric's bounds.

    Infinite where the rows say nothing of an end that has no bound: one row's loss may be any.

    Raises:
      ValueError: there are no rows.
    """
    _check_rows(statistics_nxk)
    if _is_share(metric, statistics_nxk):
        right = round(statistics_nxk[:, 0].sum())
        return stats.wilson(right, len(statistics_nxk), confidence)
    low, high = _percentiles(metric.value, statistics_nxk, resamples, seed, confidence)
    if _is_same(low, high):
        low, high = unlike(metric, statistics_nxk, confidence)
    least, most = metric.bounds
    return max(low, least), min(high, most)


def difference(
    metric: Metric,
    before_nxk: np.ndarray,
    after_nxk: np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Difference:
    """After minus before, where row ``i`` of both is the same prompt.

    Resamples draw the same rows for both. p is that of the permutation test: if the arms were the
    same, the two answers to a prompt could as well be exchanged.

    Raises:
      ValueError: there are no rows, or not as many in both.
    """
    _check_rows(before_nxk)
    if before_nxk.shape != after_nxk.shape:
        raise ValueError(f"not the same rows: {before_nxk.shape} and {after_nxk.shape}")
    if _is_share(metric, before_nxk) and _is_share(metric, after_nxk):
        before, after = ((rows[:, 0] == 1).tolist() for rows in (before_nxk, after_nxk))
        p = stats.mcnemar(before, after)
        return Difference(*stats.paired_difference(before, after, confidence), p)
    k = before_nxk.shape[1]
    both = np.concatenate([before_nxk, after_nxk], axis=1)

    def change(sums: np.ndarray) -> np.ndarray:
        return metric.value(sums[..., k:]) - metric.value(sums[..., :k])

    value = float(change(both.sum(0)))
    low, high = _percentiles(change, both, resamples, seed, confidence)
    arms = before_nxk, after_nxk
    if _is_same(low, high) and not np.array_equal(*arms):
        options = resamples, seed, confidence
        if all(_is_same(*_percentiles(metric.value, rows, *options)) for rows in arms):
            low, high = _recovered(metric, *arms, confidence)
            widest = metric.bounds[1] - metric.bounds[0]
            low, high = max(low, -widest), min(high, widest)
    p = permutation_p(metric.value, before_nxk, after_nxk, resamples, seed)
    return Difference(value, low, high, p)


def permutation_p(
    value: Value, before_nxk: np.ndarray, after_nxk: np.ndarray, resamples: int, seed: int
) -> float:
    """Two-sided p of the paired permutation test (approximate randomisation).

    In each resample every row's two arms change places with probability 1/2. p is the share of
    differences at least as large as the one seen, itself among them: never 0, and 1 if the arms are
    alike. Source: Riezler and Maxwell (2005), as sacreBLEU's ``--paired-ar``.
    """
    rng = np.random.default_rng((seed, 1))  # not the numbers that drew the rows
    moved = (before_nxk != after_nxk).any(axis=1)  # the others make no difference to an exchange
    rest_k = before_nxk[~moved].sum(0)
    before_mxk, after_mxk = before_nxk[moved], after_nxk[moved]

    def apart(kept_Rxm: np.ndarray) -> np.ndarray:
        """abs(after - before) if each row's arms keep their places (1) or change them (0)."""
        # Sums only: a difference could make a count a little negative.
        after = kept_Rxm @ after_mxk + (1 - kept_Rxm) @ before_mxk
        before = kept_Rxm @ before_mxk + (1 - kept_Rxm) @ after_mxk
        return abs(value(rest_k + after) - value(rest_k + before))

    m = len(before_mxk)
    # What is smaller by the rounding of the two values alone is as large.
    rounding = 1e-12 * max(abs(value(before_nxk.sum(0))), abs(value(after_nxk.sum(0))))
    seen = apart(np.ones((1, m)))[0] - rounding
    as_large = 0
    for count in _chunks(resamples, m):
        kept_Rxm = rng.integers(0, 2, (count, m)).astype(np.float64)
        as_large += int((apart(kept_Rxm) >= seen).sum())
    return (as_large + 1) / (resamples + 1)


def resampled(value: Value, statistics_nxk: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """``[resamples]`` values of as many rows drawn with replacement."""
    rng = np.random.default_rng(seed)
    n = len(statistics_nxk)
    found = []
    for count in _chunks(resamples, n):
        # How often each row is drawn is multinomial; drawing rows is quicker than drawing counts.
        drawn = rng.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n)
        found.append(value(counts.astype(np.float64) @ statistics_nxk))
    return np.concatenate(found)


def _percentiles(
    value: Value, statistics_nxk: np.ndarray, resamples: int, seed: int, confidence: float
) -> tuple[float, float]:
    """The expanded percentile interval, widened to hold the value itself.

    Resamples of n rows spread less than test sets do, by sqrt((n - 1) / n) and as if the spread
    were known: percentiles further out make up for both, and the interval of a mean of normal
    scores is Student's. Source: Hesterberg (2015), *The American Statistician* 69:371-386.

    Not BCa: on simulated means, ratios, macro F1 and BLEU of 12 and 50 rows (300 sets each) its
    coverage was within 0.02 of plain percentiles', and it costs a value for every row.
    """
    from scipy.stats import norm, t

    n = len(statistics_nxk)
    seen = float(value(statistics_nxk.sum(0)))
    if n == 1:
        return seen, seen
    tail = norm.cdf((n / (n - 1)) ** 0.5 * t.ppf((1 - confidence) / 2, n - 1))
    values = resampled(value, statistics_nxk, resamples, seed)
    low, high = np.quantile(values, [tail, 1 - tail]).tolist()
    return min(low, seen), max(high, seen)


def unlike(metric: Metric, statistics_nxk: np.ndarray, confidence: float) -> tuple[float, float]:
    """The metric if as many rows as can be were otherwise than those seen, and as low or high.

    Of n rows that are all alike in something, Wilson's interval still allows a share z²/(n + z²) of
    the population to be unlike them (Wilson 1927; the rule of three of Hanley and Lippman-Hand,
    1983, *JAMA* 249:1743-1745, is the one-sided exact bound, 3/n). That share of the sums is taken
    from the rows at the metric's end (``Metric.ends``). For a share of right answers it is Wilson's
    interval.
    """
    n, sums_k = len(statistics_nxk), statistics_nxk.sum(0)
    other = 1 - stats.wilson(n, n, confidence)[0]
    seen = float(metric.value(sums_k))
    found = [-np.inf, np.inf]
    for i, end_nxk in enumerate(metric.ends(statistics_nxk)):
        if end_nxk is not None:
            found[i] = float(metric.value((1 - other) * sums_k + other * end_nxk.sum(0)))
    return min(seen, *found), max(seen, *found)


def _recovered(
    metric: Metric, before_nxk: np.ndarray, after_nxk: np.ndarray, confidence: float
) -> tuple[float, float]:
    """The interval of a difference, from those of two arms of which neither has any spread.

    The square-and-add rule without a correlation, which errs towards too wide. Source: Zou and
    Donner (2008), *Statistics in Medicine* 27:1693-1702.
    """
    one, two = (float(metric.value(rows.sum(0))) for rows in (before_nxk, after_nxk))
    low_1, high_1 = unlike(metric, before_nxk, confidence)
    low_2, high_2 = unlike(metric, after_nxk, confidence)
    below = float(np.hypot(two - low_2, high_1 - one))
    above = float(np.hypot(one - low_1, high_2 - two))
    return two - one - below, two - one + above


def _is_same(low: float, high: float) -> bool:
    """Whether they differ by no more than rounding."""
    return high - low <= 1e-12 * max(abs(low), abs(high))


def _is_share(metric: Metric, statistics_nxk: np.ndarray) -> bool:
    return metric.is_mean and bool(np.isin(statistics_nxk[:, 0], (0, 1)).all())


def _check_rows(statistics_nxk: np.ndarray) -> None:
    if len(statistics_nxk) == 0:
        raise ValueError("no rows: an empty set has no score")


def _chunks(resamples: int, rows: int) -> list[int]:
    """Parts of ``resamples`` whose arrays stay within ``_CHUNK``."""
    size = max(1, _CHUNK // max(rows, 1))
    return [min(size, resamples - begun) for begun in range(0, resamples, size)]
