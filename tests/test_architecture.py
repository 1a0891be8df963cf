"""The rules of the design document that a reader could break without noticing."""

import ast
import graphlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sft.config import default, flatten

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "sft").rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))

# The rooms, from the top: a module imports from its own room or from those after it.
ROOMS = (
    *(
        "sft.__main__",
        "sft.cli",
        "sft.commands",
        "sft.export",
        "sft.report",
        "sft.tune",
        "sft.plan",
    ),
    *("sft.eval", "sft.train", "sft.session", "sft.data", "sft.model", "sft.mesh", "sft.run"),
    *("sft.config", "sft.types", "sft.errors"),
)
HEAVY = ("jax", "flax", "optax", "orbax", "gemma", "tensorflow", "grain", "gguf", "matplotlib")
HEAVY += ("apache_beam",)
IO = ("os", "pathlib", "json", "io", "shutil", "orbax", "etils", "tempfile", "urllib", "requests")

# Modules or rooms, and what none of their imports may be when they are imported.
NEVER_AT_IMPORT = {
    "sft.config": ("jax", "gemma"),
    "sft.data.read": ("jax", "gemma"),
    "sft.data.chat": ("jax", "gemma"),
    "sft.data.tokenizer": ("jax", "gemma"),
    "sft.data.audit": ("jax", "gemma"),
    "sft.data.batches": ("jax", "gemma"),
    "sft.data.sets.splits": ("jax", "gemma"),
    "sft.data.sets.augment": ("jax", "gemma"),
    "sft.cli": HEAVY,
    **{f"sft.commands.{name}": HEAVY for name in ("eval_judge", "eval_rate", "eval_calibrate")},
    "sft.commands.eval_lm": ("lm_eval",),
    "sft.commands.plan": HEAVY,  # it sets the environment that JAX reads when imported
}
# Modules or rooms, and what they may import nowhere.
NEVER = {
    "sft.plan.roofline": IO,
    "sft.plan.search": ("jax", *IO),
    "sft.mesh.axes": ("jax", *IO),
    "sft.mesh.slices": ("jax", *IO),
    "sft.mesh.sharding": IO,
    "sft.types": IO,
    "sft.data.batches": ("gemma",),
    "sft.model.specs": ("jax", *IO),
    **{
        f"sft.model.{name}": IO
        for name in ("flops", "decoder", "attention", "ops", "lora", "dora", "targets", "decode")
    },
    **{f"sft.train.{name}": IO for name in ("cut", "loss", "vocabulary", "steps", "optim")},
    **{f"sft.eval.{name}": ("jax", *IO) for name in ("stats", "bootstrap", "seeds")},
    "sft.eval.verdict": ("jax", "scipy", *IO),
    **{
        f"sft.eval.metrics.{name}": ("jax", *(module for module in IO if module != "json"))
        for name in (
            *("metric", "match", "folding", "numbers", "labels", "words", "overlap", "translation"),
            *("structured", "likelihood"),
        )
    },
    "sft.eval.suites.cases": ("jax", *IO),
    "sft.eval.suites.refusals": ("jax", *IO),
    **{
        f"sft.eval.judge.{name}": ("jax", *IO)
        for name in ("agreement", "bias", "corrected", "resample", "tables")
    },
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imports(tree: ast.AST, top_only: bool = False) -> Iterator[str]:
    """Imported modules, with ``from sft import x`` as ``sft.x``; skips ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield inner if inner in MODULES else module
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif not (top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield from imports(node, top_only)


def inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == p or module.startswith(p + ".") for p in packages)


def room(module: str) -> int:
    """Index of the module's room."""
    found = [i for i, name in enumerate(ROOMS) if inside(module, (name,))]
    assert found, f"{module} is in no room: put it into one, or add the room to ROOMS"
    return found[0]


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def members(place: str) -> list[str]:
    """A module, or all modules of a room."""
    found = [module for module in MODULES if inside(module, (place,))]
    assert found, f"there is no {place}"
    return found


def ours(module: str, top_only: bool = False) -> set[str]:
    """Modules of the package that the module imports."""
    return {i for i in imports(parsed(MODULES[module]), top_only) if i in MODULES and i != "sft"}


def test_imports_go_down():
    up = [
        f"{module} imports {imported}"
        for module in MODULES
        if module != "sft"
        for imported in ours(module)
        if room(imported) < room(module)
    ]
    assert up == []


def test_no_circle_between_files():
    graph = {module: ours(module) - {module} for module in MODULES}
    sorter = graphlib.TopologicalSorter(graph)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("place", NEVER_AT_IMPORT)
def test_light_modules_import_nothing_heavy_at_import(place):
    """Follows the imports of the package's own modules, as Python would."""
    waiting = members(place)
    seen = set(waiting)
    while waiting:
        name = waiting.pop()
        for imported in imports(parsed(MODULES[name]), top_only=True):
            assert not inside(imported, NEVER_AT_IMPORT[place]), f"{place}: {name}: {imported}"
            if imported in MODULES and imported not in seen:
                seen.add(imported)
                waiting.append(imported)


@pytest.mark.parametrize("place", NEVER)
def test_pure_modules_stay_pure(place):
    for module in members(place):
        tree = parsed(MODULES[module])
        for imported in imports(tree):
            assert not inside(imported, NEVER[place]), f"{module} imports {imported}"
        if NEVER[place][-1] in IO:
            called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call)
                      and isinstance(n.func, ast.Name)}  # fmt: skip
            assert not called & {"open", "print", "input"}, module


def test_every_knob_is_read():
    """A knob that nothing reads is a promise broken in silence."""
    text = "\n".join(p.read_text() for p in SOURCES + SCRIPTS if p != MODULES["sft.config"])
    leaves = {key: key.rsplit(".", 1)[-1] for key, _ in flatten(default())}
    dead = [key for key, leaf in leaves.items() if not re.search(rf"\.{leaf}\b", text)]
    assert dead == []


PROBE = """
import json, runpy, sys, time
sys.argv = ["sft", "--help"]
try:
    runpy.run_module("sft", run_name="__main__")
except SystemExit as stop:
    code = stop.code
print(json.dumps({"code": code, "cpu": time.process_time(), "modules": sorted(sys.modules)}))
"""


def test_help_is_quick_and_imports_nothing_heavy():
    run = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    result = json.loads(run.stdout.splitlines()[-1])
    assert not result["code"]
    assert "usage: sft" in run.stdout
    assert [m for m in result["modules"] if inside(m, HEAVY)] == []
    assert result["cpu"] < 2
