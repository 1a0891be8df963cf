"""Several seeds, and when a difference is called one."""

import math

import numpy as np
import pytest
import scipy.stats

from sft.eval import seeds
from sft.eval.verdict import Difference, verdict

# Student's own: additional hours of sleep with two drugs, the same ten patients (1908, table 1).
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_published_differences():
    """As R's documentation of t.test has them for these data."""
    welch = seeds.difference(DRUG_1, DRUG_2)
    assert welch.p == pytest.approx(0.07939, abs=5e-6)
    assert (welch.low, welch.high) == pytest.approx((-0.2054832, 3.3654832), abs=5e-8)
    paired = seeds.difference(DRUG_1, DRUG_2, paired=True)
    assert paired.p == pytest.approx(0.002833, abs=5e-7)
    assert (paired.low, paired.high) == pytest.approx((0.7001142, 2.4598858), abs=5e-8)
    assert welch.value == paired.value == pytest.approx(1.58)


def test_summary_is_students_interval():
    values = [0.61, 0.64, 0.59]
    ours = seeds.summary(values)
    theirs = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    assert (ours.low, ours.high) == pytest.approx(theirs, rel=1e-12)
    assert (ours.count, ours.mean) == (3, pytest.approx(np.mean(values)))
    assert ours.deviation == pytest.approx(np.std(values, ddof=1))
    assert seeds.summary(values, 0.8).low > ours.low


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5], [0.1 + 0.2, 0.3], [0.0, 0.0]])
def test_seeds_that_do_not_tell(values):
    ours = seeds.summary(values)
    assert (ours.deviation, ours.low, ours.high) == (0, -math.inf, math.inf)
    for paired in (False, True):
        other = [value + 0.1 for value in values]
        found = seeds.difference(values, other, paired=paired)
        assert found.value == pytest.approx(0.1)
        assert (found.low, found.high, found.p) == (-math.inf, math.inf, 1.0)
        assert verdict(found, "higher") == "unclear"


def test_one_seed_against_many_does_not_tell():
    assert seeds.difference([0.5], [0.6, 0.7, 0.8]).p == 1.0
    with pytest.raises(ValueError, match="1 before and 3 after"):
        seeds.difference([0.5], [0.6, 0.7, 0.8], paired=True)


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [math.inf]])
def test_no_scores(values):
    with pytest.raises(ValueError, match="finite scores"):
        seeds.summary(values)
    with pytest.raises(ValueError, match="finite scores"):
        seeds.difference([0.1, 0.2], values)


@pytest.mark.parametrize("low, high, p, better, word", [
    (0.1, 0.3, 0.01, "higher", "better"),
    (0.1, 0.3, 0.01, "lower", "worse"),
    (-0.3, -0.1, 0.01, "higher", "worse"),
    (-0.3, -0.1, 0.01, "lower", "better"),
    (0.1, 0.3, 0.06, "higher", "unclear"),
    (-0.1, 0.3, 0.01, "higher", "unclear"),
    (0.0, 0.3, 0.01, "higher", "unclear"),
    (0.1, 0.3, 0.05, "higher", "unclear"),
    (0.1, 0.3, math.nan, "higher", "unclear"),
])  # fmt: skip
def test_verdict(low, high, p, better, word):
    assert verdict(Difference((low + high) / 2, low, high, p), better) == word


def test_verdict_knows_its_directions_and_level():
    found = Difference(0.2, 0.1, 0.3, 0.02)
    assert verdict(found, "higher", significance=0.01) == "unclear"
    regular = Difference(8e-6, 7e-6, 9e-6, 0.0005)  # packed and unpacked, say
    assert verdict(regular, "lower") == "unclear"
    with pytest.raises(ValueError, match="expected 'higher' or 'lower'"):
        verdict(found, "up")
