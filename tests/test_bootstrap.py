"""Intervals and paired tests against scipy, sacreBLEU and every case written out."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import chrf
from sacrebleu.significance import PairedTest

from sft.config import default
from sft.eval import bootstrap, metrics, stats
from sft.eval.metrics.metric import Metric, mean, ratio

LOSS = metrics.LIKELIHOOD["loss"]


def means(scores):
    """Statistics of a mean of these scores."""
    return np.stack([np.asarray(scores, np.float64), np.ones(len(scores))], axis=1)


MEAN = Metric("score", "higher", None, lambda p, e: means(p), ratio)


def rows(seed, n, shift=0.0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.gamma(2.0, 5.0, n) + shift, rng.integers(1, 20, n)], axis=1)


def test_resamples_are_rows_drawn_with_replacement():
    """All 27 samples of three rows come with the right frequency, and nothing else does."""
    data = means([1.0, 10.0, 100.0])
    found = bootstrap.resampled(lambda sums: sums[..., 0], data, 20_000, 0)
    expected = {}
    for draw in itertools.product(data[:, 0], repeat=3):
        expected[sum(draw)] = expected.get(sum(draw), 0) + 20_000 / 27
    values, counts = np.unique(found, return_counts=True)
    assert values.tolist() == sorted(expected)
    assert scipy.stats.chisquare(counts, [expected[v] for v in values]).pvalue > 1e-3


@pytest.mark.parametrize("metric, data", [(LOSS, rows(0, 40)), (MEAN, means(rows(1, 15)[:, 0]))])
def test_interval_is_scipys_percentiles_further_out(metric, data):
    n = len(data)
    values = bootstrap.resampled(metric.value, data, 2000, 0)
    # Hesterberg (2015): the tails that make the interval of a normal mean Student's.
    tail = scipy.stats.norm.cdf(scipy.stats.t.ppf(0.025, n - 1) * np.sqrt(n / (n - 1)))
    theirs = scipy.stats.bootstrap(
        (np.arange(n),),
        lambda index, axis: metric.value(data[index].sum(axis)),
        n_resamples=0,
        bootstrap_result=SimpleNamespace(bootstrap_distribution=values),
        confidence_level=1 - 2 * tail,
        method="percentile",
    ).confidence_interval
    assert bootstrap.interval(metric, data) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_interval_of_a_mean_is_students():
    scores = np.random.default_rng(0).normal(size=30)
    theirs = scipy.stats.ttest_1samp(scores, 0).confidence_interval()
    ours = bootstrap.interval(MEAN, means(scores), resamples=100_000)
    # The ends of 100,000 resamples scatter by half a hundredth of the deviation of the mean.
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.1 * scores.std() / 30**0.5)


def test_parts_of_the_resamples_do_not_matter(monkeypatch):
    data = rows(0, 6)
    whole = bootstrap.resampled(LOSS.value, data, 300, 5)
    monkeypatch.setattr(bootstrap, "_CHUNK", 60)
    assert bootstrap._chunks(25, 6) == [10, 10, 5] and bootstrap._chunks(2, 100) == [1, 1]
    assert np.array_equal(bootstrap.resampled(LOSS.value, data, 300, 5), whole)


def test_memory_is_bounded(monkeypatch):
    """Of 100,000 rows, few resamples exist at a time."""
    sizes = []

    def value(sums):
        sizes.append(sums.shape)
        return ratio(sums)

    data = means(np.random.default_rng(0).random(100_000))
    assert bootstrap.resampled(value, data, 50, 0).shape == (50,)
    assert sizes == [(20, 2), (20, 2), (10, 2)]


def test_seed_decides():
    before, after = rows(0, 20), rows(1, 20)
    ours = bootstrap.difference(LOSS, before, after)
    assert ours == bootstrap.difference(LOSS, before, after)
    other = bootstrap.difference(LOSS, before, after, seed=1)
    assert other.value == ours.value and other.low != ours.low
    assert bootstrap.interval(LOSS, before, confidence=0.8)[0] > bootstrap.interval(LOSS, before)[0]


def every_exchange(value, before, after):
    """The share of all 2^n exchanges with a difference at least as large."""

    def apart(keep):
        swapped = np.where(np.array(keep)[:, None], after, before)
        other = np.where(np.array(keep)[:, None], before, after)
        return abs(value(swapped.sum(0)) - value(other.sum(0)))

    n = len(before)
    found = [apart(keep) for keep in itertools.product([True, False], repeat=n)]
    return float(np.mean(np.array(found) >= apart([True] * n) - 1e-12))


@pytest.mark.parametrize("n, shift", [(1, 5.0), (3, 30.0), (6, 10.0), (8, 3.0)])
def test_p_is_that_of_every_exchange(n, shift):
    before, after = rows(0, n), rows(1, n, shift)
    exact = every_exchange(LOSS.value, before, after)
    ours = bootstrap.permutation_p(LOSS.value, before, after, 20_000, 0)
    assert ours == pytest.approx(exact, abs=5 * (exact * (1 - exact) / 20_000) ** 0.5 + 1e-4)


def test_p_is_scipys():
    before, after = rows(0, 9)[:, 0], rows(3, 9, 4.0)[:, 0]
    theirs = scipy.stats.permutation_test(
        (after, before), lambda a, b, axis: (a - b).mean(axis),
        permutation_type="samples", vectorized=True,
    ).pvalue  # fmt: skip
    ours = bootstrap.permutation_p(ratio, means(before), means(after), 20_000, 0)
    assert ours == pytest.approx(theirs, abs=5 * (theirs * (1 - theirs) / 20_000) ** 0.5)


def test_p_and_scores_are_sacrebleus(monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "1")
    rng = np.random.default_rng(0)
    expected = ["".join(rng.choice(list("abc "), 12)) for _ in range(25)]

    def damaged(share):
        return ["".join(c if rng.random() > share else "x" for c in text) for text in expected]

    before, after = damaged(0.3), damaged(0.26)
    library = chrf.CHRF(references=[expected])
    systems = [("before", before), ("after", after)]
    _, scores = PairedTest(systems, {"chrf": library}, None, "ar", n_samples=4000)()
    unlike, theirs = scores["chrF2"]
    config = default()
    config.eval.metrics = "chrf"
    metric = metrics.of(config, expected)["chrf"]
    ours = bootstrap.difference(
        metric, *(metric.statistics(texts, expected) for texts in (before, after)), resamples=4000
    )
    assert ours.value == pytest.approx(theirs.score - unlike.score, rel=1e-12)
    spread = (2 * theirs.p_value * (1 - theirs.p_value) / 4000) ** 0.5
    assert 0.01 < theirs.p_value < 0.5
    assert ours.p == pytest.approx(theirs.p_value, abs=5 * spread)
    assert ours.low < ours.value < ours.high


def test_right_and_wrong_use_the_closed_forms():
    rng = np.random.default_rng(0)
    before, after = rng.random(50) < 0.4, rng.random(50) < 0.7
    share = mean("share", lambda p, e: p == e)
    assert bootstrap.interval(share, means(after)) == stats.wilson(int(after.sum()), 50)
    ours = bootstrap.difference(share, means(before), means(after))
    assert (ours.value, ours.low, ours.high) == stats.paired_difference(before, after)
    assert ours.p == stats.mcnemar(before, after)
    # Not for the same numbers of another metric, nor for scores between.
    assert bootstrap.interval(MEAN, means(after)) != bootstrap.interval(share, means(after))
    half = means(after * 0.5)
    assert bootstrap.interval(share, half) == bootstrap.interval(MEAN, half)
    low, high = bootstrap.interval(share, means(np.zeros(20)))
    assert low == 0 and high == pytest.approx(0.1611, abs=5e-5)


def test_rows_that_tell_nothing():
    one, alike = rows(0, 1), np.tile([3.0, 2.0], (7, 1))
    # How much larger the loss of another row may be, nobody knows.
    seen, other = float(LOSS.value(one[0])), 1 - stats.wilson(1, 1)[0]
    assert bootstrap.interval(LOSS, one) == (pytest.approx((1 - other) * seen), np.inf)
    low, high = bootstrap.interval(LOSS, alike)
    assert low == pytest.approx(1.5 * stats.wilson(7, 7)[0]) and high == np.inf
    assert bootstrap.interval(MEAN, means([2.0, 2.0])) == (-np.inf, np.inf)
    assert bootstrap.difference(LOSS, one, 2 * one).p == 1.0
    same = bootstrap.difference(LOSS, rows(0, 9), rows(0, 9))
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    # Three rows moved alike: the interval has no width, but 2 of 8 exchanges are as large.
    moved = bootstrap.difference(MEAN, means([1, 2, 3]), means([2, 3, 4]))
    assert (moved.low, moved.high) == pytest.approx((1, 1), rel=1e-12)
    assert moved.p == pytest.approx(0.25, abs=0.03)


def test_rounding_is_no_difference():
    """Every row moves by as much, on top of values a million times larger: 2 of 64 are as large."""
    before = means(1e6 + np.array([0.1, 0.2, 0.3, 0.7, 0.9, 1.1]))
    after = means(before[:, 0] + 1e-2)
    p = bootstrap.permutation_p(ratio, before, after, 20_000, 0)
    assert p == pytest.approx(2 / 64, abs=0.006)


def test_p_is_never_zero():
    ours = bootstrap.difference(MEAN, means(np.arange(40.0)), means(np.arange(40.0) + 9))
    assert ours.p == 1 / 2001


def test_no_rows_and_unequal_rows():
    with pytest.raises(ValueError, match="no rows"):
        bootstrap.interval(LOSS, np.zeros((0, 2)))
    with pytest.raises(ValueError, match="not the same rows"):
        bootstrap.difference(LOSS, rows(0, 3), rows(0, 4))


scores = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)


@settings(max_examples=30)
@given(scores)
def test_any_scores_have_sane_numbers(pairs):
    before, after = (means(column) for column in zip(*pairs, strict=True))
    ours = bootstrap.difference(MEAN, before, after, resamples=200)
    assert ours.low <= ours.value <= ours.high and 0 < ours.p <= 1
    back = bootstrap.difference(MEAN, after, before, resamples=200)
    assert (back.value, back.low, back.high) == pytest.approx((-ours.value, -ours.high, -ours.low))
    assert back.p == ours.p


@pytest.mark.slow
@pytest.mark.parametrize("n, draw, truth, least", [
    (12, lambda rng, n: rng.normal(size=n), 0.0, 0.93),
    (12, lambda rng, n: rng.beta(0.3, 1.0, n), 0.3 / 1.3, 0.90),
    (100, lambda rng, n: rng.beta(0.3, 1.0, n), 0.3 / 1.3, 0.93),
])  # fmt: skip
def test_coverage(n, draw, truth, least):
    """95 % intervals hold the truth about that often: 1,000 test sets, ± 0.007."""
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(1000):
        low, high = bootstrap.interval(MEAN, means(draw(rng, n)), resamples=1000, seed=trial)
        held += low <= truth <= high
    assert least <= held / 1000 <= 0.97


@pytest.mark.slow
def test_false_alarms():
    """Of two arms that are the same, p is below 0.05 at most as often as it says."""
    rng = np.random.default_rng(0)
    alarms = 0
    for trial in range(1000):
        before, after = (means(rng.beta(0.3, 1.0, 20)) for _ in range(2))
        alarms += bootstrap.permutation_p(ratio, before, after, 400, trial) < 0.05
    assert alarms / 1000 <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5
