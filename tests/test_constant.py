"""What needs no model: the most frequent label and a random one, against every draw."""

import itertools

import numpy as np
import pytest

from sft.config import default
from sft.eval import constant, lines, metrics, stats

EXPECTED = ["a"] * 3 + ["b"] * 2 + ["c"]


def config_of(names="exact_match,accuracy,macro_f1,micro_f1", **knobs):
    config = default()
    config.eval.update(metrics=names, **knobs)
    return config


def test_the_majority_is_scored_as_a_model_that_always_says_it():
    found = constant.scored(config_of(), EXPECTED, "a", "training")["majority"]
    assert (found["label"], found["known_from"]) == ("a", "training")
    assert found["metrics"]["exact_match"]["value"] == 0.5
    assert found["metrics"]["exact_match"]["interval"] == list(stats.wilson(3, 6))
    assert found["metrics"]["macro_f1"]["value"] == pytest.approx((2 * 3 / 9) / 3)
    assert "loss" not in found["metrics"] and "label_accuracy" not in found["metrics"]


def test_the_random_label_is_the_mean_of_every_draw():
    config, labels = config_of(), ("a", "b", "c")
    drawn = constant.scored(config, EXPECTED, "a", "set")["random"]
    assert drawn["labels"] == 3
    made = metrics.of(config, EXPECTED)
    for name in ("exact_match", "accuracy", "micro_f1"):
        every = [
            float(made[name].value(made[name].statistics(list(draw), EXPECTED).sum(0)))
            for draw in itertools.product(labels, repeat=len(EXPECTED))
        ]
        assert drawn["metrics"][name]["value"] == pytest.approx(np.mean(every))
    counts = sum(
        made["macro_f1"].statistics(list(draw), EXPECTED).sum(0)
        for draw in itertools.product(labels, repeat=len(EXPECTED))
    )
    # Of the expected counts, which is not the mean of F1 over draws.
    assert drawn["metrics"]["macro_f1"]["value"] == pytest.approx(
        float(made["macro_f1"].value(counts))
    )


def test_ranked_labels_and_labels_that_are_not_expected():
    found = constant.scored(config_of("exact_match"), EXPECTED, "d", "training", tuple("abcd"))
    assert found["majority"]["metrics"]["label_accuracy"]["value"] == 0
    assert found["random"]["labels"] == 4
    assert found["random"]["metrics"]["label_accuracy"]["value"] == 0.25


def test_first_lines():
    config = config_of("exact_match", compare="first_line")
    found = constant.scored(config, ["a\nbecause", "a", "b"], "a", "set")
    assert found["majority"]["metrics"]["exact_match"]["value"] == pytest.approx(2 / 3)
    assert found["random"]["labels"] == 2


def test_the_line():
    found = constant.scored(config_of("accuracy"), EXPECTED, "a", "training")
    assert lines.constants({"constant": found}) == (
        "without a model: always 'a', the most frequent answer of training: accuracy 50.0 % "
        "[18.8 to 81.2 %]; one of 3 labels at random: accuracy 33.3 %"
    )
    assert lines.constants({}) == ""
