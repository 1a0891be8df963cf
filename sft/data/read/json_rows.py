"""JSON text to values: one per line, or the items of one long list without holding all of it."""

import codecs
import collections
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from sft.data.conversation import Reject
from sft.data.read.fields import Number
from sft.errors import UserError

MAX_LINE = 2**24  # bytes of one row; far above any context window
_CHUNK = 2**22  # bytes read at a time

_SPACE = re.compile(r"[ \t\n\r]*")
_INVALID = re.compile("[\udc80-\udcff]")  # how surrogateescape spells a byte that is not UTF-8
_MORE = re.compile(r"(?:\.|[eE][+-]?)?\Z")  # after a number at the end of a text that goes on
# What may stand between the place of an error and the end of a text that only lacks its rest.
_BEGINNING = re.compile(
    r"\s*(?:t(?:ru?)?|f(?:a(?:ls?)?)?|n(?:ul?)?|N(?:aN?)?|-?(?:I(?:n(?:f(?:i(?:n(?:it?)?)?)?)?)?)?"
    r"|\.|[eE][+-]?|\\?u?[0-9a-fA-F]{0,4})?\Z"
)


class Readable(Protocol):
    """A file of bytes that is read from its beginning."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, ``b""`` at the end."""
        ...


def line_value(line: bytes, decoder: "Decoder") -> Any:
    """The value of one line, or a ``Reject``. Spaces around it do not count."""
    if len(line) > MAX_LINE:
        return Reject("line too long", f"over {MAX_LINE:,} bytes")
    if b"\0" in line:
        return Reject("NUL character", "a zero byte in the file; is it UTF-16? Expected UTF-8")
    try:
        text = line.decode()
        return decoder.whole(text)
    except UnicodeDecodeError as error:
        return Reject("invalid UTF-8", f"byte {error.start + 1}")
    except json.JSONDecodeError as error:
        if _unfinished(error) and not line.endswith(b"\n") and text.strip():
            return Reject("cut off", f"the text ends in the middle, at character {len(text)}")
        return Reject("invalid JSON", f"column {error.colno}: {error.msg}")
    except RecursionError:
        return Reject("nested too deeply", "lists or objects inside one another")


def list_values(file: Readable, path: str) -> Iterator[tuple[int, Any]]:
    """(line on which it starts, value or ``Reject``) of the items of a JSON list.

    A list that ends too soon yields its whole items and then one ``Reject``, "cut off".

    Raises:
      UserError: a syntax error, after which it is not known where the next item starts.
    """
    window = _Window(file, path)
    decoder = Decoder()
    window.token()
    window.at += 1  # the bracket
    token = window.token()
    while token and token != "]":
        number = window.line
        value = _item(window, decoder)
        if value is _CUT_OFF:
            yield number, window.cut_off("item")
            return
        yield number, value
        token = window.token()
        if token == ",":
            window.at += 1
            token = window.token() and ","  # so that a bracket here is no end of the list
        elif token and token != "]":
            raise window.error("invalid JSON", window.at, "expected ',' or ']' after an item")
    if not token:
        yield window.line, window.cut_off("list")
        return
    window.at += 1
    if window.token():
        raise window.error("invalid JSON", window.at, "more text after the end of the list")


def object_values(file: Readable, path: str) -> Iterator[tuple[int, Any]]:
    """As ``list_values``, of values that stand one after another, each over any number of lines."""
    window = _Window(file, path)
    decoder = Decoder()
    while window.token():
        number = window.line
        value = _item(window, decoder)
        if value is _CUT_OFF:
            yield number, window.cut_off("item")
            return
        yield number, value


class Start(NamedTuple):
    """How a file of values begins.

    Attributes:
      value: the first value.
      spans: whether it stands on several lines.
      returns: whether a carriage return alone follows it.
      rest: of the line on which the next value begins; ``""`` at the end of the file.
      is_long: the value is too long to be looked at, and is an empty object here.
    """

    value: Any
    spans: bool
    returns: bool
    rest: str
    is_long: bool = False


def begin(file: Readable, path: str) -> Start | None:
    """The beginning of a file, ``None`` where its first value is damaged."""
    window = _Window(file, path)
    window.token()
    first = window.line
    try:
        value = _item(window, Decoder())
    except UserError:
        if len(window.text) - window.at > MAX_LINE and window.text[window.at] == "{":
            return Start({}, spans=True, returns=False, rest="", is_long=True)
        return None
    if value is _CUT_OFF:
        return None
    returns = window.text[window.at : window.at + 1] == "\r"
    last = window.place()
    window.token()
    while "\n" not in window.text[window.at :] and not window.ended:
        window.grow()
        if len(window.text) > MAX_LINE:
            break
    rest = window.text[window.at :].partition("\n")[0]
    return Start(value, last > first, returns and window.line == last, rest)


def begins_list(file: Readable, path: str) -> bool:
    """Whether a file that opens with a bracket is a list, empty or of objects."""
    try:
        first = next(list_values(file, path), None)
    except UserError:
        return False
    return first is None or isinstance(first[1], dict)


_CUT_OFF = object()


def _item(window: "_Window", decoder: "Decoder") -> Any:
    """The value at ``window.at``, which moves behind it; ``_CUT_OFF`` if the file ends inside."""
    while True:
        try:
            value, end = decoder.at(window.text, window.at)
            if window.ended or not _MORE.match(window.text, end):
                piece = window.invalid and _INVALID.search(window.text, window.at, end)
                window.at = end
                return Reject("invalid UTF-8", "in this item") if piece else value
        except json.JSONDecodeError as error:
            if not _unfinished(error):
                raise window.error("invalid JSON", error.pos, error.msg) from None
            if window.ended:
                return _CUT_OFF
        except RecursionError:
            raise window.error("nested too deeply", window.at, "lists or objects") from None
        if len(window.text) - window.at > MAX_LINE:
            problem = f"an item of over {MAX_LINE:,} characters"
            raise window.error("too long", window.at, problem)
        window.grow()


class _Window:
    """The part of a text file at hand: ``text`` from ``at`` on is to be read.

    Attributes:
      line: line of the last token, from 1.
      ended: the file has no more text.
      invalid: bytes were seen that are not UTF-8; they are lone surrogates in ``text``.
    """

    def __init__(self, file: Readable, path: str):
        self._file, self._path = file, path
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._dropped = self._counted = 0  # characters no longer at hand; those in ``line``
        self.text, self.at, self.line = "", 0, 1
        self.ended = self.invalid = False

    def grow(self) -> None:
        """Drops what has been read and at least doubles the rest, so that no item costs n²."""
        self._count()
        data = self._file.read(max(_CHUNK, len(self.text) - self.at))
        self.ended = not data
        try:
            more = self._decoder.decode(data, final=self.ended)
        except UnicodeDecodeError:
            self.invalid, self._decoder.errors = True, "surrogateescape"
            more = self._decoder.decode(data, final=self.ended)
        if not self.text and not self._dropped:
            more = more.removeprefix("\ufeff")  # byte order mark
        self._dropped += self.at
        self.text = self.text[self.at :] + more
        self.at = self._counted = 0

    def token(self) -> str:
        """The next character that is no space, ``""`` at the end; ``at`` and ``line`` are there."""
        while True:
            space = _SPACE.match(self.text, self.at)
            self.at = space.end() if space else self.at
            if self.at < len(self.text) or self.ended:
                self._count()
                return self.text[self.at : self.at + 1]
            self.grow()

    def cut_off(self, what: str) -> Reject:
        end, line = self._dropped + len(self.text), self._line(len(self.text))
        return Reject("cut off", f"the file ends inside this {what}, line {line}, character {end}")

    def error(self, kind: str, position: int, problem: str) -> UserError:
        return UserError(
            f"{self._path}:{self._line(position)}: {kind}: {problem}, at character "
            f"{self._dropped + position + 1} of the file. What follows cannot be read: correct it."
        )

    def place(self) -> int:
        """The line that ``at`` is on."""
        return self._line(self.at)

    def _line(self, position: int) -> int:
        return self.line + self.text.count("\n", self._counted, position)

    def _count(self) -> None:
        self.line, self._counted = self._line(self.at), self.at


class Decoder:
    """Python's JSON decoder, where a value that cannot be used is a ``Reject`` in its place.

    So are the value of a repeated key and a number of thousands of digits: whoever reads them
    rejects the row, and where nobody does they cost nothing. NaN and infinities, which Python
    writes though JSON has none, are numbers; others keep the way they are written.
    """

    def __init__(self) -> None:
        self._json = json.JSONDecoder(object_pairs_hook=_object, parse_int=_int, parse_float=Number)

    def whole(self, text: str) -> Any:
        return self._json.decode(text)

    def at(self, text: str, start: int) -> tuple[Any, int]:
        return self._json.raw_decode(text, start)


def _object(pairs: list[tuple[str, Any]]) -> dict:
    row = dict(pairs)
    if len(row) < len(pairs):
        counts = collections.Counter(key for key, _ in pairs)
        repeated = {key: n for key, n in counts.items() if n > 1}
        row |= {key: Reject("duplicate key", ascii(key[:40])) for key in repeated}
    return row


def _int(digits: str) -> Any:
    try:
        return int(digits)
    except ValueError:  # of over 4,300 digits
        return Reject("number too long", f"{len(digits)} digits")


def _unfinished(error: json.JSONDecodeError) -> bool:
    """Whether more text at the end could make it valid."""
    if error.msg.startswith("Unterminated string"):
        return True
    return bool(_BEGINNING.match(error.doc, error.pos))
