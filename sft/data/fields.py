"""What may stand in a row: keys, types and texts, and the reason when it may not."""

import difflib
import functools
from typing import Any

from sft.data.conversation import Reject

_NON_TEXT = {  # keys that carry more than text, in lower case without underscores
    *("filedata", "inlinedata", "functionresponse", "executablecode", "codeexecutionresult"),
    *("functioncall", "toolcalls", "toolcallid", "tools", "functions", "functiondeclarations"),
    *("image", "images", "imageurl", "audio", "audios", "video", "videos"),
}


def visible(text: str, where: str) -> str:
    """``text``, if it can be read by a person and written as UTF-8.

    Raises:
      Reject: it cannot.
    """
    if not text.strip():
        raise Reject("empty text", f"{where} has no visible text")
    return clean(text, where)


def clean(text: str, where: str) -> str:
    """``text``, empty or not, if it can be written as UTF-8 and has no zero character."""
    if "\0" in text:
        raise Reject("NUL character", f"{where}, character {text.index(chr(0)) + 1}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Reject("lone surrogate", f"{where}, character {error.start + 1}") from None
    return text


def typed(row: dict, key: str, kind: type, where: str) -> Any:
    """``row[key]``, if it is there and a ``kind``."""
    if key not in row:
        raise Reject("missing field", f"{where}{key}")
    if not isinstance(row[key], kind):
        raise Reject(
            "wrong type", f"{where}{key} is {type_name(row[key])}, expected {_NAMES[kind]}"
        )
    return row[key]


def check_keys(
    row: dict,
    known: tuple[str, ...],
    where: str,
    unread: set[str] | None = None,
    counted_as: str = "",
) -> None:
    """Adds the keys of ``row`` that are not known to ``unread``, if none is a mistake.

    Args:
      where: place of ``row`` in its row, for the reason of a reject.
      unread: without it, no key may be unknown.
      counted_as: put before the keys in ``unread``.

    Raises:
      Reject: a key near one that is known and missing, or one that carries more than text.
    """
    for key in row:
        if key in known:
            continue
        shown = f"{where}{key[:40]!a}"  # keys may hold line breaks; reasons are one line
        if has_non_text(key) and (row[key] or unread is None):
            raise Reject("non-text part", f"{where}{key}; only text is supported")
        absent = known if unread is None else tuple(name for name in known if name not in row)
        if near := _nearest(key[:40], absent):
            raise Reject("unknown key", f"{shown}; did you mean {near!r}?")
        if unread is None:
            raise Reject("unknown key", f"{shown}; known here: {', '.join(known)}")
        unread.add(counted_as + key[:80].encode(errors="backslashreplace").decode())


@functools.lru_cache(maxsize=4096)
def _nearest(key: str, known: tuple[str, ...]) -> str:
    return next(iter(difflib.get_close_matches(key, known, n=1, cutoff=0.8)), "")


_NAMES: dict[type, str] = {
    **{dict: "an object", list: "a list", str: "a string", type(None): "null"},
    **{int: "a number", float: "a number", bool: "a boolean"},
}


def has_non_text(key: str) -> bool:
    """Whether a key is one that carries images, sound, files or tool calls."""
    return key.replace("_", "").lower() in _NON_TEXT


def type_name(value: Any) -> str:
    """'a list', 'a string': as a sentence calls it."""
    return _NAMES.get(type(value), type(value).__name__)


def is_int(value: Any) -> bool:
    """A whole number, which JSON's true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)
