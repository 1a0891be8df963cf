"""What people said: CSV files of the page of ``sft eval rate``, or of the same columns.

Columns: ``id`` and ``rater``, and ``score`` or ``winner`` by the mode. Others are not read.
"""

import csv
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from sft.config import nearest
from sft.errors import UserError

WINNERS = {"A": 1, "tie": 0, "B": -1}


@dataclasses.dataclass(frozen=True)
class Rating:
    """Attributes:
    id: of the item that was shown.
    value: the score, or 1, 0, -1 for A, tie, B.
    where: file and line.
    """

    id: str
    rater: str
    value: int
    where: str


@dataclasses.dataclass(frozen=True)
class Ratings:
    """``unrated``: rows whose value is empty."""

    ratings: list[Rating]
    unrated: int


def read(config: ConfigDict, paths: Sequence[str]) -> Ratings:
    """All files together.

    Raises:
      UserError: a file is missing or has no such columns, a value is out of scale, or a rater
        rated the same item twice; names file and line. Files are only read: nothing is lost.
    """
    found: list[Rating] = []
    unrated = 0
    seen: dict[tuple[str, str], str] = {}
    for path in paths:
        for where, id, rater, text in _lines(Path(path), value_column(config)):
            if not text:
                unrated += 1
                continue
            if (id, rater) in seen:
                raise UserError(
                    f"{where}: {rater!r} has rated {id!r} already, in {seen[id, rater]}. Remove "
                    "one of the two lines."
                )
            seen[id, rater] = where
            found.append(Rating(id, rater, _value(config, text, where), where))
    if not found:
        raise UserError(f"{', '.join(paths)}: no ratings in it.")
    return Ratings(found, unrated)


def value_column(config: ConfigDict) -> str:
    return "score" if config.judge.mode == "pointwise" else "winner"


def _lines(path: Path, column: str) -> Iterator[tuple[str, str, str, str]]:
    """(file:line, id, rater, value), without the space around them."""
    wanted = ("id", "rater", column)
    try:
        # A spreadsheet may put a byte order mark before the first name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, restval="")
            names = list(rows.fieldnames or [])
            for name in wanted:
                if name not in names:
                    hint = nearest(name, names) if names else ""
                    raise UserError(
                        f"{path}:1: no column {name!r}, expected {', '.join(wanted)}, separated by "
                        f"commas.{hint}"
                    )
            for row in rows:
                where = f"{path}:{rows.line_num}"
                id, rater, value = (row[name].strip() for name in wanted)
                for name, text in (("id", id), ("rater", rater)):
                    if not text:
                        raise UserError(f"{where}: the column {name!r} is empty.")
                yield where, id, rater, value
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable CSV file in UTF-8 ({error}).") from None


def _value(config: ConfigDict, text: str, where: str) -> int:
    low, high = config.judge.low, config.judge.high
    if config.judge.mode == "pairwise":
        if text not in WINNERS:
            raise UserError(f"{where}: winner {text!r}, expected one of {', '.join(WINNERS)}.")
        return WINNERS[text]
    try:
        value = float(text)
    except ValueError:
        value = low - 0.5
    if not (value.is_integer() and low <= value <= high):
        raise UserError(f"{where}: score {text!r}, expected a whole number from {low} to {high}.")
    return int(value)
