"""Intervals and tests against published values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.eval.stats import mcnemar, paired_difference, wilson


def pairs(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


# Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3.
@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published(correct, count, low, high):
    assert wilson(correct, count) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_share_and_stays_in_range(case):
    correct, count = case
    low, high = wilson(correct, count)
    assert 0 <= low <= correct / count + 1e-12 and correct / count - 1e-12 <= high <= 1
    wide_low, wide_high = wilson(correct, count, 0.99)
    assert wide_low <= low and high <= wide_high


# Tuberculosis cultures of Armitage and Berry (1994), p. 127, and airway hyper-responsiveness of
# Bentur et al. (2009): exact p = 0.0129 and 0.0703.
@pytest.mark.parametrize(
    ("table", "p"), [((20, 12, 2, 16), 0.0129), ((1, 1, 7, 12), 0.0703), ((9, 0, 0, 9), 1.0)]
)
def test_mcnemar_published(table, p):
    assert mcnemar(*pairs(*table)) == pytest.approx(p, abs=5e-5)


# Newcombe (1998), Statistics in Medicine 17:2635-2650, table II, method 10; the last is Bentur et
# al. (2009) as given by Fagerland, Lydersen and Laake (2014). Their difference is ours negated.
@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((36, 14, 0, 0), 0.1528, 0.4167),
        ((18, 14, 0, 18), 0.1441, 0.3963),
        ((1, 1, 7, 12), -0.5069, -0.0256),
    ],
)
def test_paired_difference_published(table, low, high):
    a, b = pairs(*table)
    expected = ((table[1] - table[2]) / len(a), low, high)
    assert paired_difference(b, a) == pytest.approx(expected, abs=5e-5)


counts = st.tuples(*[st.integers(0, 40)] * 4).filter(lambda table: sum(table) > 0)


@given(counts)
def test_swapping_the_arms_negates_the_difference(table):
    a, b = pairs(*table)
    difference, low, high = paired_difference(a, b)
    assert -1 <= low <= difference <= high <= 1
    swapped = paired_difference(b, a)
    assert swapped == pytest.approx((-difference, -high, -low), abs=1e-12)
    assert mcnemar(a, b) == pytest.approx(mcnemar(b, a))


def test_unequal_lengths_are_refused():
    for function in (mcnemar, paired_difference):
        with pytest.raises(ValueError):
            function([True], [True, False])
