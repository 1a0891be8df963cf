"""Rows to conversations: the keys of a row say which schema it follows.

``contents`` is Gemini's format, ``messages`` OpenAI's, ``conversations`` ShareGPT's; any other row
is a pair, read from the configured columns. To add a format of turns, add a line to ``DIALOGUES``.
Texts are kept exactly as written; ``sft.data.chat`` trims them as the chat template does.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sft.data.conversation import (
    GEMINI,
    Conversation,
    Labels,
    Reading,
    Reject,
    Turn,
    role_problem,
    template_parts,
)
from sft.data.fields import check_keys, clean, has_non_text, is_int, type_name, typed, visible
from sft.errors import UserError

_SYSTEM_KEYS = ("systemInstruction", "system_instruction")


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """A format with a list of turns.

    Attributes:
      text: key of a turn's text.
      roles: role as written → 'user', 'model', 'system' (first turn only) or 'tool' (refused).
      strict: an unknown key in a turn rejects the row; otherwise it is counted as unread.
    """

    labels: Labels
    text: str
    roles: Mapping[str, str]
    strict: bool = False


DIALOGUES = {
    "contents": Dialogue(GEMINI, "parts", {"user": "user", "model": "model"}, strict=True),
    "messages": Dialogue(
        Labels("messages", "role", "user", "assistant"),
        "content",
        {"system": "system", "developer": "system", "user": "user", "assistant": "model"}
        | {"tool": "tool", "function": "tool"},
    ),
    "conversations": Dialogue(
        Labels("conversations", "from", "human", "gpt"),
        "value",
        {"system": "system", "human": "user", "user": "user"}
        | dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "assistant", "model"), "model")
        | dict.fromkeys(("tool", "function_call", "observation"), "tool"),
    ),
}


@dataclasses.dataclass
class Notes:
    """What was not read of a row, and what was repaired in it."""

    unread: set[str] = dataclasses.field(default_factory=set)
    repaired: list[str] = dataclasses.field(default_factory=list)


def parse(
    row: Any, source: str, reading: Reading, *, origin: str = "", answers: bool = True
) -> tuple[Conversation, Notes]:
    """One row as a conversation.

    Args:
      answers: False: a row may lack the answer, and a conversation may end with the user.

    Raises:
      Reject: with the reason.
      UserError: a template that does not fit the schema of the row.
    """
    if not isinstance(row, dict):
        raise Reject("not an object", f"found {type_name(row)}, expected one JSON object per line")
    schema = next((key for key in DIALOGUES if row.get(key) is not None), "")
    notes = Notes()
    known = _known(schema, reading)
    if not schema and reading.prompt not in row:
        known += tuple(DIALOGUES)  # one of them may be misspelt
    check_keys(row, known, "", notes.unread)
    if schema:
        turns, system = _dialogue(row, DIALOGUES[schema], reading, answers, notes)
    else:
        turns, system = _pair(row, reading, answers), None
    if answers and not any(turn.trained for turn in turns if turn.role == "model"):
        raise Reject("nothing to train", "every answer has weight 0")
    if reading.template:
        parts = template_parts(reading.template)
        if schema and not any(name == "prompt" for _, name in parts):
            raise UserError(
                f"{source}: reading.template = {reading.template!r} has no {{prompt}}, so this "
                f"row with {schema!r} would lose its first question. Add {{prompt}}."
            )
        turns = [_instructed(turns[0], row, parts), *turns[1:]]
    system = _system(row, system, reading)
    group, category = _key(row, reading.group), _key(row, reading.category)
    if reading.group_regex and (match := re.search(reading.group_regex, group)):
        group = match.group(1) or group
    return Conversation(tuple(turns), system, source, origin, group, category), notes


def reads(key: str, reading: Reading) -> bool:
    """Whether the value of this top-level key matters, whatever the schema of the row."""
    return has_non_text(key) or any(key in _known(name, reading) for name in ("", *DIALOGUES))


@functools.lru_cache
def _known(schema: str, reading: Reading) -> tuple[str, ...]:
    """Top-level keys of a row of this schema, without repetition."""
    fields = [name for _, name in template_parts(reading.template) if name and name != "prompt"]
    own = (schema, *_SYSTEM_KEYS) if schema == "contents" else (schema,)
    keys = own if schema else (reading.prompt, reading.response)
    keys = (*keys, reading.system, reading.group, reading.category, *fields)
    return tuple(dict.fromkeys(key for key in keys if key))


def _dialogue(
    row: dict, form: Dialogue, reading: Reading, answers: bool, notes: Notes
) -> tuple[list[Turn], str | None]:
    name = form.labels.turns
    items = typed(row, name, list, "")
    turns: list[Turn] = []
    system, first = None, 0
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise Reject("wrong type", f"{name}[{index}] is {type_name(item)}, expected an object")
        turn = _turn(item, form, f"{name}[{index}].", notes)
        if turn.role == "system" and not index:
            system, first = visible(turn.text, f"{name}[0].{form.text}"), 1
        else:
            turns.append(turn)
    if not turns:
        raise Reject("no turns", f"{name} has no turns, expected at least a question and an answer")
    if "leading_model" in reading.repairs and turns[0].role == "model":
        del turns[0]
        first += 1
        notes.repaired.append("leading_model")
    if answers and "trailing_user" in reading.repairs and turns and turns[-1].role == "user":
        del turns[-1]
        notes.repaired.append("trailing_user")
    problem = role_problem(turns, "model" if answers else "", form.labels, first)
    if problem:
        raise Reject("wrong role order", problem)
    for index, turn in enumerate(turns, first):
        visible(turn.text, f"{name}[{index}].{form.text}")
    return turns, system


def _turn(item: dict, form: Dialogue, where: str, notes: Notes) -> Turn:
    labels = form.labels
    if item.keys() != {labels.role, form.text}:
        unread = None if form.strict else notes.unread
        check_keys(item, (labels.role, form.text, "weight"), where, unread, f"{labels.turns}[].")
    written = typed(item, labels.role, str, where)
    role = form.roles.get(written)
    if role is None:
        known = ", ".join(name for name, role in form.roles.items() if role != "tool")
        found = f"{where}{labels.role} is {written[:40]!a}, expected one of {known}"
        raise Reject("unknown role", found)
    if role == "tool":
        raise Reject("non-text part", f"{where}{labels.role} is {written!r}; only text is read")
    text = _text(item, form, where)
    weight = item.get("weight")
    if weight is None or role != "model":
        if weight is not None:
            notes.unread.add(f"{labels.turns}[].weight of {written[:40]!a}")
        return Turn(role, text)
    if isinstance(weight, bool) or weight not in (0, 1):
        raise Reject("wrong type", f"{where}weight is {str(weight)[:40]!a}, expected 0 or 1")
    return Turn(role, text, bool(weight))


def _text(item: dict, form: Dialogue, where: str) -> str:
    if form.text == "parts" or (form.text == "content" and isinstance(item.get("content"), list)):
        parts = typed(item, form.text, list, where)
        return _parts_text(parts, f"{where}{form.text}", openai=form.text == "content")
    return typed(item, form.text, str, where)


def _parts_text(parts: list, where: str, openai: bool = False) -> str:
    """The concatenated texts of ``{"text": …}``; OpenAI's have ``"type": "text"`` beside it."""
    texts = []
    for index, part in enumerate(parts):
        place = f"{where}[{index}]"
        if not isinstance(part, dict):
            raise Reject(
                "wrong type", f"{place} is {type_name(part)}, expected an object with 'text'"
            )
        if openai and (kind := typed(part, "type", str, f"{place}.")) != "text":
            raise Reject("non-text part", f"{place}.type is {kind[:40]!a}; only text is read")
        check_keys(part, ("type", "text") if openai else ("text",), f"{place}.")
        texts.append(typed(part, "text", str, f"{place}."))
    return "".join(texts)


def _pair(row: dict, reading: Reading, answers: bool) -> list[Turn]:
    fields = [name for _, name in template_parts(reading.template) if name]
    turns = [Turn("user", "")]  # made of other columns, by the template
    if not fields or "prompt" in fields:
        turns = [Turn("user", _column(row, reading.prompt))]
    if answers or row.get(reading.response) not in (None, ""):
        turns.append(Turn("model", _column(row, reading.response)))
    return turns


def _column(row: dict, key: str) -> str:
    if key not in row:
        there = ", ".join(f"{name[:40]!a}" for name in list(row)[:8])
        raise Reject("missing field", f"{key}; the row has {there or 'no fields'}")
    return visible(typed(row, key, str, ""), key)


def _instructed(turn: Turn, row: dict, parts: Iterable[tuple[str, str]]) -> Turn:
    """The first question, inside the template."""
    pieces = []
    for literal, name in parts:
        pieces.append(literal)
        if name == "prompt":
            pieces.append(turn.text)
        elif name and name not in row:
            raise Reject("missing field", f"{name[:40]!a}, a column of the template")
        elif name:
            pieces.append(str(row[name]) if is_int(row[name]) else typed(row, name, str, ""))
    return Turn("user", visible("".join(pieces), "the prompt by the template"))


def _system(row: dict, own: str | None, reading: Reading) -> str | None:
    given = [key for key in _SYSTEM_KEYS if key in row and "contents" in row]
    if len(given) == 2:
        raise Reject("duplicate key", "systemInstruction and system_instruction in one row")
    for key in given:
        content = typed(row, key, dict, "")
        check_keys(content, ("role", "parts"), f"{key}.")
        text = _parts_text(typed(content, "parts", list, f"{key}."), f"{key}.parts")
        own = visible(text, f"{key}.parts")
    column = row.get(reading.system) if reading.system not in ("", *given) else None
    if column is not None and typed(row, reading.system, str, "").strip():
        if own is not None:
            raise Reject("duplicate key", f"{reading.system} beside another system instruction")
        own = visible(column, reading.system)
    return own if own is not None else reading.instruction or None


def _key(row: dict, column: str) -> str:
    """The value of a group or category column; whole numbers as they are written."""
    if not column:
        return ""
    value = row.get(column)
    if value is None:
        raise Reject("missing field", column)
    return str(value) if is_int(value) else clean(typed(row, column, str, ""), column)
