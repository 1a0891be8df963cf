"""Rows with a prompt and an answer in columns: texts, or lists of messages as TRL writes them."""

import json
import shlex
from typing import Any

from sft.data.conversation import Reading, Reject, Turn
from sft.data.read import dialogues, unread
from sft.data.read.dialogues import DIALOGUES, Said
from sft.data.read.fields import holds, is_missing, type_name, visible, written
from sft.data.read.remarks import Notes, Remark

_ROLES = DIALOGUES["messages"]
_CONTEXT = Remark(
    "note",
    "answers inside lists of prompts are context and not trained",
    "To train them, give the whole list as messages.",
)


def read(
    row: dict, reading: Reading, answers: bool, notes: Notes
) -> tuple[list[Turn], str | None, int]:
    """The turns of a row, its system instruction, and the index of the turn a template is for.

    Answers inside the prompt are context; those of ``reading.history`` are trained.

    Raises:
      Reject: with the reason.
    """
    history = _history(row, reading, notes) if reading.history else []
    uses_prompt = not reading.fields or "prompt" in reading.fields
    asked, system = [Turn("user", "")], None  # made of other columns, by the template
    if uses_prompt:
        asked, system = _asked(row, reading, notes)
    turns = [*history, *asked]
    if answers or not _is_absent(row.get(reading.response)):
        turns += _answer(row, reading, notes, last="model" if answers else "")
    return turns, system, len(history)


def there(row: dict) -> str:
    """'the row has …', with its first columns."""
    listed = ", ".join(f"{name[:40]!a}" for name in list(row)[:8])
    return f"the row has {listed or 'no fields'}"


def _is_absent(value: Any) -> bool:
    return is_missing(value) or value == "" or value == []


def _asked(row: dict, reading: Reading, notes: Notes) -> tuple[list[Turn], str | None]:
    """The turns of the prompt column, the last of the user."""
    value = row.get(reading.prompt)
    if not isinstance(value, list):
        return [Turn("user", _column(row, "prompt", reading))], None
    said = dialogues.read(value, _ROLES, reading.prompt, reading, notes, trained=False)
    if said.turns and said.turns[-1].role == "model" and reading.response not in row:
        found = f"{reading.prompt!a} is a whole conversation with its answer"
        raise Reject("wrong role order", f"{found}: {_rename(reading.prompt)}")
    said.check("user")
    if any(turn.role == "model" and not turn.trained for turn in said.turns):
        notes.remarks.add(_CONTEXT)
    return said.turns, said.system


def _answer(row: dict, reading: Reading, notes: Notes, last: str) -> list[Turn]:
    """The turns of the answer column, the first of the model."""
    value = row.get(reading.response)
    if not isinstance(value, list):
        return [Turn("model", _column(row, "response", reading))]
    said = dialogues.read(value, _ROLES, reading.response, reading, notes)
    if not value or said.first:
        raise Reject("wrong role order", f"{reading.response} must start with an answer")
    question = Turn("user", "?")  # stands for the prompt
    keys = _ROLES.keys[0]
    Said(said.name, [question, *said.turns], [keys, *said.keys], first=-1).check(last)
    return said.turns


def _history(row: dict, reading: Reading, notes: Notes) -> list[Turn]:
    """Earlier exchanges: ``[[question, answer], …]``, or messages."""
    name, value = reading.history, row.get(reading.history)
    if isinstance(value, Reject):
        raise value
    if not holds(value):
        return []
    value = unread.earlier(value, name)
    if not value:
        return []
    if not isinstance(value, list):
        found = f"{name} is {type_name(value)}, expected a list of [question, answer] pairs"
        raise Reject("wrong type", found)
    if isinstance(value[0], dict):
        said = dialogues.read(value, _ROLES, name, reading, notes)
        said.check("model")
        if said.system:
            raise Reject("wrong role order", f"{name} has a system instruction; expected none")
        return said.turns
    turns = []
    for index, pair in enumerate(value):
        place = f"{name}[{index}]"
        if not isinstance(pair, list) or len(pair) != 2:
            found = f"a list of {len(pair)}" if isinstance(pair, list) else type_name(pair)
            raise Reject("wrong type", f"{place} is {found}, expected a [question, answer] pair")
        for role, item, end in zip(("user", "model"), pair, "01", strict=True):
            text = written(item, f"{place}[{end}]") or ""
            turns.append(Turn(role, visible(text, f"{place}[{end}]")))
    return turns


def _column(row: dict, setting: str, reading: Reading) -> str:
    key = getattr(reading, setting)
    if key not in row:
        raise Reject("missing field", _missing(row, key, setting, reading))
    text = written(row[key], key)
    if text is None:
        value = "null" if row[key] is None else "NaN"
        raise Reject("missing field", f"{key} is {value}")
    return visible(text, key)


def _rename(key: str) -> str:
    command = f".messages = .[{json.dumps(key)}] | del(.[{json.dumps(key)}])"
    return f"rename it to 'messages', as jq -c {shlex.quote(command)} does"


def _missing(row: dict, key: str, setting: str, reading: Reading) -> str:
    what = "prompt" if setting == "prompt" else "answer"
    where = f"{reading.setting}.{setting}"
    if not row.keys() >= {*unread.PREFERENCE}:
        if turns := unread.turns_in(row):
            return f"{key}; {there(row)}: {turns[:40]!a} is a list of turns: {_rename(turns)}"
        if setting == "prompt" and len(row) == 1 and isinstance(next(iter(row.values())), str):
            return (
                f"{key}; {there(row)} and no other: a row needs a prompt and an answer, in two "
                "columns or as a list of turns under 'messages'"
            )
        return f"{key}; {there(row)}: set {where} to the column of the {what}"
    pair = "'chosen' and 'rejected' are a preference, which is not trained"
    first = next(iter(row["chosen"]), None) if isinstance(row["chosen"], list) else None
    if isinstance(first, dict) and first.get("role") != "assistant":
        return f"{key}; {pair}: to train on the better dialogue, rename 'chosen' to 'messages'"
    if setting == "response":
        return f"{key}; {pair}: to train on the better answer, set {where} = 'chosen'"
    return f"{key}; {pair}. Set {where} to the column of the {what}"
