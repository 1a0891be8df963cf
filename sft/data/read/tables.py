"""CSV and TSV files to rows, as spreadsheets and pandas write them too.

RFC 4180: a header, quoted fields with line breaks and doubled quotes. Beyond it, the separator of
the header is taken where it is not the one expected, a first column without a name (an index) is
left out, and so are empty cells at the end of a row.
"""

import csv
import itertools
import re
import shlex
from collections.abc import Iterator
from typing import Any

from sft.data.conversation import SAVE_UTF8, Reject
from sft.data.read.json_rows import MAX_LINE
from sft.data.read.opening import Peeked, lines, open_bytes
from sft.data.read.remarks import Remark
from sft.errors import UserError

_SEPARATORS = ",;\t|"
_STATED = re.compile(rb'"?sep=(.)"?\r?\n?')  # Excel's first line
_INDEX = Remark(
    "note",
    "the first column has no name, as when pandas writes its index, and is not read",
    "Nothing to do; give it a name to read it.",
    unit="file",
)
_SPACED = Remark(
    "note",
    "names in the header have white space around them, and are read without",
    "Nothing to do; config.data.reading has the names without it.",
    unit="file",
)


def rows(path: str, delimiter: str, remarks: list[Remark]) -> Iterator[tuple[int, Any]]:
    """(line on which it starts, row or ``Reject``) of each row; see ``sft.data.read.files``."""
    csv.field_size_limit(MAX_LINE)
    with open_bytes(path) as file:
        _check_ends(path, file)
        invalid: list[int] = []  # lines of the current row that are not UTF-8
        texts = _texts(path, file, invalid)
        first = next(texts, "")
        skipped = 0
        if stated := _STATED.fullmatch(first.encode(errors="surrogateescape")):
            delimiter, first, skipped = stated[1].decode(errors="replace"), next(texts, ""), 1
        used = _separator(first, delimiter)
        if used != delimiter:
            remarks.append(_separated(used))
        reader = csv.reader(itertools.chain([first], texts), delimiter=used, strict=True)
        header: _Header | None = None
        number = 1 + skipped
        try:
            for cells in reader:
                wrong = f"not UTF-8 in line {invalid[0]}" if invalid else ""
                invalid.clear()
                if header is None:
                    if cells:
                        header = _Header(cells, wrong, f"{path}:{number}", remarks)
                elif wrong:
                    yield number, Reject("invalid UTF-8", wrong)
                elif cells:  # not a blank line
                    yield number, header.row(cells)
                number = reader.line_num + 1 + skipped
        except csv.Error as error:
            raise UserError(
                f"{path}:{number}: the row that starts here has a wrong or unclosed quote, seen in "
                f"line {reader.line_num + skipped} ({error}). Close it, and double the quotes "
                "inside a field."
            ) from None


def _check_ends(path: str, file: Peeked) -> None:
    if b"\r" in file.head and b"\n" not in file.head:
        command = f"tr '\\r' '\\n' < {shlex.quote(path)} > NEW"
        raise UserError(f"{path}: lines end with CR alone, expected LF or CRLF: {command}.")


def _texts(path: str, file: Peeked, invalid: list[int]) -> Iterator[str]:
    for number, line in lines(file, MAX_LINE):
        if len(line) > MAX_LINE:
            raise UserError(f"{path}:{number}: a line of over {MAX_LINE:,} bytes. Remove it.")
        try:
            yield line.decode()
        except UnicodeDecodeError:
            invalid.append(number)
            yield line.decode(errors="surrogateescape")


def _separator(header: str, expected: str) -> str:
    """The separator of a header: the expected one, unless only another one cuts it."""

    def fields(separator: str) -> int:
        try:
            return len(next(csv.reader([header], delimiter=separator, strict=True), []))
        except csv.Error:
            return 0

    if fields(expected) > 1:
        return expected
    return max(_SEPARATORS, key=lambda other: (fields(other) > 1, other == expected))


def _separated(used: str) -> Remark:
    return Remark(
        "note",
        f"fields are separated by {used!r}",
        "They are read so: nothing to do if prompts and answers are whole.",
        unit="file",
    )


class _Header:
    """The names of the columns."""

    def __init__(self, cells: list[str], wrong: str, where: str, remarks: list[Remark]):
        if wrong or any("\0" in name for name in cells):
            found = wrong or "zero bytes; is it UTF-16?"
            raise UserError(f"{where}: {found}. {SAVE_UTF8}.")
        self._width = len(cells)
        self._names = cells
        while self._names and not self._names[-1].strip():
            self._names = self._names[:-1]
        self._index = next((i for i, name in enumerate(self._names) if name.strip()), 0)
        bare = [name.strip() for name in self._names]
        if bare != self._names and len({*bare[self._index :]}) == len(bare) - self._index:
            self._names = bare
            remarks.append(_SPACED)
        for index, name in enumerate(self._names):
            if index < self._index:
                continue
            if not name.strip():
                place = f"{where}: column {index + 1}"
                raise UserError(f"{place} has no name in the header. Give it one.")
            if name in self._names[:index]:
                raise UserError(f"{where}: two columns are called {name[:40]!a}. Rename one.")
        if not self._names:
            raise UserError(f"{where}: column 1 has no name in the header. Give it one.")
        if self._index:
            remarks.append(_INDEX)
        self._is_plain = self._width == len(self._names) and not self._index

    def row(self, cells: list[str]) -> dict[str, str] | Reject:
        """The cells by name."""
        count = len(cells)
        if self._is_plain and count == self._width:
            return dict(zip(self._names, cells, strict=True))
        names = len(self._names)
        if count < names or any(cells[names:]):
            found = f"{count} fields, the header has {self._width}"
            if names < count <= self._width:
                found += f" and column {names + 1} has no name"
            return Reject("wrong number of fields", found)
        return dict(zip(self._names[self._index :], cells[self._index : names], strict=True))
