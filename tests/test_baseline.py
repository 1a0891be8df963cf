"""The base model is scored before tuning, once for each model, data and prompt."""

import json
import shutil

import pytest
import tiny_run

from sft.eval import harness

shared, registered = tiny_run.shared, tiny_run.registered


@pytest.fixture
def calls(monkeypatch):
    """One entry for each set that is answered."""
    found, answer = [], harness.answer
    monkeypatch.setattr(harness, "answer", lambda *args: found.append(1) or answer(*args))
    return found


def read(run, arm="base"):
    text = (run / "eval" / f"{arm}.test.predictions.jsonl").read_text()
    result = json.loads((run / "eval" / f"{arm}.test.json").read_text())
    return result, [json.loads(line) for line in text.splitlines()]


def test_train_scores_the_base_first_and_eval_finds_it(shared, tmp_path, calls, capsys):
    words = ("--config.train.baseline=True", "--config.train.epochs=1")
    assert shared.main("train", tmp_path, *words) == 0
    assert len(calls) == 1 and "base on test: exact match" in capsys.readouterr().out
    trained = read(tmp_path)
    assert shared.main("eval", tmp_path, *words, "--checkpoint=base") == 0
    assert len(calls) == 1 and read(tmp_path) == trained
    # The untuned state is the base model that sft eval loads.
    other = tmp_path / "other"
    assert shared.main("eval", other, *words, "--checkpoint=base", "--config.eval.cache=") == 0
    assert len(calls) == 2
    ours, theirs = (
        {k: v for k, v in found[0].items() if k not in ("seconds", "peak_rss_bytes")}
        for found in (trained, read(other))
    )
    assert ours == theirs and trained[1] == read(other)[1]


def test_runs_share_their_baseline_and_nothing_else_does(shared, tmp_path, calls):
    cache = f"--config.eval.cache={tmp_path / 'cache'}"

    def made(name, *more):
        calls.clear()
        assert shared.main("eval", tmp_path / name, "--checkpoint=base", cache, *more) == 0
        return len(calls)

    assert made("a") == 1
    assert made("b", "--config.optim.learning_rate=1.0", "--config.lora.rank=2") == 0
    assert read(tmp_path / "a")[1] == read(tmp_path / "b")[1]
    assert made("c", "--config.eval.max_new_tokens=2") == 1
    assert made("d", "--config.eval.metrics=exact_match,chrf") == 1
    assert made("e", f"--config.data.test={shared.path / 'validation.jsonl'}") == 1
    assert made("f", "--config.model.dtype=bfloat16") == 1
    weights = shutil.copy(shared.path / "weights.safetensors", tmp_path / "other.safetensors")
    assert made("g", f"--config.model.weights={weights}") == 1
    assert made("h", "--config.eval.batch_size=4") == 0
    assert shared.main("train", tmp_path / "t", cache, "--config.train.epochs=1") == 0
    assert shared.main("eval", tmp_path / "t", cache, "--config.train.epochs=1") == 0
    calls.clear()  # what is tuned is not the base
    again = tmp_path / "t2"
    assert shared.main("train", again, cache, "--config.train.epochs=1") == 0
    assert shared.main("eval", again, cache, "--config.train.epochs=1") == 0
    assert len(calls) == 1


def test_examples_in_the_prompt_have_an_arm_of_their_own(shared, tmp_path, calls):
    words = ("--checkpoint=base", "--config.eval.shots=2")
    assert shared.main("eval", tmp_path, *words) == 0
    assert len(calls) == 2
    (zero, zero_rows), (two, two_rows) = read(tmp_path), read(tmp_path, "base.2shot")
    assert (zero["arm"], two["arm"]) == ("base", "base.2shot")
    assert [row["prompt"] for row in zero_rows] == [row["prompt"] for row in two_rows]
    assert two["shots"]["left_out"] == 0 and "shots" not in zero
    assert two["loss"] != zero["loss"]  # of the same answers, after other words
    assert [r["trained"] for r in two_rows] == [r["trained"] for r in zero_rows]


def test_a_metric_that_does_not_suit_stops_training_before_it_starts(shared, tmp_path, capsys):
    words = ("--config.train.baseline=True", "--config.eval.metrics=json_fields")
    assert shared.main("train", tmp_path, *words) == 2
    assert "json_fields does not fit the set" in capsys.readouterr().err
    assert not (tmp_path / "metrics.jsonl").exists()


def test_every_metric_is_that_of_its_rows(shared, tmp_path):
    words = ("--checkpoint=base", "--config.eval.metrics=exact_match,chrf,token_f1")
    assert shared.main("eval", tmp_path, *words) == 0
    result, rows = read(tmp_path)
    assert list(result["metrics"]) == [
        *("exact_match", "chrf", "token_f1"),
        *("loss", "perplexity", "token_accuracy"),
    ]
    nll, trained = (sum(row[key] for row in rows) for key in ("nll", "trained"))
    assert result["metrics"]["loss"]["value"] == pytest.approx(nll / trained) == result["loss"]
    right = sum(row["right_tokens"] for row in rows)
    assert result["metrics"]["token_accuracy"]["value"] == right / trained
    for found in result["metrics"].values():
        low, high = found["interval"]
        assert low <= found["value"] <= high
    assert result["metrics"]["exact_match"]["interval"] == result["exact_match_interval"]
    assert all(row["scores"]["loss"] == pytest.approx(row["nll"] / row["trained"]) for row in rows)
