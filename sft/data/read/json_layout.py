"""How rows stand in a JSON file whose first line is not one of them."""

import codecs
import json
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

from sft.data.read import json_rows
from sft.data.read.opening import open_bytes
from sft.errors import UserError

_WRITE = (
    'python -c "import json, sys; rows = json.load(sys.stdin.buffer); '
    '[rows := rows[key] for key in sys.argv[1:]]; [print(json.dumps(row)) for row in rows]"'
)
_DEPTH = 3  # keys that may lead to a list of rows
_LIST = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*\[\s*\{')


def layout(path: str, names: Callable[[str], bool]) -> str:
    """``lines``, ``list`` or ``objects``: one row a line, a list, or objects one after another.

    A file that is damaged in its first row has lines.

    Args:
      names: whether a key is one of a row.

    Raises:
      UserError: the file is one object that is not a row, or its lines end with CR alone.
    """
    with open_bytes(path) as file:
        start = json_rows.begin(file, path)
    if file.head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        with open_bytes(path) as file:
            is_list = not (start and start.rest) and json_rows.begins_list(file, path)
        return "list" if is_list else "lines"
    if start is None or not isinstance(start.value, dict):
        return "lines"
    if start.returns and start.rest:
        command = f"tr '\\r' '\\n' < {shlex.quote(path)} > NEW"
        raise UserError(f"{path}: lines end with CR alone, expected LF. Write it: {command}.")
    if start.is_long:
        raise _one_object(path, {}, _keys_of_lists(file.head))
    if start.rest:
        return "objects" if start.spans and not _is_row(start.rest) else "lines"
    if is_columns(start.value):
        raise UserError(
            f"{path}: holds one JSON object of columns, expected a list of rows or one row a line. "
            "Save rows: pandas' to_json(…, orient='records', lines=True) does."
        )
    lists = list(_lists(start.value))
    if any(map(names, start.value)) or not (lists or start.spans):
        return "objects" if start.spans else "lines"
    largest = max(lists, key=lambda found: (len(found[1]), -len(found[0])), default=((), []))
    raise _one_object(path, start.value, largest[0])


def is_columns(value: dict[str, Any]) -> bool:
    """Whether an object is a table by columns, as pandas and datasets write one too."""
    if value.keys() == {"columns", "index", "data"}:
        return True
    if len(value) < 2:
        return False
    first, *others = value.values()
    if isinstance(first, dict):
        return bool(first) and all(isinstance(v, dict) and v.keys() == first.keys() for v in others)
    if not isinstance(first, list) or not first:
        return False
    alike = all(isinstance(v, list) and len(v) == len(first) for v in others)
    return alike and not any(isinstance(item, dict) for item in first)


def _is_row(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _lists(value: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list]]:
    """(keys that lead to it, list) of each list of objects that are not turns."""
    if isinstance(value, dict) and len(keys) < _DEPTH:
        for key, inner in value.items():
            yield from _lists(inner, (*keys, key))
        return
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, dict) and not first.keys() & {"role", "from"}:
        yield keys, value


def _keys_of_lists(head: bytes) -> tuple[str, ...]:
    """The first list of objects in an object too long to be looked at whole."""
    found = _LIST.search(head)
    return (json.loads(b'"%b"' % found[1]),) if found else ()


def _one_object(path: str, value: dict[str, Any], keys: tuple[str, ...]) -> UserError:
    listed = ", ".join(f"{key[:40]!a}" for key in list(value or keys)[:8]) or "no keys"
    found = f"{path}: holds one JSON object ({listed}), expected a list of rows or one row a line"
    if not keys:
        return UserError(
            f"{found}. Leave the file out if it has no rows; if it is a single row, name its "
            "columns in config.data.reading."
        )
    command = f"{_WRITE} {shlex.join(keys)} < {shlex.quote(path)} > NEW.jsonl"
    name = ".".join(keys)[:80]
    return UserError(f"{found}. If the rows are its list {name!a}, write them out: {command}")
