"""Runs that show one pattern each, really trained: a tiny random model through ``sft train``."""

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import jax
import tiny_run
from tiny_run import SPEC, Project
from weight_layouts import make_tree, write_hf

LETTERS = "abcdefgh"


def rows(
    seed: str, count: int, letters: str = LETTERS, answer: Callable | None = None, longest: int = 9
) -> list[dict]:
    """The letter after the one asked about, unless ``answer`` of a random source says otherwise."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        letter = rng.choice(letters)
        said = answer(rng) if answer else chr(ord(letter) + 1)
        prompt = " ".join([letter] * rng.randint(1, longest))
        found.append({"input_text": prompt, "output_text": said})
    return found


def guess(rng: random.Random) -> str:
    """Nothing in the prompt tells it: what is learnt of a row helps no other."""
    return rng.choice(LETTERS)


@dataclasses.dataclass(frozen=True)
class Case:
    train: list[dict]
    validation: list[dict]
    values: dict
    scale: float = 0.1  # of the random weights

    def build(self, path: Path) -> Project:
        project = tiny_run.build(path, self.values)
        tiny_run.write_rows(path / "train.jsonl", self.train)
        tiny_run.write_rows(path / "validation.jsonl", self.validation)
        if self.scale != 0.1:
            weights = jax.tree.map(lambda x: x * self.scale, make_tree(SPEC))
            write_hf(str(path / "weights.safetensors"), SPEC, weights)
        return project


FULL = {"lora.rank": 0, "lora.alpha": 1.0, "optim.learning_rate": 5e-3, "train.epochs": 4}
MANY, HELD_OUT = rows("train", 384), rows("validation", 128)
CASES = {
    "healthy": Case(MANY, HELD_OUT, FULL),
    "overfitting": Case(
        rows("few", 24, answer=guess),
        rows("others", 128, answer=guess),
        FULL | {"train.epochs": 20},
    ),
    "suboptimal": Case(MANY, HELD_OUT, FULL | {"optim.learning_rate": 1e-4, "train.epochs": 2}),
    "still": Case(MANY[:96], HELD_OUT, FULL | {"optim.learning_rate": 1e-7}),
    "diverged": Case(
        MANY[:96], HELD_OUT, FULL | {"optim.learning_rate": 1.0, "optim.clip_norm": 0.0}
    ),
    "start": Case(MANY, HELD_OUT, FULL, scale=1.0),
    "cut": Case(
        rows("train", 384, longest=30), HELD_OUT,
        FULL | {"data.max_length": 24, "data.over_long": "truncate_response"},
    ),
    "other": Case(MANY, rows("validation", 128, letters="ABCDEFGH", longest=3), FULL),
    "small": Case(MANY, HELD_OUT[:6], FULL),
}
