"""The files of ``configs/ablations``: sound, short, and said in full."""

import ast
import csv
import re
import sys
from pathlib import Path

import pytest
from run_directory import write_json
from test_report_seeds import seeded

from sft import cli
from sft import config as configs
from sft.tune import points

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "configs" / "ablations"
FILES = sorted(path for path in FOLDER.glob("*.py") if path.name != "base.py")
README = FOLDER / "README.md"
sys.path.insert(0, str(ROOT / "scripts"))

import ablation_check  # noqa: E402
import ablation_results  # noqa: E402


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_says_claim_source_command_and_result_in_forty_lines(path):
    assert len(path.read_text().splitlines()) <= 40
    said = ast.get_docstring(ast.parse(path.read_text()))
    assert re.search(r"^Claim: .*\(.*20\d\d", said, re.MULTILINE | re.DOTALL)
    name = path.relative_to(ROOT)
    assert f"sft sweep --config={name} --workdir=runs/ablations/{path.stem}" in said
    assert re.search(r"^Found: ", said, re.MULTILINE)
    assert path.stem in README.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_point_is_sound_and_another_one(path):
    name = str(path.relative_to(ROOT))
    wanted = points.from_file(name)
    found = points.check(configs.load(name), wanted, name)
    assert len(found) == len(wanted) > 1
    for key in {key for point in found for key in point.overrides}:
        values = {str(dict(configs.flatten(point.config))[key]) for point in found}
        assert len(values) > 1, f"{key} is the same in every point"


def test_the_page_is_that_of_the_files():
    assert ablation_results.main(["--check"]) == 0, "run scripts/ablation_results.py"


def test_what_has_been_run_becomes_a_table(tmp_path, monkeypatch, capsys):
    folder, runs = tmp_path / "ablations", tmp_path / "runs"
    for name in ("ranks", "never_run"):
        file = folder / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f'"""Is {name} so?\n\nClaim: yes.\n\n    a command\n\nFound: no.\n"""\n')
    where = {"lora.rank": [2, 4]}
    for rank, right in zip(where["lora.rank"], (30, 60), strict=True):
        for seed in (0, 1):
            name = f"rank={rank},seed={seed}"
            run = seeded(runs / "ranks", name, seed, right + seed, **{"lora.rank": rank})
            (run / "SCORED").touch()
    swept = [{"lora.rank": rank, "seed": seed} for rank in (2, 4) for seed in (0, 1)]
    named = {points.name(point): point for point in swept}
    write_json(runs / "ranks" / "sweep.json", {"config": {}, "points": named})
    (runs / "seconds").write_text("ranks: 30 s\nother: 99 s\nranks: 75 s\n")
    assert cli.main(["sft", "report", str(runs / "ranks")]) == 0
    monkeypatch.setattr(ablation_results, "FOLDER", folder)
    monkeypatch.setattr(ablation_results, "RESULTS", folder / "results")
    assert ablation_results.main(["--runs", str(runs)]) == 0
    page = (folder / "README.md").read_text()
    assert "**Is ranks so?**" in page and "a command" not in page and "4 runs, 2 minutes" in page
    row = next(line for line in page.splitlines() if line.startswith("| test | `4` |"))
    assert "| 0, 1 | **67.2 %** [" in row and "| +33.3, p" in row
    assert page.index("## Not run yet") < page.index("Is never_run so?")
    assert ">rank 4<" in (folder / "results" / "plot.svg").read_text()
    assert ablation_results.main(["--check"]) == 0
    (folder / "ranks.py").write_text('"""Something else.\n\nFound: yes.\n"""\n')
    assert ablation_results.main(["--check"]) == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_published_fingerprints_are_those_of_today(path):
    """A setting that is added elsewhere must make no published run another one."""
    if path.stem == "lora_or_full":
        pytest.skip("published with another eval.batch_size, which needed more memory")
    name = str(path.relative_to(ROOT))
    with (ablation_results.RESULTS / f"{path.stem}.csv").open() as file:
        published = {word for line in csv.DictReader(file) for word in line["fingerprints"].split()}
    found = points.check(configs.load(name), points.from_file(name), name)
    assert {configs.fingerprint(point.config) for point in found} == published


HEAD = "set,lora.rank,seeds,metric,mean,low,high"
PUBLISHED = [
    "test,4,0 1,exact_match,0.8,0.7,0.9",
    "test,4,0 1,loss,0.5,0.4,0.6",
    "test,8,0 1,exact_match,0.0,,",
    "test,8,0 1,loss,0.5,,",
]


def checked(tmp_path, capsys, here):
    for name, lines in (("published/ranks", PUBLISHED), ("sweep", here)):
        file = tmp_path / f"{name}.csv"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join([HEAD, *lines]) + "\n")
    words = ["ranks", str(tmp_path / "sweep.csv"), "--results", str(tmp_path / "published")]
    code = ablation_check.main(words)
    return code, capsys.readouterr().out.splitlines()


def test_a_rerun_is_held_against_what_is_published(tmp_path, capsys):
    code, lines = checked(tmp_path, capsys, PUBLISHED)
    assert code == 0 and lines[-1].endswith(
        "4 the same to the digit, 0 within, 0 outside or missing."
    )
    assert "80.0 % [70.0 to 90.0 %]" in lines[1]
    # At the ends of the intervals; without one, 0.05 of a share and a tenth of a loss.
    edges = [
        "test,4,0 1,exact_match,0.9,,",
        "test,4,0 1,loss,0.4,,",
        "test,8,0 1,exact_match,0.05,,",
        "test,8,0 1,loss,0.549,,",
    ]
    code, lines = checked(tmp_path, capsys, edges)
    assert code == 0 and "0 the same to the digit, 4 within" in lines[-1]
    for i, worse in enumerate(("0.91", "0.39", "0.06", "0.56")):
        key = edges[i].rsplit(",", 3)[0]
        others = [edge for edge in edges if not edge.startswith(key)]
        code, lines = checked(tmp_path, capsys, [*others, f"{key},{worse},,"])
        assert code == 2 and lines[1 + i].endswith("outside") and "1 outside" in lines[-1]
        code, lines = checked(tmp_path, capsys, others)
        assert code == 2 and lines[1 + i].endswith("missing")


def test_answers_without_a_model_are_rows_of_their_own(tmp_path):
    lines = ["test,,,accuracy,0.3,,,one of 3 labels", "test,,,accuracy,0.5,,,always 'a'"]
    (tmp_path / "x.csv").write_text("\n".join([f"{HEAD},without_model", *lines]) + "\n")
    found = ablation_check.read(tmp_path / "x.csv")
    assert [float(line["mean"]) for line in found.values()] == [0.3, 0.5]
    assert [row.verdict for row in ablation_check.compare(found, found)] == ["same", "same"]


def test_what_cannot_be_checked_is_one_line(tmp_path, capsys):
    assert ablation_check.main(["ranks", str(tmp_path / "none.csv")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
