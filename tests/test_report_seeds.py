"""Runs that differ in their seed, taken together, on run directories made here."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from run_directory import make_run, write_eval, write_json
from test_report import parse

from sft.report import compare, groups, html, terminal
from sft.report.load import load_run


def seeded(folder: Path, name: str, seed: int, right: int, **settings) -> Path:
    """A run that answers so many of 90 prompts as expected."""
    path = make_run(folder / name)
    config = json.loads((path / "config.json").read_text())
    config["config"] |= {"seed": seed} | settings
    write_json(path / "config.json", config)
    chosen = set(random.Random(name).sample(range(90), right))
    write_eval(path, "best", "test", [i in chosen for i in range(90)])
    return path


def over_seeds(*paths: Path) -> list[groups.Group]:
    comparison = compare.compare([load_run(path) for path in paths])
    return groups.of(next(table for table in comparison.tables if table.name == "test"))


SLOW, FAST = [50, 54, 55], [64, 66, 61]


@pytest.fixture
def six(tmp_path):
    """Two learning rates with three seeds each, named in another order than that of the seeds."""
    slow = [seeded(tmp_path, f"slow{s}", s, n) for s, n in zip((2, 0, 1), SLOW, strict=True)]
    rate = {"optim.learning_rate": 0.005}
    fast = [
        seeded(tmp_path, f"fast{s}", s, n, **rate) for s, n in zip((0, 1, 2), FAST, strict=True)
    ]
    return [*slow, *fast]


def test_mean_spread_and_paired_test_of_two_configurations(six):
    slow, fast = over_seeds(*six)
    assert (slow.label, fast.label) == (
        "optim.learning_rate = 0.001",
        "optim.learning_rate = 0.005",
    )
    assert slow.seeds == fast.seeds == [0, 1, 2]
    a, b = np.array([54, 55, 50]) / 90, np.array(FAST) / 90
    score = slow.scores["exact_match"]
    assert (score.mean, score.deviation) == pytest.approx((a.mean(), a.std(ddof=1)))
    interval = scipy.stats.t.interval(0.95, 2, a.mean(), scipy.stats.sem(a))
    assert (score.low, score.high) == pytest.approx(interval)
    change = fast.changes["exact_match"]
    test = scipy.stats.ttest_rel(b, a)
    assert (change.value, change.p) == pytest.approx(((b - a).mean(), test.pvalue))
    assert change.verdict == "better" and slow.changes == {}


def test_other_seeds_are_not_paired(six, tmp_path):
    more = seeded(tmp_path, "slow3", 3, 52)
    slow, fast = over_seeds(*six, more)
    assert slow.seeds == [0, 1, 2, 3] and fast.seeds == [0, 1, 2]
    a, b = np.array([54, 55, 50, 52]) / 90, np.array(FAST) / 90
    expected = scipy.stats.ttest_ind(b, a, equal_var=False).pvalue
    assert fast.changes["exact_match"].p == pytest.approx(expected)


def test_a_single_seed_or_the_same_run_twice_is_no_group(six, tmp_path):
    again = seeded(tmp_path, "again", 0, 50)
    assert over_seeds(six[0], six[3]) == []
    assert over_seeds(six[1], again) == []
    (group,) = over_seeds(six[0], six[1], again, six[3])
    assert group.label == "slow0, slow2" and group.seeds == [0, 2]


def test_seeds_that_are_all_alike_tell_nothing(tmp_path):
    paths = [seeded(tmp_path, f"a{s}", s, 45) for s in range(3)]
    paths += [seeded(tmp_path, f"b{s}", s, 80, **{"lora.rank": 4}) for s in range(3)]
    _, other = over_seeds(*paths)
    assert other.changes["exact_match"].verdict == "unclear"
    comparison = compare.compare([load_run(path) for path in paths])
    text = terminal.markdown(comparison)
    assert "50.0 % ± unknown" in text and "+38.9, p = 1.0000: unclear" in text and "inf" not in text


def test_an_interval_ends_where_the_metric_does(tmp_path):
    (group,) = over_seeds(*(seeded(tmp_path, f"a{s}", s, n) for s, n in enumerate((60, 88))))
    score = group.scores["exact_match"]
    assert (score.low, score.high) == (0.0, 1.0)  # Student's t: -1.2 to 2.8
    assert group.scores["loss"].low == -math.inf  # the same loss twice: nothing is known


def test_page_and_table(six):
    comparison = compare.compare([load_run(path) for path in six])
    page = html.render_comparison(comparison)
    assert "Over seeds of training" in parse(page).text
    assert "58.9 % ± 2.9 % [51.6 %, 66.2 %]" in page
    assert 'class="is-better">+11.9 (' in page
    text = terminal.markdown(comparison)
    assert "| test, over seeds " in text and "| optim.learning_rate = 0.005 | 0, 1, 2 " in text
    alone = html.render_comparison(compare.compare([load_run(six[0]), load_run(six[3])]))
    assert "Over seeds" not in alone
