"""The report speaks of the metric that a set is about, and of what stands beside it."""

import json
import re

import pytest
from run_directory import make_run, write_json, write_lines

from sft.eval import faults
from sft.report import findings, html, terminal
from sft.report.load import load_run


def read(path):
    return json.loads(path.read_text())


def scored(run, arm, predicted, metric, better="higher"):
    """Predictions of an arm, and a result that is about ``metric``."""
    path = run / "eval" / f"{arm}.test.json"
    lines = path.with_suffix(".predictions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for i, row in enumerate(rows):
        said = predicted(row, i)
        kind = None if said == row["expected"] else "other"
        row |= {"predicted": said, "correct": said == row["expected"], "cut": i % 3 == 0}
        row |= {"error": kind, "nll": 1.0, "right_tokens": 1, "trained": 2}
    write_lines(path.with_suffix(".predictions.jsonl"), rows)
    right = sum(row["correct"] for row in rows)
    entry = {"value": 0.0, "interval": [0.0, None], "better": better, "signature": None}
    more = {
        "primary": metric,
        "metrics": {metric: entry},
        "cut": 30,
        "max_new_tokens": 12,
        "errors": faults.summary(rows),
        "settings": {"eval.metrics": metric, "eval.max_new_tokens": 12 if arm == "base" else 16},
        "correct": right,
        "exact_match": right / len(rows),
    }
    write_json(path, read(path) | more)


@pytest.fixture
def run(tmp_path):
    path = make_run(tmp_path / "run")
    scored(path, "base", lambda row, i: "xyz", "token_f1")
    scored(path, "best", lambda row, i: row["expected"] if i % 4 else "xyz", "token_f1")
    return path


def test_the_verdict_is_of_that_metric(run):
    found = findings.compare(load_run(run), "test")
    assert (found.metric, found.verdict, found.pairs) == ("token_f1", "better", 90)
    assert found.paired[0] == pytest.approx(67 / 90)
    assert "test: tuning helped, token F1 0.0 % → 0.0 % (+74.4 points" in found.sentence
    assert "McNemar" not in found.sentence
    # The set that says nothing of the kind is about exact match.
    assert findings.compare(load_run(run), "test_held_out").metric == "exact_match"


def test_a_metric_that_only_one_has_gives_way_to_exact_match(run):
    path = run / "eval" / "base.test.json"
    record = read(path)
    write_json(path, record | {"metrics": {}, "primary": "chrf"})
    found = findings.compare(load_run(run), "test")
    assert found.metric == "exact_match" and "exact match 0.0 % → 74.4 %" in found.sentence


def test_the_course_of_a_metric_is_named_by_its_direction(run):
    def sentence(verdict, difference):
        pair = (difference, difference, difference, 0.0)
        comparison = findings.Comparison("test", "mine", None, None, pair, 9, verdict, "")
        return findings._course(comparison)

    assert sentence("worse", -0.1) == "mine on test did too"
    assert sentence("worse", 0.1) == "mine on test rose"  # of an error, that is worse
    assert sentence("better", 0.1) == "mine on test rose"
    assert sentence("better", -0.1) == "mine on test fell"


def test_what_was_cut_and_what_is_wrong_stand_beside_the_scores(run):
    loaded = load_run(run)
    text = terminal.render(loaded)
    assert (
        "    base: cut at 12 tokens 33.3 % (30/90), 90 of 90 answers wrong: 30 cut at 12 tokens; "
        "90 other; 90 say 'xyz'\n" in text
    )
    assert "tuned (best): cut at 12 tokens 33.3 % (30/90), 23 of 90 answers wrong" in text
    assert "config.eval.max_new_tokens = 12 and 16. Run `sft eval` for both" in text
    page = html.render(loaded)
    assert "90 of 90 answers wrong" in page and "0.0 to unknown" not in page


def test_a_warning_of_the_selection_is_shown(run):
    path = run / "selection.json"
    assert "chose nothing" not in terminal.render(load_run(run))
    write_json(path, read(path) | {"warning": "exact match chose nothing."})
    assert "note: exact match chose nothing." in terminal.render(load_run(run))
    assert "exact match chose nothing." in html.render(load_run(run))


def test_the_metric_that_chose_and_what_was_cut_are_in_the_table(run):
    path = run / "selection.json"
    selection = read(path)
    for i, epoch in enumerate(selection["epochs"]):
        epoch |= {"exact_match": i / 4, "cut": 0.5}
    write_json(path, selection | {"metric": "exact_match"})
    text = terminal.render(load_run(run))
    assert "val token acc  exact match  answers cut" in text
    assert re.search(r" 50\.0 % +50\.0 %  <- chosen", text)
