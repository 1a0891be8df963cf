"""What may stand in a row: keys, types and texts, and the reason when it may not."""

import difflib
import functools
import math
import re
from decimal import Decimal
from typing import Any

from sft.data.characters import is_blank, surrogate
from sft.data.conversation import Reject

_NON_TEXT = {  # keys that carry more than text, in lower case without underscores
    *("filedata", "inlinedata", "functionresponse", "executablecode", "codeexecutionresult"),
    *("functioncall", "toolcalls", "toolcallid", "tools", "functions", "functiondeclarations"),
    *("image", "images", "imageurl", "audio", "audios", "video", "videos"),
}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_NOTHING = frozenset({"", "[]", "{}", "null", "none", "nan", "[null]", "[{}]"})  # as text


class Number(str):
    """A number with a point or an exponent, as a JSON file writes it: 0.10 stays 0.10."""

    __slots__ = ()


def visible(text: str, where: str) -> str:
    """``text``, if it can be read by a person and written as UTF-8.

    Raises:
      Reject: it cannot.
    """
    if is_blank(text):
        raise Reject("empty text", f"{where} has no visible text")
    return clean(text, where)


def clean(text: str, where: str) -> str:
    """``text``, empty or not, if it can be written as UTF-8 and has no zero character."""
    if "\0" in text:
        raise Reject("NUL character", f"{where}, character {text.index(chr(0)) + 1}")
    if place := surrogate(text):
        raise Reject("lone surrogate", f"{where}, character {place}")
    return text


def written(value: Any, where: str) -> str | None:
    """The text of a value: numbers as they are written, ``None`` where it is null or NaN.

    Raises:
      Reject: it is a list, an object, a date or the like, or could not be read.
    """
    if isinstance(value, str):
        return str(value)
    if is_missing(value):
        return None
    if isinstance(value, Reject):
        raise value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isinf(value):
        raise Reject("not a number", f"{where} is {'-' if value < 0 else ''}Infinity")
    if isinstance(value, int | float | Decimal):
        return str(value)
    raise Reject("wrong type", f"{where} is {type_name(value)}, expected a string")


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: null, NaN, which pandas writes for it, or an object of
    nulls alone, which Parquet has where other rows have one."""
    if isinstance(value, dict):
        return bool(value) and all(map(is_missing, value.values()))
    return value is None or (isinstance(value, float | Decimal) and value != value)


def present(row: dict) -> dict:
    """``row`` without the keys whose value is missing: Parquet has all keys in every row."""
    if any(is_missing(value) for value in row.values()):
        return {key: value for key, value in row.items() if not is_missing(value)}
    return row


def holds(value: Any) -> bool:
    """Whether a value holds anything: not null, an empty list, or the JSON text of one."""
    if isinstance(value, str):
        return "".join(value[:40].split()).lower() not in _NOTHING and not is_blank(value)
    return not is_missing(value) and (isinstance(value, Reject) or bool(value))


def typed(row: dict, key: str, kind: type, where: str) -> Any:
    """``row[key]``, if it is there and a ``kind``."""
    value = row.get(key)
    if isinstance(value, kind):
        return value
    if isinstance(value, Reject):
        raise value
    if is_missing(value):
        raise Reject("missing field", f"{where}{key}")
    found = f"{where}{key} is {type_name(value)}, expected {_NAMES[kind]}"
    if isinstance(value, str) and value[:1] in ("[", "{"):
        found += "; if it is JSON, parse it before the file is written"
    raise Reject("wrong type", found)


def check_keys(
    row: dict,
    known: tuple[str, ...],
    where: str,
    unread: set[str] | None = None,
    counted_as: str = "",
) -> list[str]:
    """Adds the keys of ``row`` that are not known to ``unread``, if none is a mistake.

    Args:
      where: place of ``row`` in its row, for the reason of a reject.
      unread: without it, no key may be unknown.
      counted_as: put before the keys in ``unread``.

    Returns:
      The keys that are not known.

    Raises:
      Reject: a key near one that is known and missing, or one that carries more than text.
    """
    unknown = [key for key in row if key not in known]
    if not unknown:
        return unknown
    absent = known if unread is None else tuple(name for name in known if name not in row)
    for key in unknown:
        if has_non_text(key) and (unread is None or holds(row[key])):
            raise Reject("non-text part", f"{where}{key}; only text is supported")
        if near := _nearest(key[:40], absent):
            raise Reject("unknown key", f"{where}{key[:40]!a}; did you mean {near!r}?")
        if unread is None:
            found = f"{where}{key[:40]!a}; known here: {', '.join(known)}"
            raise Reject("unknown key", found)
        unread.add(counted_as + in_report(key))
    return unknown


@functools.lru_cache(maxsize=4096)
def in_report(key: str) -> str:
    """A key as counts show it: cut, and with what is not Unicode spelt out."""
    return key[:80].encode(errors="backslashreplace").decode()


def printable(place: str) -> str:
    """A place in a row on one line: keys may hold anything."""
    return place if place.isprintable() else ascii(place)[1:-1]


@functools.lru_cache(maxsize=4096)
def _nearest(key: str, known: tuple[str, ...]) -> str:
    return next(iter(difflib.get_close_matches(key, known, n=1, cutoff=0.8)), "")


_NAMES: dict[type, str] = {
    **{dict: "an object", list: "a list", str: "a string", type(None): "null"},
    **{int: "a number", float: "a number", Number: "a number", Decimal: "a number"},
    bool: "a boolean",
}


@functools.lru_cache(maxsize=4096)
def has_non_text(key: str) -> bool:
    """Whether a key is one that carries images, sound, files or tool calls."""
    return plain(key) in _NON_TEXT


@functools.lru_cache(maxsize=4096)
def plain(key: str) -> str:
    """A key in lower case without separators: 'lossMask' and 'loss_mask' are one."""
    return key.replace("_", "").replace("-", "").lower()


@functools.lru_cache(maxsize=4096)
def words(key: str) -> frozenset[str]:
    """The words of a key in lower case: 'lossMask' and 'loss_mask' have two."""
    return frozenset(word.lower() for word in _WORD.findall(key))


def type_name(value: Any) -> str:
    """'a list', 'a string': as a sentence calls it."""
    return _NAMES.get(type(value), type(value).__name__)
