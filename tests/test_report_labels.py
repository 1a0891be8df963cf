"""Labelled answers in reports: models beside answers without one, and which labels are confused."""

import csv
import io
import json

import pytest
from run_directory import make_run, write_json, write_lines
from test_report import parse
from test_report_seeds import seeded

from sft.commands.report import main
from sft.config import default
from sft.eval import constant, scores
from sft.report import compare, confusion, figures, html, load, sweep, tables, terminal
from sft.report.scores import of_sets, with_baselines

EXPECTED = ["good"] * 5 + ["bad"] * 3 + ["odd"] * 2
TUNED = ["good"] * 4 + ["bad"] + ["bad"] * 2 + ["good"] + ["odd", "good, I think"]
BASE = ["good or so"] * 10


def label(path, arm, predicted, ranked=()):
    """Makes the answers of an arm labels, as ``sft eval`` would score them."""
    config = default()
    config.eval.metrics = "accuracy,macro_f1"
    config.eval.labels = "expected" if ranked else ""
    rows = [
        {
            "source": f"x.jsonl:{i + 1}",
            "prompt": f"text {i}",
            "expected": wanted,
            "predicted": answer,
            "correct": answer == wanted,
            "cut": False,
            "error": None if answer == wanted else "other_label",
            "nll": 1.0,
            "right_tokens": 0,
            "trained": 2,
        }
        for i, (wanted, answer) in enumerate(zip(EXPECTED, predicted, strict=True))
    ]
    for row, best in zip(rows, ranked, strict=False):
        row |= {"ranked": best, "ranked_norm": best, "ranks": 3}
    table = scores.table(config, rows)
    labels = ["bad", "good", "odd"] if ranked else []
    file = path / "eval" / f"{arm}.test.json"
    record = json.loads(file.read_text()) if file.exists() else {"arm": arm, "set": "test"}
    right = sum(row["correct"] for row in rows)
    record |= {
        "count": 10,
        "correct": right,
        "exact_match": right / 10,
        "exact_match_interval": [0.0, 1.0],
        "metrics": scores.summary(config, table),
        "primary": "label_accuracy" if ranked else "accuracy",
        "labels": labels,
        "constant": constant.scored(config, EXPECTED, "good", "training", labels),
        "settings": {"eval.metrics": "accuracy,macro_f1", "eval.labels": config.eval.labels},
    }
    write_json(file, record)
    rows = [row | {"scores": scores.of_row(table, i)} for i, row in enumerate(rows)]
    write_lines(file.with_suffix(".predictions.jsonl"), rows)


@pytest.fixture
def run(tmp_path):
    path = make_run(tmp_path / "run")
    label(path, "base", BASE)
    label(path, "best", TUNED)
    return path


@pytest.fixture
def ranked(tmp_path):
    path = make_run(tmp_path / "ranked")
    label(path, "base", BASE, ["good"] * 10)
    label(path, "best", TUNED, EXPECTED)
    return path


def cells(page):
    """Rows of cells of all tables, as their texts."""
    rows = page.replace("\xa0", " ").split("<tr")[1:]
    return [[parse_text(cell) for cell in row.partition("</tr")[0].split("<t")[1:]] for row in rows]


def parse_text(cell):
    out, inside = [], False
    for c in cell.partition(">")[2].partition("</t")[0]:
        inside = c == "<" or (inside and c != ">")
        out += [] if inside or c == ">" else [c]
    return "".join(out).strip()


MAJORITY, RANDOM = (
    "always &#39;good&#39; (training&#39;s most frequent)",
    "one of 3 labels at random",
)


def test_answers_without_a_model_stand_in_every_table(run):
    loaded = load.load_run(run)
    found = with_baselines(loaded, "test", of_sets(loaded)["test"])
    accuracy = [(one.label, one.value) for one in found if one.metric == "accuracy"]
    assert accuracy == [
        (RANDOM, pytest.approx(1 / 3)),
        ("always 'good' (training's most frequent)", 0.5),
        ("base", 0.0),
        ("tuned (best)", 0.7),
    ]
    assert all(one.change is None for one in found if one.without)
    page = html.render(loaded)
    rows = cells(page)
    assert ["accuracy", RANDOM, "33.3 %", "–", "–", "–", "–"] in rows
    assert ["", MAJORITY, "50.0 %", "23.7 % to 76.3 %", "–", "–", "–"] in rows
    assert "always 'good'" in terminal.render(loaded)


def test_they_are_compared_with_nothing(run, tmp_path):
    other = make_run(tmp_path / "other")
    label(other, "base", BASE)
    label(other, "best", BASE)  # worse than answering without a model
    found = compare.compare([load.load_run(run), load.load_run(other)])
    table = next(one for one in found.tables if one.name == "test")
    assert [one.kind for one in table.baselines] == ["random", "majority"]
    assert set(table.best.values()) <= {"run", "other"}
    assert [entry.label for entry in table.entries] == ["base", "run", "other"]
    rows = cells(html.render_comparison(found))
    majority = next(row for row in rows if row[0] == MAJORITY)
    assert majority[1].startswith("50.0 %") and "★" not in "".join(majority)
    text = terminal.markdown(found)
    assert "| always 'good' (training's most frequent) | 50.0 % [23.7 to 76.3 %]" in text
    assert f"| {RANDOM} " in text and "**50.0 %**" not in text


@pytest.fixture
def swept(tmp_path):
    folder, points = tmp_path / "sweep", {}
    for rate, answers in ((1e-4, BASE), (1e-3, BASE[:8] + ["odd"] * 2)):
        for seed in (0, 1):
            name = f"rate={rate},seed={seed}"
            seeded(folder, name, seed, 30, **{"optim.learning_rate": rate})
            label(folder / name, "best", answers)
            (folder / name / "eval" / "base.test.json").unlink(missing_ok=True)
            points[name] = {"optim.learning_rate": rate, "seed": seed}
    write_json(folder / "sweep.json", {"config": {}, "points": points})
    return sweep.load(folder)


def test_a_sweep_has_them_in_every_form(swept):
    sheet = next(one for one in swept.sheets if one.name == "test")
    assert sheet.best["accuracy"] == 1  # of the rows: the best answers are without a model
    lines = tables.markdown(sheet).splitlines()
    assert lines[2].startswith(f"| {RANDOM} |  |  | 33.3 % |")
    assert lines[3].startswith("| always 'good' (training's most frequent) |  |  | 50.0 % [23.7 to")
    rows = list(csv.DictReader(io.StringIO(tables.comma_separated([sheet]))))
    without = [row for row in rows if row["without_model"] and row["metric"] == "accuracy"]
    assert [float(row["mean"]) for row in without] == [pytest.approx(1 / 3), 0.5]
    assert all(row["best"] == "0" and not row["fingerprints"] for row in without)
    assert len(rows) > len(without) and {len(row) for row in rows} == {len(rows[0])}
    latex = tables.latex(sheet)
    assert r"\multicolumn{2}{l}{one of 3 labels at random} & 33.3 \%" in latex
    assert latex.count(r"\textbf") == latex.count(r"\textbf{20.0 \%}") + latex.count(r"\textbf{2")
    rows = cells(html.render_sweep(swept))
    assert next(row for row in rows if row[0] == RANDOM)[1] == "33.3 %"


def test_models_and_baselines_are_points_of_one_picture(run):
    drawn = figures.of_run(load.load_run(run)).scores["test"][0]
    assert [(row[0].split(" (")[0], row[1], round(row[3], 3)) for row in drawn.rows] == [
        (RANDOM, "baseline", 0.333),
        ("always 'good'", "baseline", 0.5),
        ("base", "base", 0.0),
        ("tuned", "tuned", 0.7),
    ]
    page = html.render(load.load_run(run))
    assert page.index('aria-label="accuracy on test') < page.index(">metric</th>")


def test_labels_confused_and_numbers_of_each(run):
    tuned, base = confusion.of_run(load.load_run(run))["test"]
    assert (tuned.arm, tuned.how, base.arm) == ("best", "generated", "base")
    assert tuned.columns == ["good", "bad", "odd", confusion.NO_LABEL]
    assert tuned.counts == [[4, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 1]]
    good, _, odd = tuned.labels
    assert (good.rows, good.answered, good.right) == (5, 5, 4)
    assert (good.precision, good.recall, good.f1) == (0.8, 0.8, pytest.approx(0.8))
    assert (odd.precision, odd.recall, odd.f1) == (1.0, 0.5, pytest.approx(2 / 3))
    mean = sum(one.f1 for one in tuned.labels) / 3
    record = load.load_run(run).eval("best", "test")
    assert mean == pytest.approx(record["metrics"]["macro_f1"]["value"])
    assert base.counts == [[0, 0, 0, 5], [0, 0, 0, 3], [0, 0, 0, 2]]
    assert all((one.precision, one.recall, one.f1) == (0, 0, 0) for one in base.labels)
    rows = cells(html.render(load.load_run(run)))
    assert ["good", "4", "1", "0", "0"] in rows
    assert ["odd", "2", "100.0 %", "50.0 %", "66.7 %"] in rows


def test_ranked_labels_come_first_where_the_set_is_about_them(ranked):
    found = confusion.of_run(load.load_run(ranked))["test"]
    assert [(one.arm, one.how) for one in found] == [
        *(("best", "ranked"), ("best", "generated"), ("base", "ranked"), ("base", "generated")),
    ]
    assert found[0].counts == [[5, 0, 0], [0, 3, 0], [0, 0, 2]]
    assert found[2].columns == ["good", "bad", "odd"] and found[2].counts[1] == [3, 0, 0]
    page = html.render(load.load_run(ranked))
    # What the model chose is judged; what it generated stands beside.
    assert "generated: good or so" in page and "label accuracy 50.0 % → 100.0 %" in page


def test_answers_of_another_kind_have_no_matrix(tmp_path):
    loaded = load.load_run(make_run(tmp_path / "run"))
    assert confusion.of_run(loaded) == {"test": [], "test_held_out": []}
    assert "Labels answered" not in html.render(loaded)


def test_of_many_labels_the_rare_ones_are_one(tmp_path):
    rows = [
        {"expected": f"l{i}", "predicted": f"l{i if i % 3 else 0}"}
        for i in range(40)
        for _ in range(40 - i)
    ]
    found = confusion.of_rows(rows, "x", "best", "generated")
    names, columns, counts = found.shown
    assert names == columns == [*(f"l{i}" for i in range(11)), "29 others"]
    assert sum(map(sum, counts)) == len(rows) and len(found.counts) == 40
    assert counts[3][0] == 37 and counts[3][3] == 0
    assert counts[-1][0] == sum(40 - i for i in range(12, 40, 3))
    rows = list(csv.reader(io.StringIO(found.files["labels-x-generated.csv"])))
    assert len(rows) == 41 and rows[4][:2] == ["l3", "37"]
    labels = list(csv.DictReader(io.StringIO(found.files["labels-x-generated-labels.csv"])))
    assert labels[3]["recall"] == "0.0" and labels[4]["f1"] == "1.0"


def test_labels_are_told_apart_as_they_were_compared():
    rows = [
        {"expected": "a\nnote", "predicted": " a \nbecause", "compared": "a"},
        {"expected": "cafe\u0301", "predicted": "café", "compared": "café"},
    ]
    found = confusion.of_rows(rows, "x", "best", "generated", ["z"])
    assert [one.text for one in found.labels] == ["a", "café", "z"]
    assert found.counts == [[1, 0, 0], [0, 1, 0], [0, 0, 0]] and found.labels[2].f1 == 0


def test_hostile_labels_are_escaped_and_their_files_named(tmp_path, capsys):
    path = make_run(tmp_path / "run")
    label(path, "best", ["</td><script>alert(1)</script>"] * 10)
    file = path / "eval" / "best.test.predictions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    write_lines(file, [row | {"expected": "<img src=x>"} for row in rows])
    main([str(path)])
    page = (path / "report.html").read_text()
    structure = parse(page)
    assert "<script>" not in page and "<img" not in page and "&lt;img src=x&gt;" in page
    links = [link.partition("#")[0] for link in structure.outside]
    assert "report_files/labels-test-best-generated.csv" in links
    assert all((path / link).is_file() for link in links)
