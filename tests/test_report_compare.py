"""Several runs beside each other, on run directories made here."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from run_directory import make_run, write_eval, write_json, write_lines
from test_report import edit, parse

from sft import cli
from sft import config as configs
from sft.eval import stats
from sft.report import compare, html, plots, scales, scores, terminal
from sft.report.load import load_run


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """``good`` is right much more often than ``bad``, and ``near`` one answer more often."""
    paths = [make_run(tmp_path / name) for name in ("good", "bad", "near")]
    write_eval(paths[1], "best", "test", [i % 2 == 0 for i in range(90)])
    write_eval(paths[2], "best", "test", [i % 8 != 3 or i == 3 for i in range(90)])
    config = json.loads((paths[1] / "config.json").read_text())
    config["config"] |= {"optim.learning_rate": 5e-5, "lora.rank": 16}
    write_json(paths[1] / "config.json", config)
    return paths


def predictions(run: Path, arm: str = "best", name: str = "test") -> list[dict]:
    path = run / "eval" / f"{arm}.{name}.predictions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def tables(paths: list[Path]) -> dict[str, compare.Table]:
    found = compare.compare([load_run(path) for path in paths])
    assert found.refused == []
    return {table.name: table for table in found.tables}


def test_the_best_is_marked_only_if_it_surely_is(runs):
    good, bad, near = runs
    assert tables([good, bad])["test"].best == {"exact_match": "good"}
    assert tables([bad, good])["test"].best == {"exact_match": "good"}
    assert tables([good, near])["test"].best == {}  # one answer of 90
    assert tables([good, bad, near])["test"].best == {}  # near is first, and not surely
    assert tables([good, bad])["test_held_out"].best == {}


def test_the_mark_allows_for_the_number_of_tests(runs):
    """The same difference, seen among more models, is no difference any more."""
    good, bad, near = runs
    right = [i % 8 != 3 for i in range(90)]
    worse = [r and i not in (0, 1, 2, 4, 5, 6) for i, r in enumerate(right)]
    assert 0.05 / 3 < stats.mcnemar(worse, right) < 0.05
    write_eval(bad, "best", "test", worse)
    write_eval(near, "best", "test", [False] * 90)
    for run in runs:
        (run / "eval" / "base.test.json").unlink()
    assert tables([good, bad])["test"].best == {"exact_match": "good"}
    assert tables([good, bad, near])["test"].best == {}


def test_scores_of_the_base_model_stand_once_where_they_are_the_same(runs):
    entries = tables(runs)["test"].entries
    assert [entry.label for entry in entries] == ["base", "good", "bad", "near"]
    write_eval(runs[1], "base", "test", [False] * 90)
    entries = tables(runs)["test"].entries
    assert [e.label for e in entries[:3]] == ["base of good", "base of bad", "base of near"]


def test_every_score_has_its_difference_to_the_base(runs):
    table = tables(runs[:2])["test"]
    before, after = [i % 9 == 0 for i in range(90)], [i % 8 != 3 for i in range(90)]
    change = table.to_base["good"]["exact_match"]
    assert (change.value, change.low, change.high) == stats.paired_difference(before, after)
    assert (change.p, change.pairs) == (stats.mcnemar(before, after), 90)
    assert change.verdict == "better"


def test_other_test_data_are_refused_and_the_rest_is_compared(runs, tmp_path, monkeypatch, capsys):
    good, bad = runs[:2]
    write_lines(bad / "eval" / "best.test.predictions.jsonl", predictions(bad)[:60])
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sft", "report", str(good), str(bad)]) == 2
    out, err = capsys.readouterr()
    assert (
        "sft: test: good and bad were not scored on the same test data: 90 and 60 prompts, "
        "60 of them in both" in err.replace("\n", " ")
    )
    assert len(err.strip().splitlines()) == 1
    table = (tmp_path / "compare.md").read_text()
    assert "| test_held_out" in table and "| test " not in table
    page = (tmp_path / "compare.html").read_text()
    assert "Not compared. test: good and bad" in page and "Scores on test_held_out" in page
    assert "test_held_out" in out


def test_other_prompts_with_the_same_texts_are_refused(runs):
    good, bad = runs[:2]
    for run, content in ((good, "aaaa"), (bad, "bbbb")):
        edit(run / "eval" / "best.test.json", content=content)
    config = json.loads((bad / "config.json").read_text())
    config["config"]["data.reading.instruction"] = "Be brief."
    write_json(bad / "config.json", config)
    found = compare.compare([load_run(good), load_run(bad)])
    assert [table.name for table in found.tables] == ["test_held_out"]
    assert "same prompts" in found.refused[0]
    assert "data.reading.instruction: '' and 'Be brief.'" in found.refused[0]


def test_another_model_reads_other_tokens_so_only_its_answers_are_compared(runs):
    good, bad = runs[:2]
    for run, content in ((good, "aaaa"), (bad, "bbbb")):
        for arm in ("best", "base"):
            edit(run / "eval" / f"{arm}.test.json", content=content)
    config = json.loads((bad / "config.json").read_text())
    config["config"]["model.name"] = "gemma2_2b"
    write_json(bad / "config.json", config)
    table = tables([good, bad])["test"]
    assert table.best == {"exact_match": "good"}
    assert [note.split(" is shown")[0] for note in table.notes] == ["loss", "token accuracy"]


def test_a_set_that_not_all_have_is_said(runs):
    for path in (runs[1] / "eval").glob("*.test_held_out.*"):
        path.unlink()
    assert tables(runs)["test_held_out"].notes == ["Not evaluated: bad."]


def test_only_differing_settings(runs):
    found = compare.compare([load_run(path) for path in runs]).settings
    assert found == [
        ("lora.rank", [8, 16, 8]),
        ("optim.learning_rate", [1e-3, 5e-5, 1e-3]),
    ]


def test_answers_are_shown_where_they_differ(runs):
    table = tables(runs[:2])["test"]
    shown = compare.answers(table)
    assert len(shown) == 20
    for record in shown:
        (*_, one), (*_, other) = record["answers"]
        assert one != other
    assert len({record["source"] for record in shown}) == 20
    shutil.copytree(runs[0], runs[0].with_name("twin"))
    assert compare.answers(tables([runs[0], runs[0].with_name("twin")])["test"]) == []


def test_page_and_table(runs, tmp_path, capsys):
    out = tmp_path / "pages" / "three.html"
    assert cli.main(["sft", "report", *map(str, runs), f"--out={out}", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "report": str(out),
        "markdown": str(out.with_suffix(".md")),
        "best": {"test": {}, "test_held_out": {}},
    }
    page = out.read_text()
    structure = parse(page)
    assert len(structure.ids) == len(set(structure.ids))
    pages = ["three_files/answers-test.html", "three_files/answers-test_held_out.html"]
    assert structure.outside[-2:] == pages
    assert len(structure.outside[:-2]) == 2 * page.count("<figure>") > 0
    assert all((out.parent / link).is_file() for link in structure.outside)
    assert "<script" not in page and "url(http" not in page
    comparison = compare.compare([load_run(path) for path in runs])
    assert page == html.render_comparison(comparison, files="three_files")
    text = " ".join("".join(structure.text).split())
    assert "87.8 %" in text and "79.4 % to 93.0 %" in text  # Wilson, 79 of 90
    change = [i % 9 == 0 for i in range(90)], [i % 8 != 3 for i in range(90)]
    by, low, high = (f"{100 * value:+.1f}" for value in stats.paired_difference(*change))
    assert f"vs base {by} ({low} to {high})" in text
    lines = out.with_suffix(".md").read_text().splitlines()
    assert re.match(r"\| test +\| exact match +\| loss +\| token accuracy +\|", lines[0])
    assert {len(line) for line in lines[:6]} == {len(lines[0])}


def test_columns_that_do_not_fit_a_screen_go_into_another_table(runs):
    names = ["exact_match", *(f"own{i}" for i in range(9))]
    for run in runs[:2]:
        path = run / "eval" / "best.test.json"
        metric = {"value": 0.5, "interval": [0.4, 0.6], "better": "higher", "signature": None}
        edit(path, metrics=dict.fromkeys(names, metric))
    page = html.render_comparison(compare.compare([load_run(path) for path in runs[:2]]))
    section = page[page.index("Scores on test<") : page.index("Scores on test_held_out<")]
    heads = [re.findall('<th class="n">(.*?)</th>', part) for part in section.split("<table")[1:]]
    assert heads == [["exact match", *names[1:7]], names[7:]]
    for part in section.split("<table")[1:]:  # on a phone each cell has the head of its column
        row = re.search("<tr><td>good</td>(.*?)</tr>", part, re.DOTALL)[1]
        assert re.findall('data-head="(.*?)"', row) == heads.pop(0)
    assert "40.0\xa0% to 60.0\xa0%" in section and section.count("0.4 to 0.6") == 18


def test_markdown_marks_the_best_in_bold(runs):
    text = terminal.markdown(compare.compare([load_run(path) for path in runs[:2]]))
    assert re.search(r"^\| good +\| \*\*87\.8 %\*\* \[79\.4 to 93\.0 %\] +\| 0\.2200 ", text, re.M)
    assert "| `lora.rank` " in text and "`16`" in text


def test_hostile_text_is_escaped(runs):
    rows = [row | {"predicted": "<img src=x>", "correct": False} for row in predictions(runs[1])]
    write_lines(runs[1] / "eval" / "best.test.predictions.jsonl", rows)
    page = html.render_comparison(compare.compare([load_run(path) for path in runs[:2]]))
    parse(page)
    assert "<img" not in page and "&lt;img src=x&gt;" in page


def test_curves_have_a_name_and_a_colour_of_the_page_each(runs):
    many = [load_run(path) for path in runs] * 3
    names = [f"run {i}" for i in range(9)]
    svg = plots.overlay(many, names, "validation", "loss", "loss").inline
    assert all(f"{name}</text>" in svg or f">{name}<" in svg for name in names)
    assert {f"var(--run{i})" for i in range(6)} <= set(re.findall(r"var\(--run\d\)", svg))
    assert not re.search(r"#0505\d\d", svg)
    style = (Path(html.__file__).with_name("style.css")).read_text()
    assert all(style.count(f"--run{i}:") == 2 for i in range(6))  # light and dark


def test_names_at_the_ends_do_not_touch():
    from matplotlib.figure import Figure

    for ends in ([0.5] * 8, [0.0] * 5, [1.0, 0.99, 0.01, 0.0]):
        axes = Figure().subplots()
        axes.set_ylim(0, 1)
        scales.name_lines(axes, [(f"{i}", [1.0], [end]) for i, end in enumerate(ends)])
        heights = sorted(text.xy[1] for text in axes.texts)
        assert np.diff(heights).min() > 0.07
        assert heights[0] >= 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--workdir=DIR is missing"),
        (["{0}", "{0}/../good"], "is given twice"),
        (["{0}", "nowhere"], "nowhere/config.json: no such file"),
        (["{0}", "{1}", "--outt=x"], "no flag --outt. Did you mean 'out'?"),
    ],
)
def test_bad_command_lines(runs, capsys, words, said):
    assert cli.main(["sft", "report", *(word.format(*runs) for word in words)]) == 2
    assert said in capsys.readouterr().err


def test_one_run_by_its_name_or_as_workdir(runs, tmp_path, capsys):
    assert cli.main(["sft", "report", str(runs[0]), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["report"] == str(runs[0] / "report.html")
    assert [finding["name"] for finding in said["diagnosis"]] == ["overfitting"]
    other = tmp_path / "elsewhere.html"
    assert cli.main(["sft", "report", f"--workdir={runs[0]}", f"--out={other}"]) == 0
    page = (runs[0] / "report.html").read_text()
    assert other.read_text().replace("elsewhere_files/", "report_files/") == page


def test_metrics_beside_the_base(runs, monkeypatch):
    """Other metrics than exact match: their own statistics, resampled over the shared prompts."""
    import sys
    from types import SimpleNamespace

    asked = []

    def difference(metric, before_nxk, after_nxk, *, seed, resamples):
        asked.append((metric, len(before_nxk), seed, resamples))
        value = float(after_nxk.mean() - before_nxk.mean())
        return SimpleNamespace(value=value, low=value - 0.1, high=value + 0.1, p=0.001)

    def table(config, rows):
        return {"loss": ("a metric", np.array([[row["nll"]] for row in rows]))}

    for name, fake in (
        ("bootstrap", SimpleNamespace(difference=difference)),
        ("scores", SimpleNamespace(table=table)),
    ):
        monkeypatch.setitem(sys.modules, f"sft.eval.{name}", fake)
        monkeypatch.setattr(f"sft.eval.{name}", fake, raising=False)
    for arm, nll in (("base", 3.0), ("best", 1.0)):
        found = json.loads((runs[0] / "eval" / f"{arm}.test.json").read_text())
        metric = {"value": nll, "interval": [nll, nll], "better": "lower", "signature": None}
        edit(runs[0] / "eval" / f"{arm}.test.json", metrics={"loss": metric})
        rows = [row | {"nll": nll, "trained": 1} for row in predictions(runs[0], arm)]
        if arm == "best":
            rows = rows[:80]
        write_lines(runs[0] / "eval" / f"{arm}.test.predictions.jsonl", rows)
        assert found["exact_match"]
    run = load_run(runs[0])
    base, tuned = scores.of_set(run, "test")
    assert base.change is None
    assert (tuned.change.value, tuned.change.verdict, tuned.change.pairs) == (-2.0, "better", 80)
    assert asked == [("a metric", 80, 0, configs.default().eval.resamples)]
    assert (
        "loss 3.0000 → 1.0000 (-2.0000, 95 % interval -2.1000 to -1.9000, p = 0.0010: better)"
        in terminal.render(run)
    )
