import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.config import default
from sft.data.read.records import Conversation, Turn
from sft.errors import UserError
from sft.eval import subset


def config_of(**mine):
    config = default()
    config.mine.update(mine)
    return config


def rows_of(losses, categories=None, right=None):
    categories = categories or [""] * len(losses)
    rows = [
        {"source": f"a.jsonl:{i + 1}", "loss": loss, "category": category}
        for i, (loss, category) in enumerate(zip(losses, categories, strict=True))
    ]
    return [row | ({"exact_match": right[i]} if right else {}) for i, row in enumerate(rows)]


def conversation(text, group="", number=0, answer="b"):
    turns = (Turn("user", text), Turn("model", answer))
    return Conversation(turns, None, f"a.jsonl:{number}", "a.jsonl", group)


def test_hardest_first_and_equals_in_their_order():
    assert subset.rank(rows_of([1.0, 3.0, 2.0, 3.0])) == [1, 3, 2, 0]
    right = [False, True, False, True]
    assert subset.rank(rows_of([1.0, 3.0, 2.0, 3.0], right=right)) == [2, 0, 1, 3]


LOSSES = [0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6, 0.0]  # row i is 10 * loss-th from below


@pytest.mark.parametrize(
    "mine, chosen",
    [
        ({"share": 0.2}, [0.9, 0.8]),
        ({"share": 0.26}, [0.9, 0.8, 0.7]),
        ({"share": 1.0}, sorted(LOSSES, reverse=True)),
        ({"select": "band", "low": 0.7, "high": 1.0}, [0.9, 0.8, 0.7]),
        ({"select": "band", "low": 0.3, "high": 0.7}, [0.6, 0.5, 0.4, 0.3]),
        ({"select": "band", "low": 0.0, "high": 0.1}, [0.0]),
    ],
)
def test_what_is_chosen(mine, chosen):
    found = subset.choose(rows_of(LOSSES), config_of(**mine))
    assert [LOSSES[i] for i in found] == chosen


def test_each_category_by_itself():
    categories = ["a" if loss >= 0.6 else "b" for loss in LOSSES]  # four and six rows
    rows = rows_of(LOSSES, categories)
    found = subset.choose(rows, config_of(share=0.5, per_category=True))
    assert [LOSSES[i] for i in found] == [0.9, 0.8, 0.5, 0.4, 0.3]
    band = {"select": "band", "low": 0.0, "high": 0.5, "per_category": True}
    found = subset.choose(rows, config_of(**band))
    assert [LOSSES[i] for i in found] == [0.7, 0.6, 0.2, 0.1, 0.0]


def test_wrong_answers_are_hardest_but_a_band_is_of_the_loss():
    rows = rows_of(LOSSES, right=[loss > 0.2 for loss in LOSSES])
    found = subset.choose(rows, config_of(share=0.4))
    assert [LOSSES[i] for i in found] == [0.2, 0.1, 0.0, 0.9]
    found = subset.choose(rows, config_of(select="band", low=0.1, high=0.4))
    assert [LOSSES[i] for i in found] == [0.2, 0.1, 0.3]


@given(st.lists(st.sampled_from([0.0, 1.0, 1.5, 2.0]), min_size=1, max_size=60), st.data())
def test_bands_divide_the_rows_and_the_last_is_the_hardest_share(losses, data):
    count = len(losses)
    cut = data.draw(st.integers(1, count))
    rows, low = rows_of(losses), (count - cut) / count
    hardest = subset.choose(rows, config_of(share=cut / count))
    upper = subset.choose(rows, config_of(select="band", low=low, high=1.0))
    assert upper == hardest and len(hardest) == cut
    if low > 0:
        lower = subset.choose(rows, config_of(select="band", low=0.0, high=low))
        assert sorted(lower + upper) == list(range(count))


@pytest.mark.parametrize(
    "mine, categories, fragments",
    [
        ({"share": 0.0}, "aaaa", ["config.mine.share = 0.0", "none of 4 training rows", "Widen"]),
        ({"share": 0.1}, "aaaa", ["config.mine.share = 0.1"]),
        ({"select": "band", "low": 0.3, "high": 0.4}, "aaaa", ["mine.low = 0.3, config.mine.high"]),
        ({"share": 0.3, "per_category": True}, "abcd", ["share = 0.3", "rows of each category"]),
        ({"per_category": True}, ["a", "a", "", "a"], ["a.jsonl:3", "data.reading.category"]),
    ],
)
def test_selections_that_cannot_be_made(mine, categories, fragments):
    with pytest.raises(UserError) as error:
        subset.choose(rows_of([1.0] * 4, list(categories)), config_of(**mine))
    assert all(fragment in str(error.value) for fragment in fragments), error.value
    assert "\n" not in str(error.value)


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["", "1", "2", "3", "4"])),
        min_size=1,
    ),
    st.sampled_from([0.01, 0.1, 0.3, 0.6]),
    st.integers(0, 3),
)
def test_no_group_and_no_text_on_both_sides(drawn, share, seed):
    rows = [conversation(text, group, i) for i, (text, group) in enumerate(drawn, start=1)]
    config = config_of(evaluate=share)
    config.data.split.seed = seed
    try:
        parts = subset.divide(rows, config)
    except UserError as error:
        assert "none is left to train on" in str(error)
        return
    assert sorted([*parts["train"], *parts["evaluate"]], key=rows.index) == rows
    for part in parts.values():
        assert part and part == [row for row in rows if row in part]
    train, evaluate = ({(row.turns, row.system) for row in part} for part in parts.values())
    assert not train & evaluate
    train, evaluate = ({row.group for row in part if row.group} for part in parts.values())
    assert not train & evaluate
    shuffled = random.Random(seed).sample(rows, len(rows))
    again = subset.divide(shuffled, config)
    assert {row.source for row in again["evaluate"]} == {row.source for row in parts["evaluate"]}


def test_groups_joined_by_a_text_stay_together():
    """Row 2 says what row 3 does, so the groups of both are one."""
    rows = [conversation("a", "1"), conversation("b", "1"), conversation("b ", "2")]
    rows += [conversation("c", "2"), conversation("d")]
    rows = [dataclasses.replace(row, source=f"a:{i}") for i, row in enumerate(rows)]
    for seed in range(8):
        config = config_of(evaluate=0.01)
        config.data.split.seed = seed
        sizes = sorted(len(part) for part in subset.divide(rows, config).values())
        assert sizes == [1, 4]


def test_the_share_and_the_seed():
    rows = [conversation(f"text {i}", number=i) for i in range(100)]
    parts = {}
    for seed in (0, 1):
        config = config_of(evaluate=0.1)
        config.data.split.seed = seed
        parts[seed] = subset.divide(rows, config)
        assert len(parts[seed]["evaluate"]) == 10
    assert parts[0]["evaluate"] != parts[1]["evaluate"]
    assert subset.divide(rows, config_of(evaluate=0.0)) == {"train": rows, "evaluate": []}
    # Half a row is less than one.
    assert len(subset.divide(rows[:5], config_of(evaluate=0.1))["evaluate"]) == 1


@pytest.mark.parametrize("rows, share", [
    ([conversation("a", "1"), conversation("b", "1")], 0.1),
    ([conversation("a"), conversation("a")], 0.1),
    ([conversation("a"), conversation("b")], 1.0),
    ([conversation("a")], 0.1),
])  # fmt: skip
def test_nothing_left_to_train_on(rows, share):
    with pytest.raises(UserError, match=rf"mine\.evaluate = {share}.* none is left to train on"):
        subset.divide(rows, config_of(evaluate=share))


def test_statistics_weigh_tokens_and_count_rows():
    given = [("x", 1.0, 0.5, 1), ("y", 2.0, 0.0, 3), ("x", 4.0, 1.0, 4)]
    rows = [
        {"category": c, "loss": loss, "token_accuracy": right, "trained_tokens": n}
        for c, loss, right, n in given
    ]
    found = subset.statistics(rows)
    assert found["loss"] == (1 + 6 + 16) / 8 and found["token_accuracy"] == (0.5 + 4) / 8
    assert found["quantiles"]["0.5"] == 2.0 and found["quantiles"]["1.0"] == 4.0
    assert found["quantiles"]["0.1"] == np.quantile([1.0, 2.0, 4.0], 0.1)
    assert "exact_match" not in found
    parts = subset.by([row | {"exact_match": row["loss"] != 4} for row in rows], "category")
    assert list(parts) == ["x", "y"]
    assert (parts["x"]["count"], parts["x"]["exact_match"]) == (2, 0.5)
