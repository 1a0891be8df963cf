"""What ``sft eval judge`` refuses, and which rows it takes."""

import json

import pytest
from judge_server import serving
from judged_run import command, honest, result, run, write_predictions

__all__ = ["run"]  # a fixture


@pytest.mark.parametrize(
    "words, fragments",
    [
        (["--checkpoint=latest"], ["no predictions of 'latest'", "some of base, best"]),
        (["--checkpoint=7"], ["no predictions of 'step7'. Run sft eval --checkpoint=7."]),
        (
            ["--checkpoint=base.2shot"],
            ["Run sft eval --checkpoint=base --config.eval.shots=2. There are some of base"],
        ),
        (["--config.judge.mode=pairwise", "--checkpoint=base"], ["judge.against", "another arm"]),
        (["--config.judge.model="], ["config.judge.model is not set"]),
        (["--config.judge.key_variable=NO_KEY"], ["$NO_KEY is not set"]),
        (["--config.judge.mode=both"], ["expected one of ('pointwise', 'pairwise')"]),
        (["--config.judge.low=5"], ["config.judge.high = 5", "above config.judge.low = 5"]),
        (["--config.judge.backend=local", "--config.judge.temperature=-1"], ["needs 0 or more"]),
        (["--config.judge.retrys=1"], ["no such key", "judge.retries"]),
        (["--ratings=a.csv"], ["--ratings is of sft eval calibrate"]),
    ],
)
def test_bad_input(run, capsys, words, fragments):
    assert command(run, "http://127.0.0.1:9", *words) == 2
    error = capsys.readouterr().err
    assert all(fragment in error for fragment in fragments), error


@pytest.mark.parametrize(
    "change, fragments",
    [
        (lambda rows: [], ["best.test.predictions.jsonl: no predictions in it"]),
        (lambda rows: [rows[0] | {"expected": " "}], [":1: a prediction without a reference"]),
        (lambda rows: [rows[0], {"a": 1}], [":2: 'source' is not as sft eval writes it"]),
    ],
)
def test_bad_predictions(run, capsys, change, fragments):
    path = run / "eval" / "best.test.predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))
    assert command(run, "http://127.0.0.1:9") == 2
    error = capsys.readouterr().err
    assert all(fragment in error for fragment in fragments), error


def test_arms_of_different_data_are_not_compared(run, capsys):
    path = run / "eval" / "base.test.predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[::-1]))
    assert command(run, "http://127.0.0.1:9", "--config.judge.mode=pairwise") == 2
    assert "base.test.predictions.jsonl:1: another prompt" in capsys.readouterr().err
    path.write_text("".join(lines[1:]))
    assert command(run, "http://127.0.0.1:9", "--config.judge.mode=pairwise") == 2
    assert "7 rows, but" in capsys.readouterr().err


def test_a_sample_is_drawn_by_seed(run):
    drawn = []
    with serving(honest) as (server, url):
        for count in (3, 5):
            server.requests.clear()
            words = (f"--config.judge.max_examples={count}", "--config.judge.seed=1")
            assert command(run, url, *words) == 0
            drawn.append(result(run)["count"])
    assert drawn == [3, 5] and len(server.requests) == 2  # the smaller is part of the larger
    assert result(run)["rows"] == 8


def test_an_arm_with_a_dot_in_its_name(run):
    write_predictions(run, "base.4shot", 4)
    with serving(honest) as (_, url):
        assert command(run, url, "--checkpoint=base.4shot") == 0
    assert result(run, "base.4shot")["score"] == 3.0
    with serving(honest) as (_, url):
        assert command(run, url, "--checkpoint=base") == 0
    assert result(run, "base")["set"] == "test"


def test_answers_that_were_cut_are_said_to_be(run, capsys):
    path = run / "eval" / "best.test.predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    with serving(honest) as (_, url):
        assert command(run, url) == 0  # of a file from before they were counted
        assert result(run)["answers_cut"] == {} and "were cut" not in capsys.readouterr().out
        cut = [row | {"cut": i < 2} for i, row in enumerate(rows)]
        path.write_text("".join(json.dumps(row) + "\n" for row in cut))
        assert command(run, url) == 0
    assert result(run)["answers_cut"] == {"best": 2}
    assert "25.0 % of best's answers were cut (2/8)" in capsys.readouterr().out
