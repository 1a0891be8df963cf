"""Files to rows: one streaming reader per container, chosen by the ending or the first bytes.

A reader yields ``(number, row)``: the number is the line on which the row starts, counted from 1,
or in Parquet, Arrow and ArrayRecord files its index, counted from 0. A row that cannot be parsed is
a ``Reject`` in the place of its value, and the rows after it are still read. Where damage hides the
start of the next row (a syntax error in a JSON list, an unclosed quote in a table), reading ends
with an error: going on could take a piece of one row for another. Text is never changed: no
characters are replaced, and byte order marks are dropped at the start of a file only.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from sft.data.read import json_layout, json_rows, paths, record_batches, tables
from sft.data.read.json_rows import MAX_LINE
from sft.data.read.opening import Misnamed, lines, message, on_disk, one_line, open_bytes
from sft.data.read.remarks import Remark
from sft.errors import UserError

Rows = Iterator[tuple[int, Any]]

EXPECTED = {
    "jsonl": "JSONL, one example per line",
    "json": "a JSON list of examples, or one example per line",
    "csv": "a header and one example per row",
    "tsv": "a header and one example per row",
    "parquet": "one example per row",
    "arrow": "one example per row",
    "arrayrecord": "one example per record, as UTF-8 JSON",
}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is wanted of files.

    Attributes:
      container: a name of ``sft.data.conversation.CONTAINERS``; ``""`` = by the ending.
      reads: which columns to read from a table; the others are ``None`` in its rows.
      names: which keys are those of a row.
      setting: the group of settings that messages name.
      remarks: gets what a person should know of a file.
    """

    container: str = ""
    reads: Callable[[str], bool] = bool
    names: Callable[[str], bool] = bool
    setting: str = "config.data.reading"
    remarks: list[Remark] = dataclasses.field(default_factory=list)


def rows(path: str, wanted: Wanted) -> Rows:
    """The rows of one file, in order; there may be none.

    Args:
      path: local or ``gs://``; text may be compressed with gzip, bzip2 or xz.

    Raises:
      UserError: a missing, unreadable or damaged file, or one that holds no rows of any container.
    """
    container = wanted.container or _by_name(path, wanted.setting)
    try:
        yield from _READERS[container](path, wanted)
    except Misnamed as other:  # raised before the first row
        if wanted.container:
            raise UserError(
                f"{path}: {wanted.setting}.container = {wanted.container!r}, but the file is "
                f"{other.container}. Set it to {other.container!r}."
            ) from None
        yield from _READERS[other.container](path, wanted)


def expected(path: str, container: str) -> str:
    """What a file without rows should hold."""
    return EXPECTED[container or paths.container(path) or "jsonl"]


def _by_name(path: str, setting: str) -> str:
    container = paths.container(path)
    unpacker = paths.unpacker(path)
    if container in ("parquet", "arrow", "arrayrecord") and unpacker:
        what = f"a .{path.rsplit('.', 2)[-2]} file is compressed inside"
        raise UserError(f"{path}: {what}. Unpack it with {unpacker}.")
    if not container:
        try:
            with open_bytes(path):  # for what it is, if it is not text
                pass
        except Misnamed as table:
            return table.container
        known = ", ".join(f".{ending}" for ending in paths.ENDINGS)
        raise UserError(f"{path}: unknown ending. Expected {known}; or set {setting}.container.")
    return container


def _jsonl(path: str, wanted: Wanted) -> Rows:
    decoder, begun = json_rows.Decoder(), False
    with open_bytes(path) as file:
        for number, line in lines(file, MAX_LINE):
            if not line.strip():
                continue
            value = json_rows.line_value(line, decoder)
            if not begun and not _is_row(value, wanted):
                layout = json_layout.layout(path, wanted.names)
                if layout != "lines":
                    holds = "a list" if layout == "list" else "objects over several lines"
                    raise UserError(
                        f"{path}: holds JSON, but {holds} and not one row a line. Set "
                        f"{wanted.setting}.container = 'json', or rename it to .json."
                    )
            begun = True
            yield number, value


def _json(path: str, wanted: Wanted) -> Rows:
    layout = "lines"
    with open_bytes(path) as file:
        first = next((line for _, line in lines(file, MAX_LINE) if line.strip()), b"")
    if first.lstrip().startswith(b"["):
        layout = "list"
    elif first and not _is_row(json_rows.line_value(first, json_rows.Decoder()), wanted):
        layout = json_layout.layout(path, wanted.names)
    if layout == "lines":
        yield from _jsonl(path, wanted)
        return
    values = json_rows.list_values if layout == "list" else json_rows.object_values
    with open_bytes(path) as file:
        yield from values(file, path)


def _is_row(value: Any, wanted: Wanted) -> bool:
    """Whether a first line is a row beyond doubt."""
    is_named = isinstance(value, dict) and any(map(wanted.names, value))
    return is_named and not json_layout.is_columns(value)


def _csv(path: str, wanted: Wanted) -> Rows:
    return tables.rows(path, ",", wanted.remarks)


def _tsv(path: str, wanted: Wanted) -> Rows:
    return tables.rows(path, "\t", wanted.remarks)


def _parquet(path: str, wanted: Wanted) -> Rows:
    return record_batches.parquet_rows(path, wanted.reads)


def _arrow(path: str, wanted: Wanted) -> Rows:
    return record_batches.arrow_rows(path, wanted.reads)


def _array_record(path: str, wanted: Wanted) -> Rows:
    from array_record.python import array_record_module  # ty: ignore[missing-module-member]

    with one_line(path), on_disk(path, "arrayrecord") as file:
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


_READERS: dict[str, Callable[[str, Wanted], Rows]] = {
    **{"jsonl": _jsonl, "json": _json, "csv": _csv, "tsv": _tsv},
    **{"parquet": _parquet, "arrow": _arrow, "arrayrecord": _array_record},
}
