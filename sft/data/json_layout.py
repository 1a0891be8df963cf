"""How rows stand in a JSON file whose first line is not one of them."""

import codecs
import json
import shlex
from collections.abc import Callable
from typing import Any

from sft.data import json_rows
from sft.data.opening import open_bytes
from sft.errors import UserError

_WRITE = (
    'python -c "import json, sys; [print(json.dumps(row)) for row in json.load(sys.stdin.buffer)'
    '[sys.argv[1]]]"'
)


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
    if start.rest:
        return "objects" if start.spans and not _is_row(start.rest) else "lines"
    lists = [key for key, value in start.value.items() if _are_rows(value)]
    if any(map(names, start.value)) or not (lists or start.spans):
        return "objects" if start.spans else "lines"
    raise _one_object(path, start.value, lists)


def _is_row(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _are_rows(value: Any) -> bool:
    """Whether a value is a list of objects, and not of turns."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and not first.keys() & {"role", "from"}


def _one_object(path: str, value: dict[str, Any], lists: list[str]) -> UserError:
    keys = ", ".join(f"{key[:40]!a}" for key in list(value)[:8]) or "no keys"
    found = f"{path}: holds one JSON object ({keys}), expected a list of rows or one row a line"
    if not lists:
        return UserError(
            f"{found}. Leave the file out if it has no rows; if it is a single row, name its "
            "columns in config.data.reading."
        )
    name = max(lists, key=lambda key: len(value[key]))
    command = f"{_WRITE} {shlex.quote(name)} < {shlex.quote(path)} > NEW.jsonl"
    return UserError(f"{found}. If the rows are its list {name[:40]!a}, write them out: {command}")
