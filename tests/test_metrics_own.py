"""A metric from a user's file, and what is said when it is wrong."""

import numpy as np
import pytest

from sft.config import default
from sft.errors import UserError
from sft.eval import metrics

FILE = """
import numpy as np
from sft.eval.metrics import Metric

def same_length(predicted, expected):
    return len(predicted) == len(expected)

def statistics(predicted, expected):
    return np.array([[abs(len(p) - len(e)), 1.0] for p, e in zip(predicted, expected)])

off = Metric("anything", "lower", "v2", statistics, lambda sums: (sums[..., 0] / sums[..., 1]) ** 2)

def one_argument(predicted): return 1.0
def text(predicted, expected): return "good"
def not_finite(predicted, expected): return float("nan") if predicted == "bb" else 1.0
def fails(predicted, expected):
    return {}[predicted]
number = 3
sideways = Metric("sideways", "left", None, statistics, off.value)
flat = Metric("flat", "higher", None, lambda p, e: np.zeros(len(p)), off.value)
short = Metric("short", "higher", None, lambda p, e: np.zeros((1, 2)), off.value)
vector = Metric("vector", "higher", None, statistics, lambda sums: sums)
infinite = Metric("infinite", "higher", None, statistics, lambda sums: sums[..., 0] * np.inf + 1)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def of(entries, expected=("a", "bb")):
    config = default()
    config.eval.metrics = entries
    return metrics.of(config, list(expected))


def test_a_function_and_a_metric(file):
    found = of(f"exact_match, {file}:same_length, {file}:off")
    assert list(found) == ["exact_match", "same_length", "off"]
    predicted, expected = ["x", "yyyy"], ["a", "bb"]
    rows = found["same_length"].statistics(predicted, expected)
    assert float(found["same_length"].value(rows.sum(0))) == 0.5
    assert found["same_length"].better == "higher" and found["same_length"].is_mean
    rows = found["off"].statistics(predicted, expected)
    assert found["off"].value(np.stack([rows.sum(0), rows[1]])).tolist() == [1.0, 4.0]
    assert found["off"].name == "off" and found["off"].better == "lower"
    metrics.check(found, "test", expected, expected)


def test_the_signature_changes_with_the_file(file):
    before = of(f"{file}:off")["off"].signature
    assert before.startswith(f"v2|{file}:off|sha256:")
    file.write_text(FILE + "# changed\n")
    assert of(f"{file}:off")["off"].signature != before


@pytest.mark.parametrize("name, complaint", [
    ("same_lenght", r"has no same_lenght\. Did you mean 'same_length'"),
    ("number", r"number is a int: expected a function \(predicted, expected\)"),
    ("one_argument", "one_argument is a function: expected a function"),
    ("sideways", "better = 'left': expected 'higher' or 'lower'"),
])  # fmt: skip
def test_wrong_when_loaded(file, name, complaint):
    with pytest.raises(UserError, match=complaint):
        of(f"{file}:{name}")


@pytest.mark.parametrize("name, complaint", [
    ("text", "no finite number for row 1 .*'a'"),
    ("not_finite", r"no finite number for row 2 \(predicted 'bb', expected 'bb'\)"),
    ("fails", r"mine\.py:17: KeyError: 'a'"),
    ("flat", r"statistics\(\) of 2 rows gave \(2,\): expected numbers shaped \[2, k\]"),
    ("short", r"statistics\(\) of 2 rows gave \(1, 2\)"),
    ("vector", r"value\(\) of sums \(2,\) gave"),
    ("infinite", r"expected finite numbers"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:invalid value")
def test_wrong_when_checked_before_generation(file, name, complaint):
    found = of(f"{file}:{name}")
    with pytest.raises(UserError, match=complaint):
        metrics.check(found, "test", ["a", "bb"], ["f:1", "f:2"])


def test_files_that_cannot_be_run(tmp_path):
    path = tmp_path / "bad.py"
    with pytest.raises(UserError, match=r"bad\.py:f: no such file as .*bad\.py"):
        of(f"{path}:f")
    path.write_text("x = 1\nraise ValueError('no')\n")
    with pytest.raises(UserError, match=r"bad\.py:2: ValueError: no"):
        of(f"{path}:f")
    path.write_text("def f(:\n")
    with pytest.raises(UserError, match=r"bad\.py:1: "):
        of(f"{path}:f")
