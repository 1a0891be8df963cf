"""A complete project of a few kilobytes in a directory: tokenizer, weights, data, configuration.

The task can be learnt: the answer is the letter after the one in the question. The model is
random, so what is learnt comes from tuning.
"""

import dataclasses
import functools
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from test_tokenizer import tiny_pieces
from weight_layouts import make_tree, write_hf

from sft import cli
from sft import config as configs
from sft.data.tokenizer import sentencepiece as tokenizer_lib
from sft.model import specs

ROOT = Path(__file__).parents[1]
SPEC = dataclasses.replace(specs.tiny("gemma3"), name="tiny_run", num_layers=3, vocab=512)
CONFIG = """\
import dataclasses
import os
import time

from sft.config import default
from sft.model import specs

specs.SPECS["tiny_run"] = dataclasses.replace(
    specs.tiny("gemma3"), name="tiny_run", num_layers=3, vocab=512
)

if os.environ.get("SLOW_BATCHES"):  # so that a signal finds the run at work
    from sft.data.batches import pipeline

    make_batch = pipeline.make_batch
    pause = 0.15 * float(os.environ["SLOW_BATCHES"])
    pipeline.make_batch = lambda *args: (time.sleep(pause), make_batch(*args))[1]


def get_config():
    config = default()
{lines}
    return config
"""
SIZES = {"train": 96, "validation": 20, "test": 12}
# Sizes are cut. Other than by default are the name, which some tests need without weights, and what
# would change the counts of all tests and take time in each: exact duplicates, of which the toy
# rows are full, and the baseline. tests/test_defaults.py has all by default.
VALUES = {
    "model.name": "tiny_run",
    "model.dtype": "float32",
    "model.remat": "none",
    "data.max_length": 32,
    "data.max_over_long": 0.0,
    "data.dedup.exact": False,
    "data.eval_max_length": 64,
    "lora.rank": 4,
    "lora.alpha": 8.0,
    "optim.learning_rate": 2e-2,
    "train.epochs": 3,
    "train.batch_size": 8,
    "train.baseline": False,
    "eval.batch_size": 8,
    "eval.max_new_tokens": 3,
}


@dataclasses.dataclass(frozen=True)
class Project:
    """Where it lies, and how to use it. ``main`` runs in this process, on 8 fake devices."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.py"

    def words(self, command: str, workdir: str | Path, *more: str) -> list[str]:
        run = workdir if str(workdir).startswith("gs://") else self.path / workdir
        return [command, f"--config={self.config}", f"--workdir={run}", *more]

    def main(self, command: str, workdir: str | Path, *more: str) -> int:
        return cli.main(["sft", *self.words(command, workdir, *more)])

    def values(self, **changes):
        """The configuration as an object; ``optim__clip_norm=…`` changes a value."""
        config = configs.from_dict(dict(configs.flatten(configs.default())) | VALUES | self.paths())
        for key, value in changes.items():
            group, _, leaf = key.rpartition("__")
            setattr(config[group] if group else config, leaf, value)
        return config

    def paths(self) -> dict[str, str]:
        return {
            "model.weights": str(self.path / "weights.safetensors"),
            "model.tokenizer": str(self.path / "tokenizer.model"),
        } | {f"data.{name}": str(self.path / f"{name}.jsonl") for name in SIZES}

    def process(self, command: str, workdir: str | Path, *more: str, **environment: str):
        """The command as a process of its own, started and not waited for."""
        return subprocess.Popen(
            [sys.executable, "-m", "sft", *self.words(command, workdir, *more)],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def copy(self, source: str, target: Path) -> Path:
        return Path(shutil.copytree(self.path / source, target))

    def rows(self, workdir: str | Path, split: str | None = None) -> list[dict]:
        """``metrics.jsonl`` without what is measured in seconds."""
        lines = (self.path / workdir / "metrics.jsonl").read_text().splitlines()
        rows = [{k: v for k, v in json.loads(s).items() if "second" not in k} for s in lines]
        return [row for row in rows if split in (None, row["split"])]


def build(path: Path, values: dict | None = None) -> Project:
    """Writes the project into ``path``; ``values`` are changes of the configuration."""
    project = Project(path)
    path.mkdir(parents=True, exist_ok=True)
    model = tokenizer_lib._model_proto(tiny_pieces())
    (path / "tokenizer.model").write_bytes(model)
    weights = jax.tree.map(lambda x: x * 0.1, make_tree(SPEC))
    write_hf(str(path / "weights.safetensors"), SPEC, weights)
    for name, count in SIZES.items():
        write_rows(path / f"{name}.jsonl", toy_rows(name, count))
    write_config(project.config, VALUES | project.paths() | (values or {}))
    return project


def toy_rows(name: str, count: int) -> list[dict]:
    rng = random.Random(name)
    letters = [rng.choice("abcdefgh") for _ in range(count)]
    return [
        {"input_text": " ".join([c] * rng.randint(1, 9)), "output_text": chr(ord(c) + 1)}
        for c in letters
    ]


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_config(path: Path, values: dict) -> Path:
    path.write_text(
        CONFIG.format(lines="\n".join(f"    config.{k} = {v!r}" for k, v in values.items()))
    )
    return path


@functools.cache
def _trained(path: Path) -> Project:
    project = build(path)
    assert project.main("train", "done") == 0
    return project


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One project, and in ``done`` its whole uninterrupted run; tests only read it.

    What is compiled once is kept on disk, for later runs and other processes.
    """
    base = tmp_path_factory.getbasetemp() / "tiny"
    settings = {
        "jax_compilation_cache_dir": str(base / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    _configure(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(base / "home"))
        for name, value in settings.items():
            patch.setenv(name.upper(), str(value))
        patch.setitem(specs.SPECS, SPEC.name, SPEC)
        yield _trained(base)
    _configure(before)


def _configure(settings: dict) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path_factory):
    """The tiny model is a row of the table while a test runs, and caches are the test's own."""
    monkeypatch.setitem(specs.SPECS, SPEC.name, SPEC)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
