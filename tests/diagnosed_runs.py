"""Runs that show one pattern each, really trained: a tiny random model through ``sft train``."""

import dataclasses
import functools
import random
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
import tiny_run
from tiny_run import SPEC, Project
from weight_layouts import make_tree, write_hf

LETTERS = "abcdefgh"


def rows(
    seed: str,
    count: int,
    letters: str = LETTERS,
    *,
    wrong: float = 0.0,
    shortest: int = 1,
    longest: int = 9,
) -> list[dict]:
    """The letter after the one asked about; any letter in a share ``wrong`` of the rows, so that
    nothing in the prompt tells it."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        letter = rng.choice(letters)
        said = rng.choice(LETTERS) if rng.random() < wrong else chr(ord(letter) + 1)
        prompt = " ".join([letter] * rng.randint(shortest, longest))
        found.append({"input_text": prompt, "output_text": said})
    return found


@dataclasses.dataclass(frozen=True)
class Case:
    train: list[dict]
    validation: list[dict]
    values: dict
    scale: float = 0.1  # of the random weights
    audit: bool = False  # sft data before training

    def build(self, path: Path) -> Project:
        project = tiny_run.build(path, self.values)
        tiny_run.write_rows(path / "train.jsonl", self.train)
        tiny_run.write_rows(path / "validation.jsonl", self.validation)
        if self.scale != 0.1:
            weights = jax.tree.map(lambda x: x * self.scale, make_tree(SPEC))
            write_hf(str(path / "weights.safetensors"), SPEC, weights)
        return project


FULL = {
    "lora.rank": 0,
    "lora.alpha": 1.0,
    "optim.learning_rate": 5e-3,
    "optim.schedule": "constant",
    "optim.warmup": 0.0,  # so that the same program is compiled for all
    "eval.batch_size": 128,  # all of a validation set at once
    "train.epochs": 4,
}
OVER = FULL | {"optim.learning_rate": 1e-2, "train.epochs": 12}
MANY, HELD_OUT = rows("train", 384), rows("validation", 128)
CASES = {
    "healthy": Case(MANY, HELD_OUT, FULL),
    "overfitting": Case(rows("few", 24, wrong=1.0), rows("others", 128, wrong=1.0), OVER),
    "suboptimal": Case(MANY, HELD_OUT, FULL | {"optim.learning_rate": 1e-4, "train.epochs": 2}),
    "slow": Case(MANY[:96], HELD_OUT, FULL | {"optim.learning_rate": 1e-7}),
    "no_gradient": Case(MANY[:96], HELD_OUT, FULL, scale=0.0),
    "diverged": Case(
        MANY[:96], HELD_OUT, FULL | {"optim.learning_rate": 10.0, "optim.clip_norm": 0.0}
    ),
    "wrong_weights": Case(MANY, HELD_OUT, FULL, scale=1.0),
    "cut": Case(
        rows("train", 384, longest=26),
        rows("validation", 128, longest=26),
        FULL | {"data.max_length": 24, "data.over_long": "truncate_response"},
    ),
    "other": Case(MANY, rows("validation", 128, shortest=20, longest=24), FULL, audit=True),
    "small": Case(
        rows("train", 1152, wrong=0.5),
        rows("held out", 6, wrong=0.5),  # half of them right, about as many as in training
        FULL | {"train.epochs": 3},
    ),
    "disagreement": Case(
        rows("train", 384, LETTERS[:4] * 12 + LETTERS[4:]),
        rows("noisy", 80, LETTERS[:4], wrong=1.0) + rows("clean", 48, LETTERS[4:]),
        FULL | {"train.epochs": 9},
    ),
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Iterator[Path]:
    """A folder for all of them; what is compiled for one is there for the others."""
    base = tmp_path_factory.mktemp("diagnosed")
    settings = {
        "jax_compilation_cache_dir": str(base / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    tiny_run._configure(settings)
    yield base
    tiny_run._configure(before)


@functools.cache
def trained(base: Path, name: str) -> Path:
    """The run directory of that case, trained when first asked for."""
    case = CASES[name]
    project = case.build(base / name)
    if case.audit:
        assert project.main("data", "run") == 0
    assert project.main("train", "run") == 0
    return project.path / "run"
