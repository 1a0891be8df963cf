"""What is judged: the predictions that ``sft eval`` wrote, as items with ids that tell nothing."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sft.errors import UserError

_ENDING = ".predictions.jsonl"
_FIELDS = ("source", "prompt", "expected", "predicted")


@dataclasses.dataclass(frozen=True)
class Item:
    """One answer to be scored, or two to be compared.

    Attributes:
      arms: of ``answers``: one, or two in the order in which they are shown.
      set: name of the evaluated set.
      row: index in the file of predictions, from 0.
      source: file and line of the data.
      expected: the reference answer.
    """

    arms: tuple[str, ...]
    set: str
    row: int
    source: str
    prompt: str
    expected: str
    answers: tuple[str, ...]

    @property
    def id(self) -> str:
        """Twelve hex digits of all of it: another answer, arm or order has another id."""
        text = json.dumps(dataclasses.astuple(self))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def swapped(self) -> "Item":
        return dataclasses.replace(self, arms=self.arms[::-1], answers=self.answers[::-1])


def arm_name(checkpoint: str) -> str:
    """Of ``--checkpoint``: a step's number is called ``step<N>``."""
    return f"step{checkpoint}" if re.fullmatch("[0-9]+", checkpoint) else checkpoint


def load(folder: Path, arms: Sequence[str], reference: bool = True) -> dict[str, list[Item]]:
    """The items of each set that all of these arms have answered, by name of the set.

    Args:
      folder: ``eval`` of a run.
      arms: one to score, two to compare.
      reference: whether every row must have one.

    Raises:
      UserError: an arm has not been evaluated, a row has no reference, is malformed, or the arms
        were asked different prompts.
    """
    found = [_sets(folder, arm) for arm in arms]
    items = {}
    for name in found[0]:
        if not all(name in sets for sets in found):
            continue
        files = [sets[name] for sets in found]
        rows = [_rows(file, reference) for file in files]
        for other, file in zip(rows[1:], files[1:], strict=True):
            _check_same(rows[0], other, files[0], file)
        items[name] = [
            Item(
                arms=tuple(arms),
                set=name,
                row=index,
                source=same[0]["source"],
                prompt=same[0]["prompt"],
                expected=same[0]["expected"],
                answers=tuple(row["predicted"] for row in same),
            )
            for index, same in enumerate(zip(*rows, strict=True))
        ]
    if not items:
        raise UserError(f"{folder}: {' and '.join(arms)} have no set in common. Run sft eval.")
    return items


def cut(folder: Path, arms: Sequence[str], name: str) -> dict[str, int]:
    """How many answers of each arm to this set reached ``config.eval.max_new_tokens``.

    An arm whose answers were made before this was written down is left out.
    """
    found = {}
    for arm in arms:
        rows = _rows(_sets(folder, arm)[name], reference=False)
        if all("cut" in row for row in rows):
            found[arm] = sum(bool(row["cut"]) for row in rows)
    return found


def draw(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """The first ``count`` of a random order that only ``seed`` and the number of items decide.

    So a smaller draw is part of a larger one, and the same rows are drawn of every arm. 0 = all.
    """
    order = np.random.default_rng(seed).permutation(len(items)).tolist()
    return [items[i] for i in sorted(order[: count or None])]


def _sets(folder: Path, arm: str) -> dict[str, Path]:
    # An arm's name may have a dot, as base.4shot; a set's has none.
    files = [f for f in sorted(folder.glob(f"*{_ENDING}")) if not f.name.startswith("judge.")]
    parts = [(file, *file.name.removesuffix(_ENDING).rpartition(".")[::2]) for file in files]
    found = {name: file for file, its, name in parts if its == arm}
    if not found:
        known = sorted({its for _, its, _ in parts})
        raise UserError(
            f"{folder}: no predictions of {arm!r}. Run sft eval {_option(arm)}."
            + (f" There are some of {', '.join(known)}." if known else "")
        )
    return found


def _option(arm: str) -> str:
    """How ``sft eval`` is asked for it: ``--checkpoint=7`` for ``step7``."""
    if shots := re.fullmatch(r"base\.([0-9]+)shot", arm):
        return f"--checkpoint=base --config.eval.shots={shots[1]}"
    return f"--checkpoint={arm.removeprefix('step')}"


def _rows(path: Path, reference: bool) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line:
            continue
        try:
            row = json.loads(line)
            wrong = next((f for f in _FIELDS if not isinstance(row.get(f), str)), None)
        except (ValueError, AttributeError):
            wrong = "row"
        if wrong:
            raise UserError(
                f"{path}:{number}: {wrong!r} is not as sft eval writes it. Remove the file and run "
                "sft eval again."
            )
        if reference and not row["expected"].strip():
            raise UserError(
                f"{path}:{number}: a prediction without a reference to judge it by. Give one, or "
                "set config.judge.reference=False."
            )
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: no predictions in it. Run sft eval on a set with rows.")
    return rows


def _check_same(ours: list, theirs: list, our_file: Path, their_file: Path) -> None:
    if len(ours) != len(theirs):
        raise UserError(
            f"{their_file}: {len(theirs)} rows, but {our_file} has {len(ours)}. Run sft eval for "
            "both arms with the same settings."
        )
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True), 1):
        if (a["prompt"], a["expected"]) != (b["prompt"], b["expected"]):
            raise UserError(
                f"{their_file}:{number}: another prompt or reference than {our_file}:{number}. "
                "Run sft eval for both arms on the same data."
            )
