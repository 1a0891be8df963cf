"""The rules of the design document that a reader could break without noticing."""

import ast
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

# A module imports only from its own layer or from those before it.
LAYERS = (
    (
        "sft.errors",
        "sft.types",
        "sft.config",
        "sft.config_check",
        "sft.config_effects",
        "sft.config_idle",
        "sft.bucket",
        "sft.signals",
        "sft.template",
        "sft.commands",
    ),
    ("sft.layout",),
    ("sft.coordinator",),
    ("sft.hosts",),
    ("sft.workdir", "sft.topology", "sft.progress"),
    ("sft.lock", "sft.bucket_lock"),
    ("sft.data", "sft.model"),
    ("sft.inputs", "sft.sources", "sft.framing", "sft.sets", "sft.training_set"),
    ("sft.train",),
    ("sft.eval",),
    ("sft.plan",),
    ("sft.report",),
    ("sft.tune", "sft.export"),
    ("sft.data.main", "sft.train.main", "sft.eval.main", "sft.plan.main", "sft.report.main"),
    ("sft.cli",),
    ("sft.__main__",),
)
HEAVY = ("jax", "flax", "optax", "orbax", "gemma", "tensorflow", "grain", "gguf", "matplotlib")
HEAVY += ("apache_beam",)
IO = ("os", "pathlib", "json", "io", "shutil", "orbax", "etils", "tempfile", "urllib", "requests")

# Modules, and what none of their imports may be, at module level or anywhere.
NEVER_AT_IMPORT = {
    "sft.config": ("jax", "gemma"),
    **{
        f"sft.data.{name}": ("jax", "gemma")
        for name in (
            *("files", "schemas", "records", "splits", "augment", "chat", "tokenizer", "examples"),
            *("fit", "order", "pipeline", "audit"),
        )
    },
    "sft.cli": HEAVY,
    **{f"sft.eval.judge.{name}": HEAVY for name in ("main", "rate", "calibrate")},
    "sft.eval.lm": ("lm_eval",),
    "sft.plan.main": HEAVY,  # it sets the environment that JAX reads when imported
}
NEVER = {
    "sft.plan.roofline": IO,
    "sft.plan.search": ("jax", *IO),
    "sft.layout": ("jax", *IO),
    "sft.topology": ("jax", *IO),
    "sft.types": IO,
    "sft.data.pipeline": ("gemma",),
    "sft.model.flops": IO,
    "sft.model.specs": ("jax", *IO),
    "sft.model.decoder": IO,
    "sft.model.attention": IO,
    "sft.model.lora": IO,
    "sft.model.sharding": IO,
    "sft.model.generate": IO,
    "sft.model.slots": IO,
    "sft.model.sampling": IO,
    "sft.model.cached": IO,
    "sft.train.cut": IO,
    "sft.train.loss": IO,
    "sft.train.vocabulary": IO,
    "sft.train.steps": IO,
    "sft.eval.stats": ("jax", *IO),
    "sft.eval.bootstrap": ("jax", *IO),
    "sft.eval.seeds": ("jax", *IO),
    "sft.eval.verdict": ("jax", "scipy", *IO),
    **{
        f"sft.eval.metrics.{name}": ("jax", *(module for module in IO if module != "json"))
        for name in (
            *("metric", "match", "numbers", "labels", "words", "overlap", "translation"),
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


def layer(module: str) -> int:
    """Index of the layer whose entry matches longest."""
    found = [(len(p), i) for i, layer in enumerate(LAYERS) for p in layer if inside(module, (p,))]
    assert found, f"{module} has no layer: add it to LAYERS"
    return max(found)[1]


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@pytest.mark.parametrize("module", [m for m in MODULES if m != "sft"])
def test_imports_go_one_way(module):
    for imported in imports(parsed(MODULES[module])):
        if imported != "sft" and inside(imported, ("sft",)):
            assert layer(imported) <= layer(module), f"{module} imports {imported}"
            siblings = {inside(m, ("sft.data",)) for m in (module, imported)}
            if layer(module) == layer(imported) == layer("sft.data"):
                assert len(siblings) == 1, f"{module} imports {imported}: data and model are apart"


@pytest.mark.parametrize("module", NEVER_AT_IMPORT)
def test_light_modules_import_nothing_heavy_at_import(module):
    """Follows the imports of the package's own modules, as Python would."""
    seen, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        seen.add(name)
        for imported in imports(parsed(MODULES[name]), top_only=True):
            assert not inside(imported, NEVER_AT_IMPORT[module]), f"{module}: {name}: {imported}"
            if imported in MODULES and imported not in seen:
                waiting.append(imported)


@pytest.mark.parametrize("module", NEVER)
def test_pure_modules_stay_pure(module):
    tree = parsed(MODULES[module])
    for imported in imports(tree):
        assert not inside(imported, NEVER[module]), f"{module} imports {imported}"
    if NEVER[module][-1] in IO:
        called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call)
                  and isinstance(n.func, ast.Name)}  # fmt: skip
        assert not called & {"open", "print", "input"}


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
