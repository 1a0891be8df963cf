"""Intervals where all answers are right, or all wrong: Wilson's, of any metric."""

import numpy as np
import pytest

from sft.config import default
from sft.eval import bootstrap, metrics, stats

EXPECTED = ["the cat sat on a mat", "the dog sat on a log", "no bird sat on any tree here"] * 4
WRONG = ["123 4567 890 12 3"] * 12
LABELS = ["a", "b", "c"] * 4


def statistics(name, predicted, expected):
    config = default()
    config.eval.metrics = name
    metric = metrics.of(config, expected)[name]
    return metric, metric.statistics(predicted, expected)


@pytest.mark.parametrize("name", ["bleu", "chrf", "token_f1", "rouge1", "rouge2", "rougeL"])
def test_texts_all_right_and_all_wrong(name):
    metric, right = statistics(name, EXPECTED, EXPECTED)
    _, wrong = statistics(name, WRONG, EXPECTED)
    full = 100.0 if name in ("bleu", "chrf") else 1.0
    low, high = bootstrap.interval(metric, right)
    assert high == full and 0.3 * full < low < 0.95 * full
    low, high = bootstrap.interval(metric, wrong)
    assert low == pytest.approx(0, abs=0.03 * full) and 0.05 * full < high < 0.7 * full
    found = bootstrap.difference(metric, wrong, right)
    assert found.value == pytest.approx(full, abs=0.03 * full)
    assert 0 < found.low < found.value - 0.1 * full and found.high <= full and found.p < 0.01


@pytest.mark.parametrize("name", ["accuracy", "micro_f1", "macro_f1"])
def test_labels_all_right_and_all_wrong(name):
    metric, right = statistics(name, LABELS, LABELS)
    _, wrong = statistics(name, LABELS[1:] + LABELS[:1], LABELS)
    low, high = bootstrap.interval(metric, right)
    assert high == 1 and low == pytest.approx(stats.wilson(12, 12)[0])
    low, high = bootstrap.interval(metric, wrong)
    assert low == 0 and high == pytest.approx(stats.wilson(0, 12)[1])
    # Of one label, there is no other to be taken for it.
    metric, alone = statistics(name, ["a"] * 5, ["a"] * 5)
    assert bootstrap.interval(metric, alone)[0] <= stats.wilson(5, 5)[0] + 0.2


def test_token_accuracy_is_wilsons_over_rows():
    metric = metrics.LIKELIHOOD["token_accuracy"]
    trained = np.array([3.0, 5, 2, 4, 6, 1])
    assert bootstrap.interval(metric, metric.statistics(trained, trained)) == (
        pytest.approx(stats.wilson(6, 6)[0]),
        1.0,
    )
    low, high = bootstrap.interval(metric, metric.statistics(0 * trained, trained))
    assert low == 0 and high == pytest.approx(stats.wilson(0, 6)[1])


def test_a_loss_of_nothing_has_no_upper_end():
    trained = np.array([3.0, 5, 2])
    for name, least in (("loss", 0.0), ("perplexity", 1.0)):
        metric = metrics.LIKELIHOOD[name]
        assert bootstrap.interval(metric, metric.statistics(0 * trained, trained)) == (
            least,
            np.inf,
        )


def test_one_row_is_between_the_ends():
    metric, row = statistics("chrf", ["the cat"], EXPECTED[:1])
    low, high = bootstrap.interval(metric, row)
    value = float(metric.value(row.sum(0)))
    assert 0 <= low < value / 2 and value < high <= 100


def test_no_interval_leaves_the_bounds():
    rng = np.random.default_rng(0)
    for name in ("bleu", "chrf", "macro_f1", "token_f1"):
        expected = EXPECTED if name != "macro_f1" else LABELS
        for _ in range(5):
            predicted = [e if rng.random() < 0.9 else "x" for e in expected]
            metric, rows = statistics(name, predicted, expected)
            low, high = bootstrap.interval(metric, rows, resamples=200)
            value = float(metric.value(rows.sum(0)))
            assert metric.bounds[0] <= low <= value <= high <= metric.bounds[1]
