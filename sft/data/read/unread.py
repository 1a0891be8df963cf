"""Columns that nothing reads, looked at for what must not be lost in silence.

Flags that say not to train, earlier turns, reasoning, system instructions, marks of bad answers.
What must not be trained, or would be trained without what it stands on, is refused; the rest is a
remark.
"""

import ast
import functools
import json
from collections.abc import Iterable
from typing import Any

from sft.data.characters import is_blank
from sft.data.conversation import Reading, Reject
from sft.data.read import flags, thoughts
from sft.data.read.fields import has_non_text, holds, in_report, plain, words
from sft.data.read.remarks import Notes, Remark

PREFERENCE = ("chosen", "rejected")  # columns of a better and a worse answer
_HISTORY = "history"  # the column's usual name
_EARLIER = {"history", "previous", "past", "earlier", "prior", "context"}  # words of other names
_EARLIER |= {"turns", "dialog", "dialogue", "dialogs", "conversation", "chat"}
_SYSTEM = {"system", "systemprompt", "systemmessage", "systeminstruction", "systeminstructions"}
_SYSTEM |= {"sysprompt", "systemcontent"}
_BAD = {  # columns that may say an answer is bad → the value that does
    **dict.fromkeys(
        ("iscorrect", "correct", "chosen", "ischosen", "accepted", "isaccepted"), False
    ),
    **dict.fromkeys(("isgood", "isvalid", "valid", "approved", "isapproved", "keep"), False),
    **dict.fromkeys(("rejected", "isrejected", "isbad", "iswrong", "deleted", "isdeleted"), True),
    **dict.fromkeys(("ignore", "ignored", "skip", "exclude", "excluded"), True),
}
_ROLE_KEYS = (("role", "content"), ("from", "value"))


@functools.lru_cache(maxsize=4096)
def is_special(key: str) -> bool:
    """Whether a column that nothing reads must be looked at."""
    name = plain(key)
    special = has_non_text(key) or flags.is_of_row(key) or thoughts.is_key(key)
    special = special or name in _SYSTEM or name in _BAD or bool(words(key) & _EARLIER)
    return special or key.lower() in ("label", *PREFERENCE)


def look(
    row: dict, unread: Iterable[str], schema: str, reading: Reading, notes: Notes, trains: bool
) -> None:
    """Looks at the columns of a row that are not read.

    Args:
      schema: the key of its list of turns; ``""``: a prompt and an answer in columns.
      trains: whether the row is to be trained.

    Raises:
      Reject: the row is marked as not to be trained or as a bad answer, or earlier turns would be
        lost.
    """
    if trains:
        flags.of_row(row, unread, notes)
    asks = bool(schema or reading.fields or reading.prompt in row)  # else it lacks a prompt
    for key in unread:
        value = row[key]
        if thoughts.is_key(key) and holds(value):
            notes.remarks.add(thoughts.column(key))
        if plain(key) in _SYSTEM and isinstance(value, str) and not is_blank(value):
            notes.remarks.add(_system(key, reading))
        if asks and _is_earlier(key, value):
            raise Reject("earlier turns", _lost(key, schema, reading))
        if trains and not schema:
            _check_label(row, key, reading)
        if trains and (bad := _BAD.get(plain(key))) is not None and _truth(value) is bad:
            notes.remarks.add(_marked(key, bad))


def earlier(value: Any, name: str) -> Any:
    """A list of earlier turns as it is, or from its text: JSON, or Python's, as pandas writes it.

    Raises:
      Reject: text that is neither.
    """
    if not isinstance(value, str):
        return value
    found = _listed(value)
    if found is None:
        wanted = "a list of [question, answer] pairs or of messages, or the JSON text of one"
        raise Reject("wrong type", f"{name} is a string, expected {wanted}")
    return found


def turns_in(row: dict) -> str:
    """The first column that is a list of turns under a name that is not read so, or ``""``."""
    return next((key for key, value in row.items() if _are_turns(value)), "")


def _is_earlier(key: str, value: Any) -> bool:
    if not words(key) & _EARLIER:
        return False
    items = _listed(value) if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        return False
    if key.lower() == _HISTORY:
        return isinstance(items[0], list | dict)
    return _are_turns(items) or _are_pairs(items)


def _are_turns(items: Any) -> bool:
    """Whether this is a list of objects with a role and a text each."""
    if not isinstance(items, list) or not items:
        return False
    return all(
        isinstance(one, dict) and any(role in one and text in one for role, text in _ROLE_KEYS)
        for one in items
    )


def _are_pairs(items: list) -> bool:
    return all(
        isinstance(one, list) and len(one) == 2 and all(isinstance(text, str) for text in one)
        for one in items
    )


def _lost(key: str, schema: str, reading: Reading) -> str:
    if schema:
        return f"{key!a} has some beside {schema!a}; write all turns into {schema!a}, or remove it"
    return (
        f"{key!a} has some, which would be lost; to read them, set {reading.setting}.history = "
        f"{key!a}, or else remove the column"
    )


def _listed(text: str) -> list | None:
    """The list that a text writes, as JSON or as Python does; ``None``: it writes none."""
    if not text.lstrip().startswith("["):
        return None if holds(text) else []
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return _plain(found) if isinstance(found, list) else None
    return None


def _plain(value: Any) -> Any:
    """Tuples of Python as lists, as JSON has them."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _check_label(row: dict, key: str, reading: Reading) -> None:
    """TRL's rows for KTO: an answer, and whether it is a good one."""
    if key.lower() != "label" or (reading.prompt, reading.response) != ("prompt", "completion"):
        return
    if _truth(row[key]) is False:
        raise Reject(
            "preference",
            f"{key!a} is false: an answer marked as bad, as in rows for KTO, which is not trained. "
            "Keep the rows that have true there",
        )


def _truth(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _marked(key: str, value: bool) -> Remark:
    said = "true" if value else "false"
    return Remark(
        "warning",
        f"rows have {in_report(key)!a} = {said}, which nothing reads: their answers are trained",
        "If it marks answers as bad, leave these rows out.",
    )


def _system(key: str, reading: Reading) -> Remark:
    return Remark(
        "warning",
        f"a column {in_report(key)!a} is not read, whose name is that of a system instruction",
        f"To train with it as one, set {reading.setting}.system = {key[:40]!a}.",
    )
