import collections
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.data.conversation import Conversation, Turn
from sft.data.sets import splits
from sft.errors import UserError

SHARES = {"validation": 0.1, "test": 0.2}


def row(text, group="", category="", origin=""):
    turns = (Turn("user", text), Turn("model", "yes"))
    return Conversation(turns, None, f"data.jsonl:{text}", origin, group, category)


def contents(rows, found):
    """What lies in each split, whatever its index."""
    return {name: sorted(rows[i].source for i in indices) for name, indices in found.items()}


ROWS = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from(["", "a", "b", "c", "d"])),
    min_size=40,
    max_size=120,
)


@settings(max_examples=50, deadline=None)
@given(ROWS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_a_partition_by_whole_groups_that_the_order_of_rows_cannot_change(pairs, seed, rng):
    rows = [row(str(text), group) for text, group in pairs]
    rows += [row(f"alone {i}") for i in range(100)]
    found = splits.assign(rows, SHARES, seed, "")
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(len(rows)))
    assert all(indices.dtype == np.int64 for indices in found.values())
    where = {i: name for name, indices in found.items() for i in indices.tolist()}
    homes = collections.defaultdict(set)
    for index, item in enumerate(rows):
        homes[item.group or item.turns].add(where[index])
    assert all(len(names) == 1 for names in homes.values())
    shuffled = rng.sample(rows, len(rows))
    again = splits.assign(shuffled, SHARES, seed, "")
    assert contents(shuffled, again) == contents(rows, found)


def test_shares_are_reached_and_passed_by_less_than_a_group():
    rows = [row(str(i), group=str(i // 3)) for i in range(3000)]
    found = splits.assign(rows, SHARES, 0, "")
    assert 300 <= len(found["validation"]) < 303
    assert 600 <= len(found["test"]) < 603
    single = splits.assign([row(str(i)) for i in range(1000)], {"validation": 0.07}, 0, "")
    assert len(single["validation"]) == 70
    assert len(splits.assign(rows, {"test": 0.0}, 0, "")["test"]) == 0


def test_seeds_differ_and_rows_added_later_move_few():
    rows = [row(str(i)) for i in range(1000)]
    first, other = (splits.assign(rows, {"test": 0.2}, seed, "")["test"] for seed in (0, 1))
    assert 20 < len(np.intersect1d(first, other)) < 60  # 40 by chance
    more = splits.assign([*rows, *(row(f"new {i}") for i in range(50))], {"test": 0.2}, 0, "")
    kept = np.intersect1d(first, more["test"])
    assert len(kept) >= 180


@pytest.mark.parametrize("stratify", ["category", "origin"])
def test_strata_have_the_same_share(stratify):
    sizes = {"rare": 20, "common": 980, "half": 500}
    rows = [row(f"{name} {i}", **{stratify: name}) for name, n in sizes.items() for i in range(n)]
    found = splits.assign(rows, SHARES, 3, stratify)
    for split, share in SHARES.items():
        counts = collections.Counter(getattr(rows[i], stratify) for i in found[split])
        for name, size in sizes.items():
            assert abs(counts[name] - share * size) <= 1


def test_many_small_strata_have_their_share_together():
    rows = [row(f"{i}", category=str(i // 4)) for i in range(400)]
    assert len(splits.assign(rows, {"test": 0.05}, 0, "category")["test"]) == 20


def test_a_group_that_spans_categories_is_of_its_most_frequent_one():
    """All groups have two rows of "many" and one of "few", so "few" is no stratum at all."""
    rows = [
        row(f"{g} {i}", str(g), "few" if i == 0 else "many") for g in range(30) for i in (0, 1, 2)
    ]
    rows += [row(f"alone {i}", category="few") for i in range(10)]
    found = splits.assign(rows, {"test": 0.1}, 0, "category")
    assert sum(not rows[i].group for i in found["test"]) == 1
    assert sum(bool(rows[i].group) for i in found["test"]) == 9


def test_content_is_what_is_said_and_not_where():
    one = row("a b")
    same = Conversation(one.turns, None, "other.jsonl:9", "origin", "group", "category")
    assert splits.content(one) == splits.content(same)
    others = [
        row("a  b"),
        Conversation(one.turns, "", "x"),
        Conversation(one.turns, "system", "x"),
        Conversation((one.turns[0], Turn("model", "yes", trained=False)), None, "x"),
        Conversation((Turn("user", "a bmodel"), Turn("model", "yes")), None, "x"),
    ]
    assert len({splits.content(c) for c in [one, *others]}) == 6


def test_the_hash_seed_of_the_process_does_not_matter():
    code = (
        "import test_splits as t; rows = [t.row(str(i), str(i // 2)) for i in range(60)];"
        "print(t.contents(rows, t.splits.assign(rows, t.SHARES, 0, '')))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent)},
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def ten(**changes):
    return [row(str(i), **changes) for i in range(10)]


@pytest.mark.parametrize(
    ("rows", "shares", "stratify", "message"),
    [
        (ten(), {"validation": 0.01}, "", r"data\.split\.validation = 0\.01: 10 .* give it no row"),
        (ten(group="g"), {"test": 0.1}, "", r"10 training rows in 1 groups leave none for"),
        (ten(group="g"), SHARES, "", r"data\.split\.test = 0\.2: 10 .* in 1 groups"),
        (ten(), {"test": 0.5, "validation": 0.5}, "", "leave no rows for training"),
        (ten(), {"test": -0.1}, "", r"data\.split\.test = -0\.1: expected 0 to below 1"),
        (ten(), {"test": 0.1}, "label", r"stratify = 'label': expected one of"),
        ([*ten(category="c"), row("x")], SHARES, "category", r"jsonl:x: no cat.* 1 of 11 rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_split(rows, shares, stratify, message):
    with pytest.raises(UserError, match=message) as error:
        splits.assign(rows, shares, 0, stratify)
    assert "\n" not in str(error.value)
