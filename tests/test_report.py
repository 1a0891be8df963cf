"""The report, on run directories made here."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from run_directory import (
    EPOCHS,
    HEBREW,
    STEPS,
    make_run,
    metrics,
    write_eval,
    write_json,
    write_lines,
)

from sft.config import default, flatten
from sft.errors import UserError
from sft.eval import stats
from sft.report import findings, html, plots, terminal
from sft.report.load import load_run


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def edit(path: Path, **changes) -> None:
    write_json(path, json.loads(path.read_text()) | changes)


class Structure(HTMLParser):
    """Checks that elements nest, and collects ids, text and outside references."""

    VOID = ("meta", "br", "wbr", "img", "link", "hr", "path", "use", "rect", "input")

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.outside, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if "id" in attributes else []
        for name in ("src", "href", "xlink:href"):
            if not attributes.get(name, "#").startswith("#"):
                self.outside.append(attributes[name])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def parse(page: str) -> Structure:
    structure = Structure()
    structure.feed(page)
    assert structure.open == []
    return structure


def test_page_is_well_formed_self_contained_and_reproducible(workdir):
    page = html.render(load_run(workdir))
    structure = parse(page)
    assert len(structure.ids) == len(set(structure.ids))
    assert structure.outside == []
    assert "url(http" not in page and "<script" not in page and "@import" not in page
    assert page == html.render(load_run(workdir))


def test_headline_counts_and_statistics(workdir):
    run = load_run(workdir)
    test, held_out = (findings.compare(run, name) for name in ("test", "test_held_out"))
    assert (test.verdict, held_out.verdict) == ("better", "unclear")
    assert test.pairs == 90
    before = [i % 9 == 0 for i in range(90)]
    after = [i % 8 != 3 for i in range(90)]
    assert test.paired == (*stats.paired_difference(before, after), stats.mcnemar(before, after))
    assert "11.1 % → 87.8 % (+76.7 points" in test.sentence
    assert findings.headline([test, held_out]).startswith("Partly")
    assert findings.headline([test]) == "Yes, tuning helped."
    for text in (html.render(run), terminal.render(run)):
        assert "11.1 % → 87.8 % (+76.7 points" in text


def test_page_shows_data_config_and_environment(workdir):
    text = " ".join("".join(parse(html.render(load_run(workdir))).text).split())
    for expected in ("61,234", "3 empty answer", "cpu:0", "uncommitted changes", "1.77 GiB"):
        assert expected in text
    changed = [key for key, _, _ in findings.changed_config(load_run(workdir))]
    assert changed == ["data.train", "optim.learning_rate"]


def test_samples_put_wrong_answers_first_beside_the_base(workdir):
    chosen = findings.samples(load_run(workdir), "test")
    assert [s["is_right"] for s in chosen] == [False] * 5 + [True] * 5
    assert all(s["base"] is not None for s in chosen)
    sources = [s["source"] for s in chosen]
    assert len(set(sources)) == 10
    first = int(sources[0].rsplit(":", 1)[1]) - 1
    assert chosen[0]["base_is_right"] == (first % 9 == 0)


def test_text_from_the_run_is_escaped_and_keeps_its_direction(workdir):
    path = workdir / "eval" / "best.test.predictions.jsonl"
    hostile = {"source": "x.jsonl:1", "prompt": "</p><script>alert(1)</script>", "correct": False}
    write_lines(path, [hostile | {"expected": HEBREW, "predicted": '"><img src=x>'}])
    edit(workdir / "config.json", fingerprint="<u>")
    page = html.render(load_run(workdir))
    parse(page)
    assert "<script>" not in page and "<img" not in page and "<u>" not in page
    assert f'<bdi dir="auto">{HEBREW}</bdi>' in page
    assert '<p class="prompt" dir="auto">&lt;/p&gt;&lt;script&gt;' in page


def test_a_run_that_has_only_its_config_is_reported(tmp_path):
    write_json(tmp_path / "config.json", {"fingerprint": "0", "config": dict(flatten(default()))})
    run = load_run(tmp_path)
    for text in (html.render(run), terminal.render(run)):
        assert "Not known yet whether tuning helped" in text
        assert "No training step has been logged" in text
    assert "Every value is at its default." in html.render(run)


def test_missing_evaluation_is_said(workdir):
    for path in (workdir / "eval").glob("best.*"):
        path.unlink()
    run = load_run(workdir)
    assert "test: the tuned model has not been evaluated; run `sft eval` for" in terminal.render(
        run
    )
    parse(html.render(run))
    make_run(workdir)
    for path in (workdir / "eval").glob("base.*"):
        path.unlink()
    assert "run `sft eval --checkpoint=base` for it" in terminal.render(load_run(workdir))


def test_predictions_of_other_prompts_are_not_paired(workdir):
    path = workdir / "eval" / "base.test.predictions.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    write_lines(path, [r | {"source": "other.jsonl:1"} for r in records])
    comparison = findings.compare(load_run(workdir), "test")
    assert (comparison.verdict, comparison.paired) == ("missing", None)
    assert "not tested" in comparison.sentence


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"checkpoint": "checkpoints/best/60"}, "is of checkpoints/best/120, not of the chosen"),
        ({"epoch": 0, "step": 0}, "never fell below that of the base model"),
        ({"epoch": 0, "step": 0}, "exact match on test rose although validation loss"),
    ],
)
def test_contradictions_are_said(workdir, change, warning):
    assert warning not in terminal.render(load_run(workdir))
    edit(workdir / "selection.json", **change)
    assert warning in terminal.render(load_run(workdir))


def test_lower_loss_with_worse_answers_is_said(workdir):
    write_eval(workdir, "best", "test", [False] * 90)
    text = terminal.render(load_run(workdir))
    assert "test: tuning hurt" in text
    assert "Loss and task disagree: validation loss fell, but exact match on test did too" in text


def test_diverged_run_is_said_and_drawn(workdir):
    records = metrics()
    records[50]["loss"] = float("nan")
    write_lines(workdir / "metrics.jsonl", records)
    run = load_run(workdir)
    assert "the run diverged" in terminal.render(run)
    assert "nan" not in plots.curve(run, "loss", "loss").inline.lower()


def test_scores_of_a_part_of_the_set_are_said_to_be(workdir):
    assert "of the first" not in terminal.render(load_run(workdir))
    config = json.loads((workdir / "config.json").read_text())
    config["config"]["eval.max_examples"] = 60
    write_json(workdir / "config.json", config)
    assert "note: Scores are of the first 60 prompts" in terminal.render(load_run(workdir))


def test_repeated_steps_of_a_resumed_run_count_once_and_a_torn_tail_is_dropped(workdir):
    again = [r | {"loss": 9.0} for r in metrics() if r["step"] > 100]
    path = workdir / "metrics.jsonl"
    write_lines(path, metrics()[:150] + again)
    with path.open("a") as file:
        file.write('{"split": "train", "st')
    run = load_run(workdir)
    assert [r["step"] for r in run.train] == list(range(1, STEPS + 1))
    assert [r["loss"] for r in run.train if r["step"] > 100] == [9.0] * 80
    assert len(run.validation) == EPOCHS + 1


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("config.json", None, r"config\.json: no such file.*sft train"),
        ("config.json", "{}", r"config\.json: field 'config' is missing.*sft train"),
        ("metrics.jsonl", '{"split": "train"}\n', r"metrics\.jsonl:1: field 'epoch' is missing"),
        ("metrics.jsonl", "\n{nonsense\n", r"metrics\.jsonl:2: not JSON"),
        ("selection.json", "[]", r"selection\.json: expected a JSON object, found list.*sft train"),
        ("eval/best.test.json", "{", r"best\.test\.json: not JSON.*sft eval"),
        ("eval/best.test.predictions.jsonl", "{}\n", r"predictions\.jsonl:1: field 'correct'"),
        ("data/report.json", "1", r"report\.json: expected a JSON object, found int.*sft data"),
    ],
)
def test_malformed_files_are_named_with_the_remedy(workdir, file, text, named):
    (workdir / file).unlink()
    if text is not None:
        (workdir / file).write_text(text)
    with pytest.raises(UserError, match=named) as error:
        load_run(workdir)
    assert "\n" not in str(error.value)


def test_trailing_mean():
    assert plots.trailing_mean([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]


def test_curves_mark_the_chosen_epoch_and_follow_the_page_colours(workdir):
    svg = plots.curve(load_run(workdir), "loss", "loss").inline
    assert "chosen epoch (2)" in svg and "mean of 9 steps" in svg
    assert not re.search(r"#0[1-4]0[1-4]0[1-4]", svg)
    assert "var(--validation)" in svg


def test_command_prints_and_writes(workdir, capsys):
    from sft.commands.report import main

    assert main([str(workdir)])["report"] == str(workdir / "report.html")
    assert "test: tuning helped" in capsys.readouterr().out
    assert (workdir / "report.html").read_text().startswith("<!doctype html>")


def test_errors_of_the_data_audit_are_told(workdir):
    path = workdir / "data" / "report.json"
    before = path.read_text()
    severities = ("error", "warning", "error")
    told = [{"severity": s, "text": f"Fault {i}.", "remedy": ""} for i, s in enumerate(severities)]
    path.write_text(json.dumps(json.loads(before) | {"warnings": told}))
    found = findings.warnings(load_run(workdir), [])
    path.write_text(before)
    assert [w for w in found if w.startswith("Data")] == [
        "Data: Fault 0. And 1 more like it. See data/report.html."
    ]
