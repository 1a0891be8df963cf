"""Files to rows: one streaming reader per container, chosen by the ending of the file.

A reader yields ``(number, row)``: the number is the line on which the row starts, counted from 1,
or in Parquet and ArrayRecord files its index, counted from 0. A row that cannot be parsed is a
``Reject`` in the place of its value, and the rows after it are still read. Where damage hides the
start of the next row (a syntax error in a JSON list, an unclosed quote in a table), reading ends
with an error: going on could take a piece of one row for another. Text is never changed: no
characters are replaced, and byte order marks are dropped at the start of a file only.
"""

import csv
import re
from collections.abc import Callable, Iterator
from typing import Any

from sft.data import json_rows
from sft.data.conversation import Reject
from sft.data.json_rows import MAX_LINE
from sft.data.opening import expand, lines, message, on_disk, one_line, open_bytes
from sft.errors import UserError

__all__ = ["expand", "rows"]

Rows = Iterator[tuple[int, Any]]
Reads = Callable[[str], bool]

_ENDINGS = {
    **{"jsonl": "jsonl", "ndjson": "jsonl", "json": "json", "csv": "csv", "tsv": "tsv"},
    **{"parquet": "parquet", "array_record": "arrayrecord", "arrayrecord": "arrayrecord"},
}
_EXPECTED = {
    "jsonl": "JSONL, one example per line",
    "json": "a JSON list of examples, or one example per line",
    "csv": "a header and one example per row",
    "tsv": "a header and one example per row",
    "parquet": "one example per row",
    "arrayrecord": "one example per record, as UTF-8 JSON",
}
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def rows(path: str, container: str = "", reads: Reads = bool) -> Rows:
    """The rows of one file, in order.

    Args:
      path: local or ``gs://``; text containers may be ``.gz``.
      container: a name of ``sft.data.conversation.CONTAINERS``; ``""`` = by the ending.
      reads: which columns to read from a Parquet file; the others are ``None`` in its rows.

    Raises:
      UserError: a missing, empty, unreadable or damaged file, or an unknown ending.
    """
    container = container or _container(path)
    number = None
    for number, row in _READERS[container](path, reads):
        yield number, row
    if number is None:
        raise UserError(f"{path}: no rows. Expected {_EXPECTED[container]}.")


def _container(path: str) -> str:
    name = _SHARD.sub("", path.removesuffix(".gz")).lower()
    ending = name.rsplit("/", 1)[-1].rsplit(".", 1)[-1]
    container = _ENDINGS.get(ending, "")
    if not container:
        known = ", ".join(f".{ending}" for ending in _ENDINGS)
        raise UserError(f"{path}: unknown ending. Expected {known}; or set reading.container.")
    if path.endswith(".gz") and container in ("parquet", "arrayrecord"):
        raise UserError(f"{path}: a .{ending} file is compressed inside. Unpack it with gunzip.")
    return container


def _jsonl(path: str, reads: Reads) -> Rows:
    decoder = json_rows.Decoder()
    with open_bytes(path) as file:
        for number, line in lines(file, MAX_LINE):
            if line.strip():
                yield number, json_rows.line_value(line, decoder)


def _json(path: str, reads: Reads) -> Rows:
    with open_bytes(path) as file:
        first = next((line.lstrip()[:1] for _, line in lines(file, MAX_LINE) if line.strip()), b"")
    if first != b"[":
        yield from _jsonl(path, reads)
        return
    with open_bytes(path) as file:
        yield from json_rows.list_values(file, path)


def _csv(path: str, reads: Reads) -> Rows:
    return _table(path, ",")


def _tsv(path: str, reads: Reads) -> Rows:
    return _table(path, "\t")


def _table(path: str, delimiter: str) -> Rows:
    """RFC 4180: a header, quoted fields with line breaks and doubled quotes."""
    invalid = []  # lines of the row at hand that are not UTF-8

    def texts(file: Any) -> Iterator[str]:
        for number, line in lines(file, MAX_LINE):
            if len(line) > MAX_LINE:
                raise UserError(f"{path}:{number}: a line of over {MAX_LINE:,} bytes. Remove it.")
            try:
                yield line.decode()
            except UnicodeDecodeError:
                invalid.append(number)
                yield line.decode(errors="surrogateescape")

    csv.field_size_limit(MAX_LINE)
    with open_bytes(path) as file:
        reader = csv.reader(texts(file), delimiter=delimiter, strict=True)
        header: list[str] = []
        number = 1
        try:
            for cells in reader:
                wrong = f"not UTF-8 in line {invalid[0]}" if invalid else ""
                invalid.clear()
                if not header:
                    header = _header(cells, wrong, f"{path}:{number}")
                elif wrong:
                    yield number, Reject("invalid UTF-8", wrong)
                elif len(cells) == len(header):
                    yield number, dict(zip(header, cells, strict=True))
                elif cells:  # not a blank line
                    found = f"{len(cells)} fields, the header has {len(header)}"
                    yield number, Reject("wrong number of fields", found)
                number = reader.line_num + 1
        except csv.Error as error:
            raise UserError(
                f"{path}:{number}: the row that starts here has a wrong or unclosed quote, seen in "
                f"line {reader.line_num} ({error}). Close it, and double the quotes inside a field."
            ) from None


def _header(cells: list[str], wrong: str, where: str) -> list[str]:
    if wrong or any("\0" in name for name in cells):
        raise UserError(f"{where}: {wrong or 'zero bytes; is it UTF-16?'}. Save the file as UTF-8.")
    for index, name in enumerate(cells):
        if not name.strip():
            raise UserError(f"{where}: column {index + 1} has no name in the header. Give it one.")
        if name in cells[:index]:
            raise UserError(f"{where}: two columns are called {name[:40]!a}. Rename one.")
    return cells


def _parquet(path: str, reads: Reads) -> Rows:
    import pyarrow
    from pyarrow import parquet

    with one_line(path), on_disk(path) as file:
        try:
            with parquet.ParquetFile(file, page_checksum_verification=True) as table:
                names = table.schema_arrow.names
                twice = [name for name in names if names.count(name) > 1]
                if twice:
                    raise UserError(f"{path}: two columns are called {twice[0][:40]!a}.")
                unread = dict.fromkeys(name for name in names if not reads(name))
                wanted = [name for name in names if reads(name)]
                number = 0
                for batch in table.iter_batches(batch_size=256, columns=wanted):
                    for row in _batch_rows(batch):
                        yield number, row if isinstance(row, Reject) else row | unread
                        number += 1
        except (pyarrow.ArrowException, UnicodeDecodeError) as error:
            raise UserError(f"{path}: damaged Parquet file: {message(error)}.") from None


def _batch_rows(batch: Any) -> Iterator[Any]:
    try:
        for row in batch.to_pylist():
            yield {name: _without_nulls(value) for name, value in row.items()}
    except (ValueError, OverflowError) as error:  # not UTF-8, or a time that Python cannot hold
        if batch.num_rows > 1:
            for index in range(batch.num_rows):
                yield from _batch_rows(batch.slice(index, 1))
        elif isinstance(error, UnicodeDecodeError):
            yield Reject("invalid UTF-8", f"byte {error.start + 1} of a text")
        else:
            yield Reject("wrong type", message(error))


def _without_nulls(value: Any) -> Any:
    """Parquet structs have all their fields in every row, null where a row has none."""
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _array_record(path: str, reads: Reads) -> Rows:
    from array_record.python import array_record_module  # ty: ignore[missing-module-member]

    with one_line(path), on_disk(path) as file:
        try:
            reader = array_record_module.ArrayRecordReader(file)
            if not reader.ok():
                raise ValueError("no index at its end; is it cut off?")
            count, decoder = reader.num_records(), json_rows.Decoder()
            for start in range(0, count, 256):
                batch = reader.read(start, min(start + 256, count))
                for number, record in enumerate(batch, start):
                    yield number, json_rows.line_value(record, decoder)
        except (RuntimeError, ValueError, IndexError) as error:
            raise UserError(f"{path}: damaged ArrayRecord file: {message(error)}.") from None


_READERS: dict[str, Callable[[str, Reads], Rows]] = {
    **{"jsonl": _jsonl, "json": _json, "csv": _csv, "tsv": _tsv},
    **{"parquet": _parquet, "arrayrecord": _array_record},
}
