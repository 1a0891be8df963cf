"""Agreement against the libraries and by hand, intervals, and people's scores from few ratings."""

import itertools

import numpy as np
import pytest
from scipy.stats import linregress, norm, spearmanr
from sklearn.metrics import cohen_kappa_score

from sft.eval import stats
from sft.eval.judge import agreement, bias, corrected, resample, tables

DOMAIN = range(1, 6)


def make_ratings(n=80, raters=3, missing=0.2, seed=0):
    """Raters who mostly see the same, on a scale of 1 to 5."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(1, 6, n)[:, None]
    ratings = np.clip(truth + rng.integers(-1, 2, (n, raters)), 1, 5).astype(float)
    ratings[rng.random((n, raters)) < missing] = np.nan
    return ratings


def test_kappa_by_hand():
    """Both say yes 20 times, no 15; they differ 5 and 10 times: (0.7 - 0.5) / (1 - 0.5)."""
    pairs = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
    found = agreement.measure(np.array(pairs, float), [0, 1])
    assert found["kappa"]["value"] == pytest.approx(0.4, abs=1e-12)
    assert found["rows"] == 50
    low, high = found["kappa"]["interval"]
    # The large-sample standard error of Fleiss, Cohen and Everitt (1969) is 0.127 here.
    assert low == pytest.approx(0.4 - 1.96 * 0.127, abs=0.04)
    assert high == pytest.approx(0.4 + 1.96 * 0.127, abs=0.04)


@pytest.mark.parametrize("name", agreement.NAMES)
@pytest.mark.parametrize("pairs", [None, [(0, 1), (0, 2)]])
def test_values_are_the_libraries_mean_over_pairs(name, pairs):
    ratings = make_ratings()
    values, weights = [], []
    for a, b in pairs or itertools.combinations(range(3), 2):
        both = np.isfinite(ratings[:, a]) & np.isfinite(ratings[:, b])
        x, y = ratings[both, a].astype(int), ratings[both, b].astype(int)
        scheme = "quadratic" if name == "weighted_kappa" else None
        values.append(
            spearmanr(x, y).statistic
            if name == "spearman"
            else cohen_kappa_score(x, y, labels=list(DOMAIN), weights=scheme)
        )
        weights.append(both.sum())
    found = agreement.measure(ratings, DOMAIN, pairs)
    assert found[name]["value"] == pytest.approx(np.average(values, weights=weights), abs=1e-12)


def test_alpha_is_krippendorffs_own():
    import krippendorff

    ratings = make_ratings()
    want = krippendorff.alpha(ratings.T, level_of_measurement="ordinal", value_domain=[*DOMAIN])
    assert agreement.measure(ratings, DOMAIN)["alpha"]["value"] == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_tables_give_what_the_libraries_give(seed):
    """So the intervals are of the same quantities as the values."""
    ratings = make_ratings(seed=seed, raters=4, missing=0.4)
    ratings[ratings == 3] = 4  # a value of the scale that nobody gives
    pairs = list(itertools.combinations(range(4), 2))
    found = agreement.measure(ratings, DOMAIN)
    joint = tables.joint(ratings, DOMAIN, pairs).sum(0)
    for name in agreement.NAMES:
        ours = tables.of_pairs(name, len(pairs), 5)(joint)
        assert ours == pytest.approx(found[name]["value"], abs=1e-12), name
    with np.errstate(invalid="ignore"):
        ours = tables.alpha(5)(tables.coincidences(ratings, DOMAIN).sum(0))
    assert ours == pytest.approx(found["alpha"]["value"], abs=1e-12)


def test_intervals_are_of_the_libraries_on_resampled_rows():
    """A brute force: the library called on each of the same draws."""
    ratings = make_ratings(n=30, raters=2, missing=0.0)
    found = agreement.measure(ratings, DOMAIN, seed=3)["weighted_kappa"]
    drawn = np.random.default_rng(3).integers(0, 30, (2000, 30))
    counts = np.array([np.bincount(rows, minlength=30) for rows in drawn], float)
    x, y = ratings.astype(int).T
    values = [
        cohen_kappa_score(x, y, labels=[*DOMAIN], weights="quadratic", sample_weight=c)
        for c in counts[:60]
    ]
    joint = tables.joint(ratings, DOMAIN, [(0, 1)])
    ours = tables.of_pairs("weighted_kappa", 1, 5)(counts @ joint)
    np.testing.assert_allclose(ours[:60], values, atol=1e-12)
    np.testing.assert_allclose(found["interval"], np.quantile(ours, [0.025, 0.975]), atol=1e-12)


def test_undefined_is_said_to_be():
    same = np.full((10, 2), 4.0)
    for name in ("kappa", "weighted_kappa", "spearman", "alpha"):
        assert agreement.measure(same, DOMAIN)[name] == {"value": None, "interval": None}
    apart = np.array([[1, np.nan], [np.nan, 2], [3, np.nan]])
    found = agreement.measure(apart, DOMAIN)
    assert found["rows"] == 0 and found["alpha"]["value"] is None


def test_interval_of_a_mean():
    values = np.random.default_rng(0).normal(3, 1, 400)
    low, high = resample.mean_interval(values)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)
    # All alike, five rows still allow others: Wilson's interval, on the scale of the scores.
    least = stats.wilson(5, 5)[0]
    assert resample.mean_interval(np.ones(5), (0, 1)) == pytest.approx((least, 1.0))
    assert resample.mean_interval(np.full(5, 5.0), (1, 5)) == pytest.approx((1 + 4 * least, 5.0))
    low, high = resample.mean_interval(np.full(5, 3.0), (1, 5))
    assert low == pytest.approx(3 - 2 * (1 - least)) and high == pytest.approx(3 + 2 * (1 - least))


PEOPLE = np.array([(7 * i % 5) + 1 for i in range(20)], float)
JUDGE = np.array([min(5, max(1, (7 * i % 5) + 1 + (i % 3) - 1)) for i in range(20)], float)
REST = np.array([(3 * i % 5) + 1 - (i % 4 == 0) * ((3 * i % 5) > 0) for i in range(50)], float)
# Printed by ppi_mean_pointestimate and ppi_mean_ci of ppi-python 0.2.3 for these three.
GOLD = [
    (None, 2.901797620268746, 2.5031762137723694, 3.3004190267651223),
    (1.0, 2.8499999999999996, 2.366818191745917, 3.3331818082540825),
    (0.0, 3.0, 2.3802049676954384, 3.6197950323045616),
]


@pytest.mark.parametrize("weight, value, low, high", GOLD)
def test_correction_is_that_of_its_authors_package(weight, value, low, high):
    found = corrected.mean(PEOPLE, JUDGE, REST, weight=weight)
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high), abs=1e-9)
    assert (found.rated, found.judged) == (20, 50)


def test_the_tuned_weight_has_the_shortest_interval():
    def width(weight):
        found = corrected.mean(PEOPLE, JUDGE, REST, weight=weight)
        return found.high - found.low

    best = corrected.mean(PEOPLE, JUDGE, REST).weight
    n, N = 20, 50
    assert 0 < best < 1
    # Population variances differ between the two samples, so the optimum is of the pooled one.
    pooled = np.concatenate([JUDGE, REST]).var(ddof=1)
    covariance = np.mean(PEOPLE * JUDGE) - PEOPLE.mean() * JUDGE.mean()
    assert best == pytest.approx(covariance / ((1 + n / N) * pooled), abs=1e-12)
    assert width(best) < min(width(0.0), width(1.0))


def test_people_alone():
    half = norm.ppf(0.975) * PEOPLE.std() / 20**0.5
    for judge, rest in ((JUDGE, np.array([])), (np.full(20, 3.0), np.full(50, 3.0))):
        found = corrected.mean(PEOPLE, judge, rest)
        assert found.weight == 0
        assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), abs=1e-12)
    with pytest.raises(ValueError, match="fewer than two"):
        corrected.mean(PEOPLE[:1], JUDGE[:1], REST)


@pytest.mark.slow
@pytest.mark.parametrize("noise, shorter", [(0.3, 0.75), (3.0, 1.02)])
def test_the_interval_covers(noise, shorter):
    """A judge that is a point too kind: its own mean is wrong, the corrected one covers at 95 %."""
    rng = np.random.default_rng(0)
    covered = widths = plain = 0.0
    for _ in range(4000):
        truth = rng.normal(3, 1, 600)
        judge = truth + 1 + rng.normal(0, noise, 600)
        found = corrected.mean(truth[:100], judge[:100], judge[100:])
        covered += found.low <= 3 <= found.high
        widths += found.high - found.low
        plain += 2 * 1.96 * truth[:100].std() / 10
    assert covered / 4000 == pytest.approx(0.95, abs=0.015)  # four standard errors
    assert widths / plain < shorter


def test_length_bias_is_the_slope_of_least_squares():
    rng = np.random.default_rng(0)
    lengths = rng.uniform(3, 9, 200)
    beyond = 0.5 * lengths + rng.normal(0, 1, 200)
    found = bias.length(beyond, lengths)
    want = linregress(lengths, beyond)
    assert found["slope"] == pytest.approx(want.slope, abs=1e-12)
    low, high = found["interval"]
    assert low == pytest.approx(want.slope - 1.97 * want.stderr, abs=0.02)
    assert high == pytest.approx(want.slope + 1.97 * want.stderr, abs=0.02)
    assert bias.length(beyond, np.full(200, 5.0)) == {"slope": None, "interval": None}


def test_place():
    found = bias.place([1] * 60 + [0] * 20 + [-1] * 20)
    assert found["bias"] == pytest.approx(0.4) and 0.2 < found["interval"][0] < 0.4
