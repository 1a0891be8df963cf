"""Every knob is read: a setting that nothing looks at would be a lie in every ablation."""

import ast
from pathlib import Path

import pytest

from sft.config import default, flatten

SFT = Path(__file__).parents[1] / "sft"
DECLARED = ("config/__init__.py", "config/check.py")


OWNERS = ("config", "options", "own", "knobs")  # what a part of the configuration is called


def read_names() -> set[str]:
    """``group.leaf`` as it stands in an expression, for every attribute outside the declaration.

    ``reading = config.data.reading`` and then ``reading.format`` gives ``reading.format``. Of a
    group that is read by ``group[name]`` or unpacked into a dataclass, also the names that stand
    alone: as ``"leaf"``, and as a field.
    """
    found = set()
    for path in SFT.rglob("*.py"):
        if path.relative_to(SFT).as_posix() in DECLARED:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                owner = getattr(node.value, "attr", None) or getattr(node.value, "id", "")
                found.add(f"{owner}.{node.attr}")
            elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute):
                found.add(f"{node.value.attr}[]")
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(f'"{node.value}"')
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(f"{node.target.id}:")
    return found


READ = read_names()
UNPACKED = ("data.reading",)
KEYS = [key for key, _ in flatten(default())]


def is_read(key: str) -> bool:
    group, _, leaf = key.rpartition(".")
    owner = group.rpartition(".")[2]
    if any(f"{name}.{leaf}" in READ for name in (owner, *OWNERS)):
        return True
    by_name = f"{owner}[]" in READ and f'"{leaf}"' in READ
    return by_name or (group in UNPACKED and f"{leaf}:" in READ)


@pytest.mark.parametrize("key", KEYS)
def test_every_knob_is_read(key):
    assert is_read(key), f"nothing reads config.{key}"


@pytest.mark.parametrize(
    "key", ["optim.unheard", "data.reading.unheard", "data.unheard", "unheard"]
)
def test_a_knob_that_is_not_would_be_seen(key):
    assert not is_read(key)
