"""Parquet and Arrow files to rows, a batch at a time."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import numpy as np

from sft.data.conversation import Reject
from sft.data.read.opening import message, on_disk, one_line
from sft.errors import UserError

Reads = Callable[[str], bool]
_BATCH = 256  # rows


def parquet_rows(path: str, reads: Reads) -> Iterator[tuple[int, Any]]:
    """(index, row) of each row; columns that are not read are ``None``."""
    from pyarrow import parquet

    with (
        one_line(path),
        on_disk(path, "parquet") as file,
        _damage(path, "Parquet"),
        parquet.ParquetFile(file, page_checksum_verification=True) as table,
    ):
        names = table.schema_arrow.names
        wanted = _wanted(path, names, reads)
        batches = table.iter_batches(batch_size=_BATCH, columns=wanted)
        yield from _numbered(batches, names)


def arrow_rows(path: str, reads: Reads) -> Iterator[tuple[int, Any]]:
    """As ``parquet_rows``, of an Arrow file or a stream of record batches."""
    import pyarrow
    from pyarrow import ipc

    with (
        one_line(path),
        on_disk(path, "arrow") as file,
        _damage(path, "Arrow"),
        pyarrow.memory_map(file) as source,
    ):
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        table = (ipc.open_file if is_file else ipc.open_stream)(source)
        names = table.schema.names
        wanted = _wanted(path, names, reads)
        found = map(table.get_batch, range(table.num_record_batches)) if is_file else table
        batches = (
            batch.slice(start, _BATCH).select(wanted)
            for batch in found
            for start in range(0, batch.num_rows, _BATCH)
        )
        yield from _numbered(batches, names)


@contextlib.contextmanager
def _damage(path: str, what: str) -> Generator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged {what} file: {message(error)}.") from None


def _wanted(path: str, names: list[str], reads: Reads) -> list[str]:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{path}: two columns are called {twice[0][:40]!a}.")
    return [name for name in names if reads(name)]


def _numbered(batches: Iterable[Any], names: list[str]) -> Iterator[tuple[int, Any]]:
    number, nothing = 0, dict.fromkeys(names)
    for batch in batches:
        for row in _rows(batch):
            yield number, row if isinstance(row, Reject) else nothing | row
            number += 1


def _rows(batch: Any) -> Iterator[Any]:
    try:
        found = batch.to_pylist()
        for name, short in _short_floats(batch).items():
            for row in found:
                row[name] = row[name] if row[name] is None else float(str(short(row[name])))
        for row in found:
            yield {name: _without_nulls(value) for name, value in row.items()}
    except (ValueError, OverflowError) as error:  # not UTF-8, or a time that Python cannot hold
        if batch.num_rows > 1:
            for index in range(batch.num_rows):
                yield from _rows(batch.slice(index, 1))
        elif isinstance(error, UnicodeDecodeError):
            yield Reject("invalid UTF-8", f"byte {error.start + 1} of a text")
        else:
            yield Reject("wrong type", message(error))


def _short_floats(batch: Any) -> dict[str, type]:
    """The types of columns of less than 64 bits: as Python's float, their 0.1 is 0.10000000149."""
    types = {"float": np.float32, "halffloat": np.float16}
    found = {field.name: types.get(str(field.type)) for field in batch.schema}
    return {name: kind for name, kind in found.items() if kind}


def _without_nulls(value: Any) -> Any:
    """Parquet structs have all their fields in every row, null where a row has none."""
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
