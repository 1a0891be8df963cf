"""The files of ``configs/ablations``: sound, short, and said in full."""

import ast
import re
from pathlib import Path

import pytest

from sft import config as configs
from sft.tune import points

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "configs" / "ablations"
FILES = sorted(path for path in FOLDER.glob("*.py") if path.name != "base.py")
README = FOLDER / "README.md"


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
