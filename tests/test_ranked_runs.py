"""Labels ranked by likelihood, in runs: every arm, the headline, training, constant answers."""

import json
from collections import Counter

import pytest
import tiny_run
from test_answers import checked, long_set, read

from sft.report import findings, terminal
from sft.report.load import load_run

shared, registered = tiny_run.shared, tiny_run.registered


@pytest.fixture(scope="module")
def run(shared, tmp_path_factory):
    """A trained run of which nothing has been evaluated."""
    return shared.copy("done", tmp_path_factory.mktemp("ranked") / "run")


LABELS = "--config.eval.labels=expected"


@pytest.fixture(scope="module")
def labelled(shared, tmp_path_factory):
    """Both arms with ranked labels."""
    run = shared.copy("done", tmp_path_factory.mktemp("labelled") / "run")
    words = [LABELS, "--config.eval.shots=2"]
    assert shared.main("eval", run, "--checkpoint=base", *words) == 0
    assert shared.main("eval", run, *words) == 0
    return run


def test_labels_are_ranked_for_every_arm(labelled):
    for arm in ("base", "base.2shot", "best"):
        result, rows = read(labelled, arm)
        assert result["labels"] == list("bcdefghi") and result["primary"] == "label_accuracy"
        right = 0
        for row in rows:
            assert len(row["log_likelihoods"]) == 8 == row["ranks"]
            best = max(range(8), key=row["log_likelihoods"].__getitem__)
            assert row["ranked"] == result["labels"][best]  # all labels have one letter
            assert row["ranked_norm"] == row["ranked"]
            right += row["ranked"] == row["expected"]
            assert row["scores"]["label_accuracy"] == (row["ranked"] == row["expected"])
        found = result["metrics"]["label_accuracy"]
        assert found["value"] == right / 12 and found["interval"][0] <= found["value"]
        assert {"label_macro_f1", "label_accuracy_norm"} <= result["metrics"].keys()
    assert read(labelled)[0]["metrics"]["label_accuracy"]["value"] > 0.5


def test_the_headline_is_the_metric_that_was_asked_for(labelled):
    text = terminal.render(load_run(labelled))
    found = findings.compare(load_run(labelled), "test")
    base, best = (
        read(labelled, a)[0]["metrics"]["label_accuracy"]["value"] for a in ("base", "best")
    )
    assert found.metric == "label_accuracy" and found.paired[0] == pytest.approx(best - base)
    assert found.verdict == "better" and f"label accuracy {100 * base:.1f} % →" in found.sentence
    assert "test: tuning helped, label accuracy" in text and "exact match" in text
    assert "base: cut at 3 tokens" in text and "without a model: always" in text


def test_constant_answers_are_of_training(shared, labelled, tmp_path, capsys):
    counts = Counter(row["output_text"] for row in tiny_run.toy_rows("train", 96))
    most = max(counts.values())
    result, _ = read(labelled)
    found = result["constant"]["majority"]
    assert found["known_from"] == "training"
    assert found["label"] == min(label for label, count in counts.items() if count == most)
    test = Counter(row["output_text"] for row in tiny_run.toy_rows("test", 12))
    assert found["metrics"]["label_accuracy"]["value"] == test[found["label"]] / 12
    # Without the training set it is that of the set itself, and this is said.
    run = shared.copy("done", tmp_path / "run")
    gone = "--config.data.train=/none.jsonl"
    assert shared.main("eval", run, "--checkpoint=base", gone, LABELS) == 2  # another run's
    (run / "config.json").unlink()
    assert shared.main("eval", run, "--checkpoint=base", gone, LABELS) == 0
    out, err = capsys.readouterr()
    assert "the labels are those of the evaluated sets alone: /none.jsonl" in err
    result, _ = read(run, "base")
    assert result["constant"]["majority"]["known_from"] == "set"
    assert result["labels"] == sorted(test) and "the most frequent answer of this set" in out


def test_labels_that_are_named(shared, run, capsys):
    words = ["--checkpoint=base", "--config.eval.labels=b,c,d,e,f,g,h"]
    missing = [row["output_text"] for row in tiny_run.toy_rows("test", 12)]
    assert "i" in missing
    assert shared.main("eval", run, *words) == 2
    error = capsys.readouterr().err
    assert f"test.jsonl:{missing.index('i') + 1}: the expected answer 'i' is not among" in error
    assert shared.main("eval", run, words[0], words[1] + ",i, z") == 0
    result, rows = read(run, "base")
    assert result["labels"] == [*"bcdefghi", "z"] and all(row["ranks"] == 9 for row in rows)


def test_answers_that_are_no_labels_are_not_ranked(shared, run, tmp_path, capsys):
    every = [f"{a}{b}" for a in "abcdef" for b in "abcde"]
    words = ["--checkpoint=base", "--config.eval.metrics=chrf"]
    assert shared.main("eval", run, *words, long_set(tmp_path, every), LABELS) == 2
    error = capsys.readouterr().err
    assert "long has 30 different answers in 30 rows, which are not labels" in error
    assert checked(shared, tmp_path / "long.jsonl", metrics="chrf").labels == ()  # the remedy


def test_a_set_of_different_answers_has_no_constant_ones(shared, tmp_path):
    long_set(tmp_path, ["b", "c", "b c"])
    found = checked(shared, tmp_path / "long.jsonl")
    assert found.majority is None and found.known_labels is None and found.labels == ()
    long_set(tmp_path, ["b", "c", "b", "c"])
    found = checked(shared, tmp_path / "long.jsonl")
    assert found.majority and {"b", "c"} <= found.known_labels
    # As they are compared: by their first lines these are two labels.
    long_set(tmp_path, ["b\nfor a", "c\nfor b", "b\nfor c", "c"])
    assert checked(shared, tmp_path / "long.jsonl", metrics="chrf").majority is None
    how = {"compare": "first_line", "max_new_tokens": 9}
    found = checked(shared, tmp_path / "long.jsonl", **how)
    assert found.majority and "b\nfor a" not in found.known_labels


def test_training_chooses_by_ranked_labels(shared, tmp_path):
    words = ["--config.train.select=label_accuracy", "--config.eval.during_training=12", LABELS]
    assert shared.main("train", tmp_path, *words) == 0
    rows = shared.rows(tmp_path, "validation")
    assert all(
        {"label_accuracy", "label_macro_f1", "exact_match", "cut"} <= row.keys() for row in rows
    )
    chosen = json.loads((tmp_path / "selection.json").read_text())
    best = max(row["label_accuracy"] for row in rows[1:])
    tied = [row for row in rows[1:] if row["label_accuracy"] == best]
    assert chosen["step"] == min(tied, key=lambda row: row["loss"])["step"]
    assert chosen["metric"] == "label_accuracy" and best > 0.5


def test_answers_generated_otherwise_are_said_to_be(labelled, shared, tmp_path):
    run = shared.copy(labelled, tmp_path / "run")
    assert "generated with other settings" not in terminal.render(load_run(run))
    assert shared.main("eval", run, LABELS, "--config.eval.max_new_tokens=4") == 0
    text = terminal.render(load_run(run))
    assert "config.eval.max_new_tokens = 3 and 4. Run `sft eval` for both with the same." in text
