"""Differences between sets: found where they were put, not found where there is only chance."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from test_audit import conversation, make_set
from test_tokenizer import tiny

from sft.data.audit import effects, skew, tokens

WORDS = ["the", "an", "in", "than", "tune", "model", "user", "mind", "amen", "order", "nine"]


def rows(count, seed=0, system=None, ask="{}", answer="{}", turns=1, words=(4, 12)):
    """Random words, in the forms given."""
    rng = np.random.default_rng(seed)

    def text(form):
        return form.format(" ".join(rng.choice(WORDS, rng.integers(*words))).capitalize())

    return [
        conversation(*(text(f) for _ in range(turns) for f in (ask, answer)), system=system)
        for _ in range(count)
    ]


def view(name, conversations):
    one = make_set(conversations)
    counts = tokens.row_counts(one.examples)
    return skew.view_of_set(name, conversations, one.examples, counts.prompt, counts.response)


def differing(left, right):
    found = skew.compare(view("train", left), view("test", right))
    return [feature["feature"] for feature in found["features"] if feature["differs"]]


def test_shares_by_cohen_and_fisher():
    found = effects.share("x", "format", [True] * 3 + [False], [False] * 4)
    assert (found.left, found.right) == (0.75, 0)
    assert found.effect == pytest.approx(2 * math.pi / 3)  # 2 asin √¾ = 2π/3
    assert found.p == pytest.approx(2 * 4 / math.comb(8, 3))


def test_numbers_by_kolmogorov_and_smirnov():
    left, right = np.arange(100), np.arange(100) + 50
    found = effects.numbers("x", "length", left, right)
    assert found.effect == pytest.approx(0.5) and found.p < 1e-6
    assert (found.left, found.right) == (49.5, 99.5)


def test_mixes_by_total_variation_with_rare_categories_as_one():
    found = effects.mix("x", "language", ["a"] * 50 + ["b"] * 50, ["a"] * 90 + ["b"] * 10)
    assert found.effect == pytest.approx(0.4)
    expected = stats.chi2_contingency([[50, 50], [90, 10]])[1]
    assert found.p == pytest.approx(expected)
    mixed = ["a"] * 50 + [f"l{i}" for i in range(50)]
    found = effects.mix("x", "language", mixed, ["a"] * 100)
    assert found.effect == pytest.approx(0.5) and found.p < 1e-9
    rare = [f"l{i}" for i in range(50)], [f"r{i}" for i in range(50)]
    assert effects.mix("x", "language", *rare).effect == 0
    assert effects.mix("x", "language", *rare).p == 1


def test_divergence_is_from_nothing_to_one_bit():
    assert effects.divergence(np.array([1, 2, 0]), np.array([10, 20, 0])) == pytest.approx(0)
    assert effects.divergence(np.array([3, 0]), np.array([0, 5])) == pytest.approx(1)
    # p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4): half of log2(4/3) and of 1/2 log2(2/3) + 1/2.
    expected = (math.log2(4 / 3) + 0.5 * math.log2(2 / 3) + 0.5) / 2
    assert effects.divergence(np.array([4, 0]), np.array([1, 1])) == pytest.approx(expected)


def test_short_samples_are_not_accused_of_their_vocabulary():
    rng = np.random.default_rng(0)
    accused = 0
    for trial in range(20):
        left = [rng.zipf(1.3, 30) % 5000 for _ in range(200)]
        right = [rng.zipf(1.3, 15) % 5000 for _ in range(25)]
        found = effects.vocabulary(left, right, trial)
        assert found
        accused += found.differs
    assert accused <= 1
    other = [rng.zipf(1.3, 15) % 5000 + 100 for _ in range(25)]
    found = effects.vocabulary(left, other)
    assert found and found.differs
    assert effects.vocabulary(left, other[:3]) is None  # 45 tokens tell nothing


def test_unseen_tokens():
    left = [np.array([1, 2]), np.array([2])]
    found = effects.unseen(left, [np.array([2, 3, 3]), np.array([3, 4])])
    assert found == {"types": pytest.approx(2 / 3), "tokens": pytest.approx(4 / 5)}
    assert effects.unseen(left, []) == {"types": 0, "tokens": 0}


def holm(ps: list[float]) -> list[float]:
    differences = [effects.Difference("x", "g", 0, 0, 1, "KS distance", p) for p in ps]
    return [difference.p for difference in effects.holm(differences)]


def test_holm_published():
    """The example of a step-down table as worked by hand: sorted p times 4, 3, 2, 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.04]) == [0.04] and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_is_the_closed_test_of_bonferroni(ps):
    """One is called only if every set of hypotheses with it is rejected (Marcus et al., 1976)."""

    def closed(i):
        others = [j for j in range(len(ps)) if j != i]
        sets = [(i, *more) for k in range(len(ps)) for more in itertools.combinations(others, k)]
        return max(min(1, len(s) * min(ps[j] for j in s)) for s in sets)

    assert holm(ps) == pytest.approx([closed(i) for i in range(len(ps))])


def test_a_small_effect_does_not_count_however_many_rows():
    left, right = [True] * 5000 + [False] * 5000, [True] * 5400 + [False] * 4600
    found = effects.share("x", "format", left, right)
    assert found.p < 1e-6 and not found.differs


def test_halves_of_one_set_look_alike():
    for seed in range(5):
        assert differing(rows(150, seed), rows(60, 100 + seed)) == []


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        ({"system": "Be brief."}, "system instruction present"),
        ({"ask": "Please tell me: {}"}, "prompt: first three words"),
        ({"ask": "{}?"}, "prompt: question mark at the end"),
        ({"ask": "- {}\n- x"}, "prompt: list"),
        ({"answer": '{{"a": "{}"}}'}, "response: JSON"),
        ({"answer": "```\n{}\n```"}, "response: code fence"),
        ({"ask": "дом и улица в городе {}", "words": (1, 2)}, "prompt: script"),
        ({"words": (20, 40)}, "prompt: tokens"),
        ({"turns": 3}, "turns of the user"),
    ],
)
def test_a_planted_difference_is_named(change, feature):
    assert feature in differing(rows(100), rows(50, 7, **change))


def test_casing_is_told_from_rows_that_have_case():
    lower = [conversation(c.turns[0].text.lower(), "x") for c in rows(60)]
    assert "prompt: all lower case" in differing(rows(100, answer="x"), lower)
    unspaced = [conversation("这是什么" + str(i), "x") for i in range(60)]
    assert not [name for name in differing(rows(100, answer="x"), unspaced) if "case" in name]


def test_another_instruction_is_found_where_both_have_one():
    found = differing(rows(100, system="Be brief."), rows(50, 7, system="Be long."))
    assert found == ["which system instruction"]
    long = "You are a careful assistant of a company that sells " + "very " * 20
    found = differing(rows(100, system=long + "old."), rows(50, 7, system=long + "new."))
    assert found == ["which system instruction"]


def test_the_verdict_says_what_and_what_to_do():
    pair = skew.compare(view("train", rows(100, system="Be brief.")), view("test", rows(50, 7)))
    assert pair["differs"] == 1 and pair["told"]
    assert pair["verdict"] == (
        "test differs from train in 1 way: system instruction present (train 100 %, test 0 %)."
    )
    assert pair["remedies"] == [skew.REMEDIES["instruction"]]
    alike = skew.compare(view("train", rows(100)), view("test", rows(50, 7)))
    assert alike["verdict"].startswith("test looks like train in all ")
    assert set(skew.REMEDIES) >= {feature["group"] for feature in alike["features"]}


def test_few_rows_cannot_tell():
    pair = skew.compare(view("train", rows(100)), view("test", rows(19)))
    assert not pair["told"] and pair["features"] == [] and "19 rows" in pair["verdict"]


def test_production_is_compared_by_its_prompts_alone():
    prompts = [conversation(c.turns[0].text) for c in rows(60, 3)]
    found = skew.compare(view("train", rows(100)), skew.view_of_prompts("p", prompts, tiny()))
    assert found["differs"] == 0
    assert not [f for f in found["features"] if f["feature"].startswith("response")]


def test_prompt_tokens_are_counted_alike_with_and_without_answers():
    some = rows(30, turns=2)
    left, right = view("train", some), skew.view_of_prompts("p", some, tiny())
    np.testing.assert_array_equal(left.prompt_tokens, right.prompt_tokens)
    for one, other in zip(left.prompts, right.prompts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_samples_are_seeded_and_sorted():
    chosen = skew.sample(10_000)
    assert len(chosen) == len(set(chosen)) == 2000 and list(chosen) == sorted(chosen)
    np.testing.assert_array_equal(chosen, skew.sample(10_000))
    np.testing.assert_array_equal(skew.sample(5), np.arange(5))
