"""JSON schemas of a suite: in it or in files beside it, whole before any answer is checked."""

import json
import math
from pathlib import Path
from typing import Any

from sft.errors import UserError
from sft.eval.suites.nodes import Node, named


def load(node: Node, folder: Path) -> Any:
    """The schema, as JSON.

    Args:
      node: the schema, or its path from ``folder``.

    Raises:
      UserError: no such file, or not JSON.
    """
    if not isinstance(node.value, str):
        _json_only(node)
        return node.plain()
    path = folder / node.value
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(
            f"{node.where}: json_schema: {path}: {error.strerror}. A path starts at the suite's "
            "folder."
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{node.where}: json_schema: {path}: not JSON ({error}).") from None


def _json_only(node: Node) -> None:
    if isinstance(node.value, dict | list):
        for inner in node.value.values() if isinstance(node.value, dict) else node.value:
            _json_only(inner)
        return
    is_number = isinstance(node.value, float) and math.isfinite(node.value)
    if not (isinstance(node.value, str | int | None) or is_number):
        raise UserError(f"{node.where}: json_schema: {named(node)} in it. Put it in quotes.")


def validator(node: Node, folder: Path) -> Any:
    """What decides whether a value fits; formats such as ``date`` are asserted.

    Raises:
      UserError: no schema; names the place in it.
    """
    from jsonschema import SchemaError, validators

    schema, where = load(node, folder), f"{node.where}: json_schema"
    if not isinstance(schema, dict | bool):
        raise UserError(f"{where}: expected a schema, or the path of one.")
    kind = validators.validator_for(schema, validators.Draft202012Validator)
    try:
        kind.check_schema(schema)
        _check_references(schema)
    except SchemaError as error:
        raise UserError(f"{where}: {error.json_path}: {error.message}.") from None
    except LookupError as error:
        raise UserError(
            f"{where}: the reference {error.args[0]!r} leads nowhere. Point to a place in the "
            "schema itself, as in '#/$defs/name'."
        ) from None
    return kind(schema, format_checker=kind.FORMAT_CHECKER)


def _check_references(schema: Any) -> None:
    """Raises ``LookupError`` on a reference out of the schema, or to nothing in it: nothing is
    fetched, and none is to be found out in the middle of a run."""
    from referencing import Registry, exceptions
    from referencing.jsonschema import DRAFT202012

    whole = DRAFT202012.create_resource(schema)
    resolver = Registry().with_resource("", whole).resolver()
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            reference = value.get("$ref")
            if isinstance(reference, str):
                try:
                    resolver.lookup(reference)
                except exceptions.Unresolvable:
                    raise LookupError(reference) from None
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
