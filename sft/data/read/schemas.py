"""Rows to conversations: the keys of a row say which schema it follows.

``contents`` is Gemini's format, ``messages`` OpenAI's, ``conversations`` ShareGPT's; any other row
is a pair, read from the configured columns. Texts are kept exactly as written;
``sft.data.chat.encoding`` trims them as the chat template does.
"""

import functools
import re
from collections.abc import Iterable
from typing import Any

from sft.data.characters import is_blank
from sft.data.conversation import Conversation, Reading, Reject, Turn, template_parts
from sft.data.read import dialogues, pairs, parts
from sft.data.read import unread as beside
from sft.data.read.dialogues import DIALOGUES
from sft.data.read.fields import (
    check_keys,
    clean,
    holds,
    in_report,
    is_missing,
    present,
    type_name,
    typed,
    visible,
    written,
)
from sft.data.read.remarks import MISSING, MISSING_KEY, Notes, look_at
from sft.errors import UserError

_SYSTEM_KEYS = ("systemInstruction", "system_instruction")
_WHOLE = re.compile(r"(-?\d+)\.0+")


def parse(
    row: Any,
    source: str,
    reading: Reading,
    *,
    origin: str = "",
    answers: bool = True,
    training: bool = True,
) -> tuple[Conversation, Notes]:
    """One row as a conversation.

    Args:
      answers: False: a row may lack the answer, and a conversation may end with the user.
      training: whether a row that says it is not to be trained is rejected.

    Raises:
      Reject: with the reason.
      UserError: a template that does not fit the schema of the row.
    """
    if not isinstance(row, dict):
        raise Reject("not an object", f"found {type_name(row)}, expected one JSON object per line")
    schema = next((key for key in DIALOGUES if not is_missing(row.get(key))), "")
    notes = Notes()
    known = _known(schema, reading)
    if not schema and reading.prompt not in row:
        known += tuple(DIALOGUES)  # one of them may be misspelt
    unread = check_keys(row, known, "", notes.unread)
    if unread:
        beside.look(row, unread, schema, reading, notes, training and answers)
        for key in unread:
            # In a table, the columns of other rows are null; what nothing reads looks so too.
            if is_missing(row[key]) and reads(key, reading):
                notes.unread.discard(in_report(key))
    system, asked = None, 0
    if schema:
        turns, system = _dialogue(row, schema, reading, answers, notes)
        if reading.history and holds(row.get(reading.history)):
            found = f"{reading.history} beside {schema}; write all turns into {schema}"
            raise Reject("earlier turns", found)
    else:
        turns, system, asked = pairs.read(row, reading, answers, notes)
    if answers and not any(turn.trained for turn in turns if turn.role == "model"):
        raise Reject("nothing to train", f"every answer has {notes.context}")
    if reading.template:
        form = template_parts(reading.template)
        if schema and not any(name == "prompt" for _, name in form):
            raise UserError(
                f"{source}: {reading.setting}.template = {reading.template!r} has no {{prompt}}, "
                f"so this row with {schema!r} would lose its first question. Add {{prompt}}."
            )
        turns[asked] = _instructed(turns[asked], row, form)
    system = _system(row, system, reading, notes)
    look_at(turns, system, asked, notes)
    group = _key(row, reading.group, "group", reading, notes)
    category = _key(row, reading.category, "category", reading, notes)
    if reading.group_regex and (match := re.search(reading.group_regex, group)):
        group = match.group(1) or group
    return Conversation(tuple(turns), system, source, origin, group, category), notes


def reads(key: str, reading: Reading) -> bool:
    """Whether the value of this top-level key matters, whatever the schema of the row."""
    return beside.is_special(key) or key in _described(reading)


def names(key: str, reading: Reading) -> bool:
    """Whether a row with this top-level key is one that ``reading`` describes."""
    return key in _described(reading)


def columns(reading: Reading) -> dict[str, str]:
    """Columns that at least one row must have, though not every row, and the setting of each."""
    found = {reading.system: "system", reading.history: "history"}
    found |= {name: "template" for name in reading.fields if name != "prompt"}
    return {name: setting for name, setting in found.items() if name}


@functools.lru_cache
def _described(reading: Reading) -> frozenset[str]:
    """The top-level keys of rows of every schema."""
    return frozenset(key for schema in ("", *DIALOGUES) for key in _known(schema, reading))


@functools.lru_cache
def _known(schema: str, reading: Reading) -> tuple[str, ...]:
    """Top-level keys of a row of this schema, without repetition."""
    own = (schema, *_SYSTEM_KEYS) if schema == "contents" else (schema,)
    keys = own if schema else (reading.prompt, reading.response)
    keys = (*keys, reading.group, reading.category, *columns(reading))
    return tuple(dict.fromkeys(key for key in keys if key))


def _dialogue(
    row: dict, schema: str, reading: Reading, answers: bool, notes: Notes
) -> tuple[list[Turn], str | None]:
    items = typed(row, schema, list, "")
    try:
        return dialogues.whole(items, schema, reading, answers, notes)
    except Reject as reject:
        if reject.kind == "wrong role order" and all(holds(row.get(k)) for k in beside.PREFERENCE):
            detail = f"'chosen' and 'rejected' beside {schema!r} are not trained: add the better "
            raise Reject("preference", f"{detail}answer to {schema!r} as its last turn") from None
        raise


def _instructed(turn: Turn, row: dict, form: Iterable[tuple[str, str]]) -> Turn:
    """A question inside the template, whose other columns may be empty."""
    pieces, said = [], False
    for literal, name in form:
        pieces.append(literal)
        if name:
            piece = turn.text if name == "prompt" else written(row.get(name), name) or ""
            said = said or not is_blank(piece)
            pieces.append(piece)
    if not said:
        raise Reject("empty text", "every column of the template is empty")
    return Turn("user", visible("".join(pieces), "the prompt by the template"))


def _system(row: dict, own: str | None, reading: Reading, notes: Notes) -> str | None:
    """The system instruction of a row: empty ones are none."""
    given = [key for key in _SYSTEM_KEYS if "contents" in row and not is_missing(row.get(key))]
    if len(given) == 2:
        raise Reject("duplicate key", "systemInstruction and system_instruction in one row")
    for key in given:
        if isinstance(row[key], str) and is_blank(row[key]):
            continue
        content = {"parts": []} | present(typed(row, key, dict, ""))
        check_keys(content, ("role", "parts"), f"{key}.")
        place, items = f"{key}.parts", typed(content, "parts", list, f"{key}.")
        said = parts.join(items, place, openai=False, reading=reading, notes=notes).text
        own = None if is_blank(said) else clean(said, place)
    if reading.system and reading.system not in given:
        text = written(row.get(reading.system), reading.system) or ""
        if not is_blank(text):
            if own is not None:
                found = f"{reading.system} beside another system instruction"
                raise Reject("duplicate key", found)
            own = clean(text, reading.system)
    return own if own is not None else reading.instruction or None


def _key(row: dict, column: str, setting: str, reading: Reading, notes: Notes) -> str:
    """The value of a group or category column.

    Whole numbers lose the ``.0`` that pandas writes where another row has none, so that 3 and 3.0
    are one group.
    """
    if not column:
        return ""
    if column not in row:
        found = pairs.there(row)
        raise Reject("missing field", f"{column}; {found}: correct {reading.setting}.{setting}")
    key = written(row[column], column) or ""
    if is_blank(key):
        raise Reject(
            "missing field",
            f"{column} is empty, and {reading.setting}.{setting} needs it in every row: fill it "
            'in, with a key of its own where a row stands alone, or set that to ""',
        )
    if key in MISSING:
        notes.remarks.add(MISSING_KEY)
    whole = _WHOLE.fullmatch(key) if key.endswith("0") else None
    return clean(whole[1] if whole else key, column)
