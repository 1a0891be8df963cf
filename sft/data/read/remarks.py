"""What a person should know of rows that are used: columns not read, repairs, suspicious texts."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from sft.data.conversation import Turn


class Remark(NamedTuple):
    """One finding of the audit, counted.

    Attributes:
      severity: 'warning' or 'note'.
      text: what was found; the number of places and the first of them follow it.
      remedy: what to do about it.
      unit: what is counted: 'row' or 'file'.
    """

    severity: str
    text: str
    remedy: str
    unit: str = "row"


@dataclasses.dataclass
class Notes:
    """What is to be reported of one row.

    Attributes:
      unread: keys that are not read.
      repaired: repairs that were made.
      context: what made an answer context, as in ``weight 0``.
    """

    unread: set[str] = dataclasses.field(default_factory=set)
    repaired: set[str] = dataclasses.field(default_factory=set)
    remarks: set[Remark] = dataclasses.field(default_factory=set)
    context: str = ""


_SPACE = "\u2581"  # SentencePiece's own spelling of a space
_SPACE_ANSWER = Remark(
    "warning",
    f"answers hold {_SPACE!r} (U+2581), which the tokenizer takes for a space",
    "They are trained with a space there, and exact_match can never be 1: use another character.",
)
_SPACE_PROMPT = Remark(
    "warning",
    f"prompts hold {_SPACE!r} (U+2581), which the tokenizer takes for a space",
    "The model is shown a space there: use another character.",
)
# What str() makes of a missing value.
MISSING = frozenset({"nan", "NaN", "NaT", "None", "null", "NULL", "<NA>"})
_MISSING_ANSWER = Remark(
    "warning",
    "answers are 'nan', 'None' or the like, as str() writes a missing value",
    "If the answer is missing, leave the cell empty or remove the row: the model learns the word.",
)
_MISSING_PROMPT = Remark(
    "warning",
    "prompts end with 'nan', 'None' or the like, as str() writes a missing value",
    "If that column is missing, leave it empty, and put the columns together with "
    "config.data.reading.template.",
)
_WITH_POINT = Remark(
    "note",
    "answers are whole numbers with '.0', as pandas writes them where another row has none",
    "To train 1 rather than 1.0, save the column as whole numbers: astype('Int64').",
)
MISSING_KEY = Remark(
    "warning",
    "groups or categories are 'nan', 'None' or the like, as str() writes a missing value",
    "All of these rows are one group: give each row a key of its own.",
)
_SHORT = 16  # characters: an answer or the end of a prompt that may be one word


def look_at(turns: Sequence[Turn], system: str | None, asked: int, notes: Notes) -> None:
    """Adds what is suspicious about the texts of a row. ``asked``: the turn of its prompt."""
    if system and _SPACE in system:
        notes.remarks.add(_SPACE_PROMPT)
    for turn in turns:
        is_answer = turn.role == "model"
        if _SPACE in turn.text:
            notes.remarks.add(_SPACE_ANSWER if is_answer else _SPACE_PROMPT)
        if is_answer and len(turn.text) < _SHORT:
            text = turn.text.strip()
            if text in MISSING:
                notes.remarks.add(_MISSING_ANSWER)
            elif text[-2:] == ".0" and text[:-2].removeprefix("-").isdecimal():
                notes.remarks.add(_WITH_POINT)
    if _ends_missing(turns[asked].text):
        notes.remarks.add(_MISSING_PROMPT)


def _ends_missing(text: str) -> bool:
    words = text[-_SHORT:].split()
    if not words or words[-1] not in MISSING:
        return False
    before = text.rstrip()[: -len(words[-1])]
    return not before or before[-1].isspace()
