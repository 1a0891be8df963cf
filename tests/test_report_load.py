"""Damaged run directories: a report, or an error of one line that says what to do."""

import json
import random
import shutil

import damaged_runs
import pytest
from run_directory import make_run, write_json, write_lines
from test_report import edit

from sft import cli
from sft.commands.report import main
from sft.errors import UserError
from sft.report import figures
from sft.report.load import load_run

DRAWN = ("metrics.jsonl", "selection.json")  # what the figures of a run are made from


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return damaged_runs.whole(tmp_path_factory.mktemp("damaged") / "run")


@pytest.fixture
def workdir(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def test_the_run_that_is_damaged_below_has_all_that_a_report_reads(whole, capsys):
    run = load_run(whole)
    assert len(run.evals) == 3 and len(run.suites) == 2 and len(run.predictions) == 3
    assert all(len(rows) == damaged_runs.ROWS for rows in run.predictions.values())
    assert run.environment and run.data and run.selection and run.summary and run.done
    found = main([str(whole)], str(whole.parent / "page.html"))
    assert found["report"] == str(whole.parent / "page.html")
    out = capsys.readouterr().out
    assert "test: " in out and "suite toy" in out and "without a model" in out


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of sums with infinite numbers
@pytest.mark.parametrize("part", range(6))
def test_whatever_is_damaged_there_is_a_report_or_an_error_of_one_line(
    whole, tmp_path, monkeypatch, capsys, part
):
    errors = 0
    for seed in range(50 * part, 50 * part + 50):
        run = shutil.copytree(whole, tmp_path / f"{seed}")
        damage = damaged_runs.damage(run, random.Random(seed))
        with monkeypatch.context() as patch:
            if not damage.startswith(DRAWN):
                patch.setattr(figures, "of_run", lambda run: figures.Figures([], {}))
            try:
                main([str(run)])
            except UserError as error:
                errors += 1
                assert str(error).isprintable(), damage
                assert str(error).startswith(str(run)), damage
                assert str(error).endswith("."), damage
            except Exception as error:
                raise AssertionError(f"seed {seed}: {damage}") from error
        capsys.readouterr().out.encode()
    assert 25 <= errors < 50


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("best.test.json", "--checkpoint=best"),
        ("step40.test.json", "--checkpoint=40"),
        ("latest.test.json", "--checkpoint=latest"),
        ("base.test.json", "--checkpoint=base"),
        ("base.6shot.test.json", "--checkpoint=base --config.eval.shots=6"),
    ],
)
def test_the_remedy_makes_the_result_again(workdir, name, remedy):
    (workdir / "eval" / name).write_text("{")
    with pytest.raises(UserError) as error:
        load_run(workdir)
    beside = name.replace(".json", ".predictions.jsonl")
    assert str(error.value).endswith(
        f"Restore it, or remove {name} and {beside} and run `sft eval --workdir={workdir} {remedy}`"
        " again, with the --config flags that it had."
    )


@pytest.mark.parametrize(
    "name", ["notes.json", "best.$(id).json", "best.te\nst.json", "Best.test.json", "best.json"]
)
def test_a_file_that_no_evaluation_writes_is_to_be_moved_away(workdir, name, capsys):
    shutil.copy(workdir / "eval" / "best.test.json", workdir / "eval" / name)
    assert cli.main(["sft", "report", str(workdir)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Move it to another folder, or remove it." in error
    (workdir / "eval" / name).unlink()
    assert cli.main(["sft", "report", str(workdir)]) == 0


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (
            "selection.json",
            {"epoch": 2, "step": 6.5, "epochs": []},
            "field 'step' is 6.5, expected",
        ),
        ("data/report.json", {"sets": {"train": []}}, "'sets.train' is a list of 0, expected an"),
        ("data/report.json", {"skew": [{"differs": 1}]}, r"'skew\[0\]\.summary' is missing"),
        ("environment.json", {"versions": [1]}, "'versions' is a list of 1, expected an object"),
        (
            "summary.json",
            {"wall_seconds": {"train": "1"}},
            "'wall_seconds.train' is \"1\", expected",
        ),
        (
            "config.json",
            {"config": {"seed": None}},
            "'config.seed' is null, expected a text, a fin",
        ),
        ("config.json", {"config": {"eval": 3}}, "'config.eval' is not a setting"),
        (
            "config.json",
            {"config": {"seed": "3"}},
            "'config.seed' is \"3\", expected a whole number",
        ),
    ],
)
def test_field_value_and_expectation_are_named(workdir, file, content, said):
    write_json(workdir / file, content)
    with pytest.raises(UserError, match=said):
        load_run(workdir)


def test_a_choice_by_a_metric_that_is_no_number(workdir):
    epochs = [{"step": 3, "epoch": 1, "loss": 1.0, "exact_match": "0.5"}]
    edit(workdir / "selection.json", epochs=epochs)
    with pytest.raises(UserError, match=r"'epochs\[0\]\.exact_match' is \"0\.5\", expected a numb"):
        load_run(workdir)


def test_directories_files_and_links_in_the_wrong_place(workdir):
    (workdir / "summary.json").unlink()
    (workdir / "summary.json").symlink_to("nowhere")
    with pytest.raises(
        UserError, match=r"summary\.json: a link to nothing\. Restore it, or remove"
    ):
        load_run(workdir)
    (workdir / "summary.json").unlink()
    shutil.rmtree(workdir / "data")
    (workdir / "data").touch()
    with pytest.raises(
        UserError, match=r"run/data: expected a directory, found a file\. Remove it"
    ):
        load_run(workdir)
    (workdir / "data").unlink()
    shutil.rmtree(workdir / "eval")
    (workdir / "eval").touch()
    with pytest.raises(
        UserError, match=r"run/eval: expected a directory, found a file\. Remove it"
    ):
        load_run(workdir)
    (workdir / "eval").unlink()
    (workdir / "metrics.jsonl").unlink()
    (workdir / "metrics.jsonl").mkdir()
    with pytest.raises(
        UserError, match=r"metrics\.jsonl: cannot be read \(Is a directory\)\. Rest"
    ):
        load_run(workdir)


def test_answers_that_are_missing_are_said(workdir, capsys):
    path = workdir / "eval" / "best.test.predictions.jsonl"
    whole_lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole_lines[:5]))
    main([str(workdir)])
    said = (
        "eval/best.test.predictions.jsonl has 5 of the 8 answers that were scored: restore it, or"
    )
    assert said in capsys.readouterr().out
    assert said in (workdir / "report.html").read_text()
    path.unlink()
    main([str(workdir)])
    assert "eval/best.test.predictions.jsonl has 0 of the 8 answers" in capsys.readouterr().out


def test_a_name_that_no_page_can_hold(workdir, capsys):
    odd = workdir.rename(workdir.with_name("b\udcff"))
    for words in ([str(odd)], [str(odd), str(odd.parent)], [f"--workdir={odd.parent}/x\udcff"]):
        assert cli.main(["sft", "report", *words]) == 2
        assert "udcff: its name is not UTF-8. Rename it.\n" in capsys.readouterr().err
    odd.rename(workdir)
    assert cli.main(["sft", "report", str(workdir), "--out=p\udcff.html"]) == 2
    assert cli.main(["sft", "report", str(workdir)]) == 0


@pytest.mark.parametrize("name", ["../run", "", "a\0b", "x" * 300, "/tmp"])
def test_points_of_a_sweep_that_cannot_be_folders(tmp_path, name):
    write_json(tmp_path / "sweep.json", {"points": {name: {}}})
    with pytest.raises(
        UserError, match=r"sweep\.json: field 'points' has .*not the name of a fold"
    ):
        main([str(tmp_path)])


def test_a_damaged_point_of_a_sweep_and_a_damaged_note(tmp_path):
    make_run(tmp_path / "a")
    write_json(tmp_path / "sweep.json", {"points": {"a": {}, "b": {}}})
    (tmp_path / "b" / "STOPPED").mkdir(parents=True)
    with pytest.raises(UserError, match=r"b/STOPPED: cannot be read \(Is a directory\)"):
        main([str(tmp_path)])
    write_lines(tmp_path / "a" / "metrics.jsonl", [{"split": "train"}])
    with pytest.raises(UserError, match=r"a/metrics\.jsonl:1: field 'epoch' is missing"):
        main([str(tmp_path)])
    (tmp_path / "sweep.json").write_text(json.dumps({"points": ["a"]}))
    with pytest.raises(UserError, match=r"sweep\.json: field 'points' is a list of 1, expected an"):
        main([str(tmp_path)])
