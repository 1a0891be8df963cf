"""JSONL files to conversations: one reader per format, and a reason for every rejected row.

A row's keys choose its reader from ``FORMATS``. To add a format, write its reader and add a line
there. Texts are kept exactly as written; ``sft.data.chat`` trims them as the chat template does.
"""

import collections
import dataclasses
import difflib
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from etils import epath

from sft.errors import UserError

MAX_LINE = 2**24  # bytes; far above any context window
_ROLES = ("user", "model")
_PAIR_KEYS = ("input_text", "output_text")
_NON_TEXT = {  # part kinds of the Gemini API, in lower case without underscores
    *("filedata", "inlinedata", "functioncall", "functionresponse"),
    *("executablecode", "codeexecutionresult"),
}


@dataclasses.dataclass(frozen=True)
class Turn:
    """What one side says. ``role``: 'user' or 'model'."""

    role: str
    text: str


@dataclasses.dataclass(frozen=True)
class Conversation:
    """Turns that start with the user, alternate, and end with the model.

    Attributes:
      system: system instruction, or ``None``.
      source: ``path:line``.
    """

    turns: tuple[Turn, ...]
    system: str | None
    source: str


@dataclasses.dataclass(frozen=True)
class Records:
    """Attributes: ``rejected``: (source, reason) pairs. ``counts``: kind of reason → rows."""

    conversations: list[Conversation]
    rejected: list[tuple[str, str]]
    counts: dict[str, int]


class Reject(Exception):
    """Why a row cannot be used: ``kind`` is counted, ``kind: detail`` is the reason shown."""

    def __init__(self, kind: str, detail: str):
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


def read(paths: str, max_rejected: float = 0.01) -> Records:
    """Reads JSONL files, in order.

    Args:
      paths: one path or several joined by commas; local or ``gs://``, plain or ``.gz``.
      max_rejected: largest share of rows that may be rejected.

    Raises:
      UserError: a missing, unreadable or empty file, too many rejected rows, or no usable row.
    """
    records = Records([], [], collections.Counter())
    for path in [part.strip() for part in paths.split(",")]:
        before = len(records.conversations) + len(records.rejected)
        for number, line in _lines(path):
            source = f"{path}:{number}"
            try:
                records.conversations.append(parse(line, source))
            except Reject as reject:
                records.rejected.append((source, str(reject)))
                records.counts[reject.kind] += 1
        if len(records.conversations) + len(records.rejected) == before:
            raise UserError(f"{path}: no rows. Expected JSONL, one example per line.")
    _check_share(records, max_rejected)
    return records


def parse(line: bytes, source: str) -> Conversation:
    """One line of a file as a conversation.

    Raises:
      Reject: with the reason.
    """
    row = _json(line)
    if not isinstance(row, dict):
        raise Reject("not an object", f"found {_name(row)}, expected one JSON object per line")
    for reader, keys in FORMATS:
        if keys & row.keys():
            _check_keys(row, keys, "")
            turns, system = reader(row)
            return Conversation(turns, system, source)
    known = [key for _, keys in FORMATS for key in sorted(keys)]
    if not row:
        raise Reject("missing field", f"empty object, expected one of {', '.join(known)}")
    raise _unknown_key(next(iter(row)), known, "")


def _gemini(row: dict) -> tuple[tuple[Turn, ...], str | None]:
    """``{"systemInstruction": {"parts": […]}, "contents": [{"role": …, "parts": […]}, …]}``."""
    spellings = [key for key in ("systemInstruction", "system_instruction") if key in row]
    if len(spellings) == 2:
        raise Reject("duplicate key", "systemInstruction and system_instruction in one row")
    system = None
    if spellings:
        content = _typed(row, spellings[0], dict, "")
        _check_keys(content, {"role", "parts"}, f"{spellings[0]}.")
        system = _parts_text(content, f"{spellings[0]}.")
    turns = []
    for index, content in enumerate(_typed(row, "contents", list, "")):
        where = f"contents[{index}]"
        if not isinstance(content, dict):
            raise Reject("wrong type", f"{where} is {_name(content)}, expected an object")
        _check_keys(content, {"role", "parts"}, f"{where}.")
        role = _typed(content, "role", str, f"{where}.")
        turns.append(Turn(role, _parts_text(content, f"{where}.")))
    problem = role_problem(turns)
    if problem:
        raise Reject("wrong role order", problem)
    return tuple(turns), system


def _pair(row: dict) -> tuple[tuple[Turn, ...], str | None]:
    """``{"input_text": …, "output_text": …}``."""
    question, answer = (_usable(_typed(row, key, str, ""), key) for key in _PAIR_KEYS)
    return (Turn("user", question), Turn("model", answer)), None


# Reader, and the keys by which its rows are known; nothing else may stand beside them.
Reader = Callable[[dict], tuple[tuple[Turn, ...], str | None]]
FORMATS: tuple[tuple[Reader, set[str]], ...] = (
    (_gemini, {"contents", "systemInstruction", "system_instruction"}),
    (_pair, set(_PAIR_KEYS)),
)


def role_problem(turns: Iterable[Turn], last: str = "model") -> str | None:
    """What is wrong with the order of the roles, or ``None``. ``last``: who must speak last."""
    roles = [turn.role for turn in turns]
    for index, role in enumerate(roles):
        if role != _ROLES[index % 2]:
            return f"contents[{index}].role is {role[:40]!r}, expected {_ROLES[index % 2]!r}"
    if not roles or roles[-1] != last:
        found = f"ends with {roles[-1]!r}" if roles else "has no turns"
        return f"contents {found}, expected {last!r} last"
    return None


def _parts_text(content: dict, where: str) -> str:
    """The concatenated texts of ``content["parts"]``."""
    texts = []
    for index, part in enumerate(_typed(content, "parts", list, where)):
        place = f"{where}parts[{index}]"
        if not isinstance(part, dict):
            raise Reject("wrong type", f"{place} is {_name(part)}, expected an object with 'text'")
        for key in part:
            if key.replace("_", "").lower() in _NON_TEXT:
                raise Reject("non-text part", f"{place} has {key!r}; only text is supported")
        _check_keys(part, {"text"}, f"{place}.")
        texts.append(_typed(part, "text", str, f"{place}."))
    return _usable("".join(texts), f"{where}parts")


def _usable(text: str, where: str) -> str:
    if not text.strip():
        raise Reject("empty text", f"{where} has no visible text")
    if "\0" in text:
        raise Reject("NUL character", f"{where}, character {text.index(chr(0)) + 1}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Reject("lone surrogate", f"{where}, character {error.start + 1}") from None
    return text


def _typed(row: dict, key: str, kind: type, where: str) -> Any:
    if key not in row:
        raise Reject("missing field", f"{where}{key}")
    if not isinstance(row[key], kind):
        raise Reject("wrong type", f"{where}{key} is {_name(row[key])}, expected {_NAMES[kind]}")
    return row[key]


def _check_keys(row: dict, known: set[str], where: str) -> None:
    for key in row:
        if key not in known:
            raise _unknown_key(key, sorted(known), where)


def _unknown_key(key: str, known: list[str], where: str) -> Reject:
    shown = ascii(key[:40])  # keys may hold line breaks and surrogates; reasons are one line
    near = difflib.get_close_matches(key[:40], known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
    return Reject("unknown key", f"{where}{shown}; {hint}")


_NAMES: dict[type, str] = {
    **{dict: "an object", list: "a list", str: "a string", type(None): "null"},
    **{int: "a number", float: "a number", bool: "a boolean"},
}


def _name(value: Any) -> str:
    return _NAMES[type(value)]


def _json(line: bytes) -> Any:
    if len(line) > MAX_LINE:
        raise Reject("line too long", f"over {MAX_LINE:,} bytes")
    if b"\0" in line:
        raise Reject("NUL character", "a zero byte in the file; is it UTF-16? Expected UTF-8")
    try:
        return json.loads(line.decode(), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise Reject("invalid UTF-8", f"byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise Reject("invalid JSON", f"column {error.colno}: {error.msg}") from None
    except ValueError as error:  # integers of over 4,300 digits
        raise Reject("invalid JSON", str(error)[:200]) from None
    except RecursionError:
        raise Reject("nested too deeply", "lists or objects inside one another") from None


def _object(pairs: list[tuple[str, Any]]) -> dict:
    row = dict(pairs)
    if len(row) < len(pairs):
        key = next(k for k, n in collections.Counter(k for k, _ in pairs).items() if n > 1)
        raise Reject("duplicate key", ascii(key[:40]))
    return row


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    """(1-based number, line) of the lines that are not blank, none much above ``MAX_LINE`` bytes.

    Raises:
      UserError: a missing or unreadable file, or a damaged ``.gz``.
    """
    if not path:
        raise UserError("data: an empty path. Expected JSONL paths joined by commas.")
    try:
        with epath.Path(path).open("rb") as raw:
            file = gzip.GzipFile(fileobj=raw) if path.endswith(".gz") else raw
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                rest = line
                while len(rest) > MAX_LINE and not rest.endswith(b"\n"):
                    rest = file.readline(MAX_LINE + 1)
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # byte order mark
                if line.strip():
                    yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged gzip file: {error}.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror or error}.") from None


def _check_share(records: Records, max_rejected: float) -> None:
    rows = len(records.conversations) + len(records.rejected)
    too_many = len(records.rejected) > max_rejected * rows
    if records.conversations and not too_many:
        return
    source, reason = records.rejected[0]
    counts = ", ".join(f"{kind} {count}" for kind, count in records.counts.items())
    limit = f"the limit is {max_rejected:.1%}" if too_many else "none is usable"
    raise UserError(
        f"{source}: {reason}. {len(records.rejected)} of {rows} rows rejected ({counts}); {limit}."
    )
