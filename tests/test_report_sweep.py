"""The report of a sweep, on run directories made here."""

import csv
import json
import shutil
from urllib.parse import unquote

import numpy as np
import pytest
import scipy.stats
from run_directory import metrics, write_json, write_lines
from test_report import edit, parse
from test_report_seeds import seeded

from sft import cli
from sft.errors import UserError
from sft.eval import stats
from sft.report import html, sweep, tables

RATES, RIGHT = (1e-4, 1e-3, 1e-2), ((30, 35, 31), (60, 62, 58), (61, 64, 62))


@pytest.fixture
def workdir(tmp_path):
    """Three learning rates with three seeds each; the last two are nearly alike."""
    folder, points = tmp_path / "sweep", {}
    for rate, counts in zip(RATES, RIGHT, strict=True):
        for seed, right in enumerate(counts):
            name = f"learning_rate={rate},seed={seed}"
            seeded(folder, name, seed, right, **{"optim.learning_rate": rate})
            points[name] = {"optim.learning_rate": rate, "seed": seed}
    write_json(folder / "sweep.json", {"config": {}, "points": points})
    return folder


def sheet_of(workdir, name="test"):
    return next(sheet for sheet in sweep.load(workdir).sheets if sheet.name == name)


def test_each_configuration_over_its_seeds_against_the_first(workdir):
    sheet = sheet_of(workdir)
    assert sheet.knobs == ["optim.learning_rate"] and len(sheet.rows) == 3
    assert [row.settings["optim.learning_rate"] for row in sheet.rows] == [*RATES]
    assert sheet.best == {"exact_match": 2}
    first, second, _ = sheet.rows
    assert first.changes == {} and second.over_seeds
    a, b = (np.array(counts) / 90 for counts in RIGHT[:2])
    change = second.changes["exact_match"]
    assert change.p == pytest.approx(scipy.stats.ttest_rel(b, a).pvalue)
    assert change.verdict == "better"
    assert sweep.interval(first, "exact_match") == pytest.approx(
        scipy.stats.t.interval(0.95, 2, a.mean(), scipy.stats.sem(a))
    )


def test_a_single_seed_is_compared_over_prompts_and_says_so(workdir):
    path = workdir / "learning_rate=0.001,seed={}"
    for seed in (1, 2):
        shutil.rmtree(str(path).format(seed))
    found = sweep.load(workdir)
    assert found.unfinished == [path.name.format(seed) for seed in (1, 2)]
    row = sheet_of(workdir).rows[1]
    assert row.group.seeds == [0] and not row.over_seeds
    before, after = (
        [line["correct"] for line in entry.predictions]
        for entry in (sheet_of(workdir).rows[0].group.entries[0], row.group.entries[0])
    )
    change = row.changes["exact_match"]
    assert (change.value, change.low, change.high) == stats.paired_difference(before, after)
    assert sweep.interval(row, "exact_match") == pytest.approx(stats.wilson(60, 90))
    assert "(prompts only)" in html.render_sweep(found)


def test_the_command_writes_page_and_tables(workdir, capsys):
    assert cli.main(["sft", "report", str(workdir), "--json"]) == 0
    out, err = capsys.readouterr()
    best = json.loads(out)["best"]["test"]
    assert best == {"exact_match": "optim.learning_rate=0.01"}
    text = (workdir / "sweep.md").read_text()
    assert text in err and "| 3 | `0.01` | 0, 1, 2 | **69.3 %** [65.0 to 73.5 %]; +33.7, " in text
    with (workdir / "sweep.csv").open() as file:
        rows = [
            r for r in csv.DictReader(file) if (r["set"], r["metric"]) == ("test", "exact_match")
        ]
    assert [float(row["mean"]) for row in rows] == pytest.approx([np.mean(c) / 90 for c in RIGHT])
    assert [row["best"] for row in rows] == ["0", "0", "1"]
    assert [row["tested_over"] for row in rows] == ["", "seeds", "seeds"]
    assert rows[1]["commands"].count("sft train") == 3
    page = (workdir / "sweep.html").read_text()
    structure = parse(page)
    assert len(structure.ids) == len(set(structure.ids))
    assert len(structure.outside) == 2 * page.count("<figure>") > 0
    assert all((workdir / unquote(link)).is_file() for link in structure.outside)
    assert 'aria-label="exact match against optim.learning_rate"' in page
    assert page.count("<b>69.3 %</b>") == 1 and page.count("is-better") >= 2


def test_latex_escapes_and_marks(workdir):
    text = tables.latex(sheet_of(workdir))
    lines = text.splitlines()
    assert lines[0].startswith(r"\begin{tabular}{lrr") and lines[-1] == r"\end{tabular}"
    assert r"optim.learning\_rate & seeds & exact match" in text
    assert r"\textbf{69.3 \%} $\pm$ 4.2 \%$^*$" in text
    assert all(line.count("&") == lines[2].count("&") for line in lines if line.endswith(r"\\"))


def change_environment(path, **values):
    edit(path / "environment.json", **values)


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("environment.json", {"versions": {"jax": "0.99"}}, "other versions: jax 0.12.0 and 0.99"),
        ("environment.json", {"git": {"revision": "beef"}}, "other code: 3f5e08f and beef"),
        ("environment.json", {"python": "3.13"}, "other python: 3.12.1 and 3.13"),
    ],
)
def test_runs_of_other_code_are_not_mixed(workdir, file, values, said):
    edit(workdir / "learning_rate=0.001,seed=1" / file, **values)
    with pytest.raises(UserError, match=said):
        sweep.load(workdir)


def test_other_training_data_under_the_same_settings_are_not_mixed(workdir):
    for path in workdir.glob("learning_rate=*"):
        report = json.loads((path / "data/report.json").read_text())
        report["sets"]["train"]["content"] = "aaaa" if "seed=2" not in path.name else "bbbb"
        write_json(path / "data/report.json", report)
    with pytest.raises(UserError, match=r"other data under the same settings \(aaaa and bbbb\)"):
        sweep.load(workdir)


def test_other_test_data_are_not_mixed(workdir):
    path = workdir / "learning_rate=0.001,seed=1" / "eval" / "best.test.predictions.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:60]))
    with pytest.raises(UserError, match="not scored on the same test data"):
        sweep.load(workdir)


def test_settings_that_changed_nothing_are_named(workdir):
    names = [f"learning_rate={rate},seed={seed}" for rate in RATES for seed in range(3)]
    same = sweep.load(workdir).ignored
    assert len(same) == 8 and same[0] == (
        f"{names[0]} and {names[1]} had the same loss at every step: seed changed nothing in "
        "training."
    )
    assert "optim.learning_rate, seed changed nothing" in same[-1]
    assert same[0] in html.render_sweep(sweep.load(workdir))
    for i, name in enumerate(names):
        rows = metrics()
        for row in rows:
            row["loss"] *= 1 + i / 100
        write_lines(workdir / name / "metrics.jsonl", rows)
    assert sweep.load(workdir).ignored == []
    twin = workdir / names[-1]  # another seed, and scored otherwise
    shutil.copy(workdir / names[0] / "metrics.jsonl", twin)
    config = json.loads((workdir / names[0] / "config.json").read_text())
    config["config"]["eval.max_new_tokens"] = 5
    write_json(twin / "config.json", config)
    assert sweep.load(workdir).ignored == []


def test_a_point_that_a_search_stopped_is_told_apart(workdir):
    path = workdir / "learning_rate=0.01,seed=2"
    shutil.rmtree(path / "eval")
    (path / "STOPPED").write_text("worse than half of the others at step 3")
    found = sweep.load(workdir)
    assert found.stopped == {path.name: "worse than half of the others at step 3"}
    assert found.unfinished == [] and f"{path.name} was stopped: worse" in html.render_sweep(found)


def test_nothing_scored_yet(workdir):
    for path in workdir.glob("learning_rate=*"):
        shutil.rmtree(path / "eval")
    with pytest.raises(UserError, match="no point of the sweep has been scored yet"):
        sweep.load(workdir)
