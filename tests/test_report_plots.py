"""The figures of the reports, and their files."""

import csv
import io
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree

import pytest
from run_directory import EPOCHS, STEPS, make_run, metrics, write_json, write_lines
from test_report import edit, parse

from sft.commands.report import main
from sft.report import drawing, figures, html, plots, points, scales
from sft.report.load import load_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("plots") / "run")


@pytest.fixture
def workdir(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def configure(workdir, **values):
    config = json.loads((workdir / "config.json").read_text())
    config["config"] |= {key.replace("__", "."): value for key, value in values.items()}
    write_json(workdir / "config.json", config)


def chosen_by_exact_match(workdir):
    """A run that validated on generated answers too; they are best at epoch 3."""
    rows = metrics()
    for row in rows:
        if row["split"] == "validation":
            row["exact_match"] = [0.0, 0.5, 0.625, 0.75][int(row["epoch"])]
    write_lines(workdir / "metrics.jsonl", rows)
    epochs = [row for row in rows if row["split"] == "validation" and row["step"]]
    edit(workdir / "selection.json", metric="exact_match", epoch=3, step=180, epochs=epochs)


def table(figure: drawing.Drawing) -> list[dict]:
    return list(csv.DictReader(io.StringIO(figure.table)))


def vertices(svg: str, colour: str) -> list[int]:
    """The number of points of each line of that colour."""
    paths = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: none; stroke: {colour}[^"]*"', svg)
    return [len(re.findall("[ML]", path)) for path in paths]


def test_the_validation_before_training_is_a_point_of_its_own(workdir):
    figure = plots.curve(load_run(workdir), "loss", "loss")
    assert "before training: 3.0000" in figure.svg
    lines = vertices(figure.inline, r"var\(--validation\)")  # and the sample in the legend
    assert max(lines) == EPOCHS  # not that at step 0
    rows = table(figure)
    assert [row["split"] for row in rows] == ["train"] * STEPS + ["validation"] * (EPOCHS + 1)
    assert [float(row["loss"]) for row in rows[-4:]] == [3.0, 0.41, 0.2125, 0.23]
    logged = [row["loss"] for row in metrics() if row["split"] == "train"]
    assert [float(row["loss"]) for row in rows[:STEPS]] == logged  # in full precision


def test_what_chose_the_epoch_is_a_curve_and_a_column(workdir):
    assert [figure.name for figure in figures.of_run(load_run(workdir)).training] == [
        "loss",
        "token_accuracy",
    ]
    chosen_by_exact_match(workdir)
    run = load_run(workdir)
    figure = figures.of_run(run).training[2]
    assert figure.name == "exact_match" and "chosen epoch (3)" in figure.svg
    assert [float(row["exact_match"]) for row in table(figure)] == [0.0, 0.5, 0.625, 0.75]
    page = html.render(run)
    head = page[page.index("<h3>Epochs</h3>") : page.index("Chosen by exact match:")]
    assert re.findall('<th class="n">(.*?)</th>', head)[1:] == [
        "val loss",
        "val token acc",
        "exact match",
    ]
    chosen = re.search('<tr class="chosen">(.*?)</tr>', head)[1]
    assert re.findall("<td[^>]*>(.*?)</td>", chosen) == ["3", "180", "0.2300", "93.1 %", "75.0 %"]


def test_a_run_without_a_choice_shows_what_will_choose(workdir):
    chosen_by_exact_match(workdir)
    (workdir / "selection.json").unlink()
    configure(workdir, train__select="exact_match")
    assert figures.of_run(load_run(workdir)).training[2].name == "exact_match"


def test_learning_rate_and_gradient_norm_are_small_figures(workdir):
    rows = metrics()
    for row in rows:
        if row["split"] == "train":
            row["learning_rate"], row["grad_norm"] = (row["step"] - 1) * 1e-6, 4.0 / row["step"]
    write_lines(workdir / "metrics.jsonl", rows)
    configure(workdir, optim__clip_norm=1.5)
    rate, norm = figures.of_run(load_run(workdir)).small
    assert [rate.name, norm.name] == ["learning_rate", "grad_norm"]
    rates = [float(row["learning_rate"]) for row in table(rate)]
    assert (len(rates), rates[0], rates[-1]) == (STEPS, 0.0, (STEPS - 1) * 1e-6)
    assert "clipped to 1.5" in norm.svg and "clipped" not in rate.svg
    configure(workdir, optim__clip_norm=0.0)
    assert "clipped" not in figures.of_run(load_run(workdir)).small[1].svg


def test_losses_of_prompts_too_are_called_so(workdir):
    assert "prompts too" not in figures.of_run(load_run(workdir)).training[0].svg
    configure(workdir, loss__prompt_weight=0.25)
    run = load_run(workdir)
    assert "training, prompts too (weight 0.25), mean of" in figures.of_run(run).training[0].svg
    drawn = plots.overlay([run], ["x"], "train", "loss", "loss", "Of prompts too: x.")
    assert drawn.note == "Of prompts too: x."


LINES = [
    ("a", [1.0, 2.0], [1.0, 2.0]),
    ("b", [1.0, 2.0], [1.5, 1.0]),
    ("c", [1.0, 2.0], [1.0, 2.0]),
    ("d", [1.0, 2.0], [1.5001, 1.0]),
    ("e", [1.0, 3.0], [1.0, 2.0]),
]


def test_lines_that_hide_each_other_are_found():
    assert scales.coinciding(LINES) == [([0, 2], True), ([1, 3], False)]
    assert scales.coinciding(LINES[:2]) == []
    falling = [("a", [1.0, 2.0], [9.0, 0.10]), ("b", [1.0, 2.0], [9.0, 0.13])]
    assert scales.coinciding(falling) == [([0, 1], False)]
    assert scales.coinciding(falling, over_decades=True) == []  # 6 % of the height apart


def test_lines_that_hide_each_other_take_turns_and_are_named(workdir):
    run = load_run(workdir)
    drawn = plots.overlay([run] * 3, ["a", "b", "c"], "validation", "loss", "loss")
    assert drawn.note.startswith("a, b and c are the same line: their dashes take turns.")
    dashes = [scales.line_style(i, i, 3)["linestyle"] for i in range(3)]
    assert dashes == [(0.0, (5.0, 10.0)), (5.0, (5.0, 10.0)), (10.0, (5.0, 10.0))]
    patterns = re.findall(r"stroke-dasharray: [^;]*; stroke-dashoffset: ([^;\"]*)", drawn.svg)
    assert len(set(patterns)) == 3  # each begins where the one before ends
    assert plots.overlay([run], ["a"], "validation", "loss", "loss").note.startswith("Before")


def test_what_was_before_training_does_not_flatten_the_comparison(workdir):
    run = load_run(workdir)  # 3.0 before, then 0.41 and less
    drawn = plots.overlay([run], ["a"], "validation", "loss", "loss")
    assert drawn.note == "Before training, off the axis: 3.0000."
    rows = metrics()
    rows[0]["loss"] = 0.8
    write_lines(workdir / "metrics.jsonl", rows)
    drawn = plots.overlay([load_run(workdir)], ["a"], "validation", "loss", "loss")
    assert drawn.note == "" and "before training: 0.8000" in drawn.svg


def test_of_many_runs_the_best_are_named(workdir):
    runs = []
    for i in range(14):
        rows = metrics()
        for row in rows:
            row["loss"] *= 1 + 0.1 * ((5 * i) % 14)
        write_lines(workdir / "metrics.jsonl", rows)
        runs.append(load_run(workdir))
    names = [f"run{i:02d}" for i in range(14)]
    drawn = plots.overlay(runs, names, "validation", "loss", "loss")
    best = {f"run{i:02d}" for i in range(14) if (5 * i) % 14 < plots.NAMED}
    assert set(re.findall(r"run\d\d", drawn.svg)) == best and len(best) == 6
    assert "Named are the 6 best of 14 runs at the end" in drawn.note
    assert {row["run"] for row in table(drawn)} == set(names)


@pytest.mark.parametrize(
    ("places", "is_log", "shown"),
    [
        ([1e-5, 3e-5, 1e-4, 2e-4, 3e-4, 1e-3, 1.1e-3], True, [1e-5, 3e-5, 1e-4, 3e-4, 1.1e-3]),
        ([8, 16, 32, 64], True, [8, 16, 32, 64]),
        ([0.0, 0.1, 0.2], False, [0.0, 0.1, 0.2]),
        ([4], False, [4]),
        (range(100), False, [0, 21, 34, 47, 60, 73, 86, 99]),
    ],
)
def test_ticks_do_not_touch_and_the_ends_are_among_them(places, is_log, shown):
    assert drawing.ticks(list(places), is_log) == shown


def test_a_knob_has_its_numbers_and_few_ticks():
    found = [(rate, 0.5 + i / 100, 0.4, None) for i, rate in enumerate((1e-5, 1e-4, 1e-3))]
    drawn = points.knob([("rank 8", found)], "test-exact_match", "rate", "exact_match")
    assert drawn.title == "exact match against rate"
    assert [row["exact_match"] for row in table(drawn)] == ["0.5", "0.51", "0.52"]
    assert [(row["low"], row["high"]) for row in table(drawn)] == [("0.4", "")] * 3
    assert all(f">{text}</text>" in drawn.svg for text in ("1e-05", "0.0001", "0.001"))


def test_scores_that_cannot_be_drawn_are_in_the_numbers_alone():
    nan, inf = float("nan"), float("inf")
    strange = [(1, 0.5, 0.6, 0.7), (2, nan, 0, 1), (3, 0.5, None, inf), (4, 1e300, None, None)]
    drawn = points.knob([("a", strange), ("b", [(1, nan, None, None)])], "x", "rank", "own")
    assert len(table(drawn)) == 5 and ">2</text>" not in drawn.svg and ">3</text>" in drawn.svg
    assert points.knob([("b", [(1, nan, None, None)])], "x", "rank", "own") is None
    dots = [points.Dot("a", "base", nan, nan, inf), points.Dot("b", "tuned", 0.5, 0.4, inf)]
    drawn = points.dots(dots, "exact_match", "x", "x")
    assert ">unknown" in drawn.svg and ">50.0 % [40.0 % to unknown]</text>" in drawn.svg


HOSTILE = ["<script>alert(1)</script>", "$\\frac{1}$", 'a"b&c', "\x00\x1b[31m", "עברית 模型 🎉", ""]


@pytest.mark.filterwarnings("error")
def test_hostile_names_are_text(workdir):
    run = load_run(workdir)
    drawn = plots.overlay([run] * 6, HOSTILE, "validation", "loss", "<b>")
    dots = [points.Dot(name, "tuned", 0.5, 0.4, 0.6) for name in HOSTILE]
    knob = points.knob([(name, [(1, 0.5, None, None)] * 2) for name in HOSTILE], "../x", "<i>", "f")
    for figure in (drawn, points.dots(dots, "exact_match", "a/b", "<u>"), knob):
        for svg in (figure.inline, figure.file):
            root = ElementTree.fromstring(svg)
            assert not any(element.tag.endswith("script") for element in root.iter())
        assert all(re.fullmatch(r"[\w.-]+\.(svg|csv)", name) for name in figure.files)
        assert "<u>" not in figure.inline and "<b>" not in figure.inline


def test_files_of_the_figures_lie_beside_the_page_and_are_linked(workdir, capsys):
    main([str(workdir)])
    out = capsys.readouterr().out
    files = f"all answers, and the figures as SVG and CSV: {workdir}/report_files"
    assert f"wrote {workdir}/report.html; {files}" in out
    structure = parse((workdir / "report.html").read_text())
    names = [f"{name}.{kind}" for name in NAMES for kind in ("svg", "csv")]
    pages = [f"answers-{name}.html" for name in ("test", "test_held_out")]
    links = [link.removeprefix("report_files/").partition("#")[0] for link in structure.outside]
    assert sorted(links) == sorted([*names, *pages])
    assert {path.name for path in (workdir / "report_files").iterdir()} == {*names, *pages}
    svg = (workdir / "report_files" / "loss.svg").read_text()
    assert svg.startswith("<?xml") and "var(--" not in svg
    assert "#c2571a" in svg and not re.search("#0[1-5]0[1-5]0[0-9]", svg)  # as by day
    main([str(workdir)], str(workdir / "other.html"))
    assert (workdir / "other_files" / "loss.svg").read_text() == svg


SCORES = ("test-exact_match", "test_held_out-exact_match")
NAMES = (*SCORES, "loss", "token_accuracy", "learning_rate", "grad_norm")


def test_figures_of_one_name_get_a_number_each():
    one = drawing.Drawing("Loss", "", "", (), [])
    found = figures._named([one, None, one], {"x": [drawing.Drawing("loss", "", "", (), [])]})
    assert [figure.name for figure in found.all] == ["loss-3", "Loss", "Loss-2"]


def test_numbers_that_cannot_be_drawn_are_left_out(workdir):
    rows = metrics()
    rows[1]["loss"], rows[2]["loss"], rows[3]["loss"] = float("inf"), float("nan"), 1e300
    write_lines(workdir / "metrics.jsonl", rows)
    drawn = plots.curve(load_run(workdir), "loss", "loss")
    assert vertices(drawn.inline, r"var\(--train\)")[-1] <= STEPS - 3
    assert len(table(drawn)) == STEPS + EPOCHS + 1


def test_keys_break_after_their_dots_only():
    assert str(html.key("optim.learning_rate")) == "optim.<wbr>learning_rate"
    assert str(html.key("data.dedup.near = 0.85")) == "data.<wbr>dedup.<wbr>near = 0.85"
    assert str(html.key("<a>.b")) == "&lt;a&gt;.b"
