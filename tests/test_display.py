"""One form for one quantity."""

import math

import pytest

from sft.config.check import METRICS
from sft.eval import metrics
from sft.run import display


@pytest.mark.parametrize("value, metric, text, difference", [
    (0.965, "exact_match", "96.5 %", "+96.5"),
    (0.0, "macro_f1", "0.0 %", "+0.0"),
    (1.0, "token_accuracy", "100.0 %", "+100.0"),
    (0.01174, "loss", "0.0117", "+0.0117"),
    (12.5, "loss", "12.5000", "+12.5000"),
    (40.678, "perplexity", "40.68", "+40.68"),
    (34.25, "bleu", "34.2", "+34.2"),
    (-0.5, "mine", "-0.5", "-0.5"),
    (math.inf, "loss", "unknown", "unknown"),
    (None, "loss", "unknown", "unknown"),
])  # fmt: skip
def test_values(value, metric, text, difference):
    assert display.score(value, metric) == text
    assert display.change(value, metric) == difference


@pytest.mark.parametrize("low, high, metric, text", [
    (0.942, 0.979, "exact_match", "94.2 to 97.9 %"),
    (0.0105, 0.0139, "loss", "0.0105 to 0.0139"),
    (0.0, None, "loss", "0.0000 to unknown"),
    (None, None, "mine", "unknown"),
    (-math.inf, 1.0, "mine", "unknown to 1"),
])  # fmt: skip
def test_intervals(low, high, metric, text):
    assert display.interval(low, high, metric) == text


def test_every_metric_between_0_and_1_is_a_share():
    """What is shown in per cent is what cannot leave 0 to 1, and nothing else."""
    from sft.config import default

    config = default()
    config.eval.metrics, config.eval.pattern = ",".join(METRICS), "a"
    found = metrics.of(config, ["a b c d"]) | metrics.LIKELIHOOD
    for name, metric in found.items():
        assert display.score(0.5, name).endswith("%") == (metric.bounds == (0.0, 1.0)), name


def test_names_and_counts():
    assert [display.name(m) for m in ("exact_match", "macro_f1", "rougeL", "my_own")] == [
        "exact match", "macro F1", "ROUGE-L", "my own",
    ]  # fmt: skip
    assert display.counted(1, "answer") == "1 answer"
    assert display.counted(1200, "reply", "replies") == "1,200 replies"
    assert display.p_value(0.00001) == "p < 0.0001" and display.p_value(0.04) == "p = 0.0400"
