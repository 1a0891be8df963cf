"""Verdicts of a judge and ratings of people, side by side."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sft.errors import UserError
from sft.eval.judge import ratings as ratings_lib
from sft.eval.judge.summary import POINTS
from sft.run.directory import read_json


@dataclasses.dataclass(frozen=True)
class Group:
    """The judged rows of one arm (or two that are compared) and set.

    Attributes:
      label: of the arms, as in the names of the files.
      judge_n: float64; a score, or 1, 0, -1 for win, tie, loss of the first; NaN = no verdict.
      doublings_n: log2 of the characters of the answer; of two answers, of their ratio.
      people_nxR: float64, by rater; NaN = not rated.
    """

    label: str
    set: str
    result: dict[str, Any]
    judge_n: np.ndarray
    doublings_n: np.ndarray
    people_nxR: np.ndarray


def groups(
    folder: Path, mode: str, ratings: Sequence[ratings_lib.Rating], raters: Sequence[str]
) -> list[Group]:
    """Every judged set of this mode that people rated rows of.

    Raises:
      UserError: an id is unknown, or has not been judged; names file and line. The groups are not
        of one judge.
    """
    by_id = {rating.id: [] for rating in ratings}
    for rating in ratings:
        by_id[rating.id].append(rating)
    found = []
    for path in sorted(folder.glob("judge.*.verdicts.jsonl")):
        result = read_json(path.with_name(path.name.replace(".verdicts.jsonl", ".json")))
        if result["mode"] == mode:
            group = _group(path, result, by_id, raters)
            if np.isfinite(group.people_nxR).any():
                found.append(group)
    unknown = [rating for matches in by_id.values() for rating in matches]
    if unknown:
        _refuse(folder, mode, unknown)
    judges = {json.dumps(group.result["judge"], sort_keys=True): group for group in found}
    if len(judges) > 1:
        (a, b), *_ = zip(judges.values(), list(judges.values())[1:], strict=False)
        raise UserError(
            f"{folder}: {a.label} on {a.set} and {b.label} on {b.set} were judged by different "
            "judges, templates or rubrics. Run sft eval judge for both with the same settings."
        )
    return found


def _group(path: Path, result: dict, by_id: dict[str, list], raters: Sequence[str]) -> Group:
    """Takes the ratings of its rows out of ``by_id``."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    people_nxR = np.full((len(lines), len(raters)), np.nan)
    judge_n = np.full(len(lines), np.nan)
    for row, line in enumerate(lines):
        # In the other order, a win of what is shown first is a loss of the first arm.
        shown = {line["id"]: 1} if "id" in line else dict(zip(line["ids"], (1, -1), strict=True))
        value = line["score"] if "score" in line else line["outcome"]
        if value is not None:
            judge_n[row] = 2 * POINTS[value] - 1 if isinstance(value, str) else value
        for id, sign in shown.items():
            for rating in by_id.pop(id, []):
                people_nxR[row, raters.index(rating.rater)] = sign * rating.value
    lengths = np.array([line["lengths"] for line in lines], np.float64)
    doublings_nxA = np.log2(1 + lengths)
    doublings_n = doublings_nxA[:, 0] - (doublings_nxA[:, 1] if lengths.shape[1] == 2 else 0)
    label = "_vs_".join(lines[0]["arms"])
    return Group(label, result["set"], result, judge_n, doublings_n, people_nxR)


def _refuse(folder: Path, mode: str, unknown: Sequence[ratings_lib.Rating]) -> None:
    first, more = unknown[0], len(unknown) - 1
    rest = f" So have {more} more lines." if more else ""
    pages = folder / f"judge.rate.{mode}.json"
    shown = read_json(pages)["items"] if pages.exists() else {}
    if first.id in shown:
        arm, name = shown[first.id]["arms"][0], shown[first.id]["set"]
        raise UserError(
            f"{first.where}: id {first.id!r} is of {arm} on {name}, and has no verdict of the "
            f"judge yet.{rest} Run sft eval judge --checkpoint={arm}, then this again."
        )
    raise UserError(
        f"{first.where}: unknown id {first.id!r}: it is of no row that was judged or put on a page "
        f"in {folder} with config.judge.mode = {mode!r}.{rest} Are these ratings of this run, and "
        "of its present answers?"
    )
