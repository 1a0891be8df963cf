"""The files of ``configs/ablations``: sound, short, and said in full."""

import ast
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
