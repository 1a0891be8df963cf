"""Metrics of answers that are JSON."""

import json
from collections.abc import Iterator
from typing import Any

from sft.eval.metrics.metric import Metric, Texts, Unfit, first_unfit, mean

_INVALID = object()


def json_valid() -> Metric:
    """Share of predictions that are one JSON text and nothing else: a code fence is not JSON.

    Strict (RFC 8259): NaN and Infinity are not JSON. White space around it is allowed.
    """

    def unfit(expected: Texts) -> Unfit | None:
        return first_unfit(expected, lambda text: _complaint(text, parse(text) is not _INVALID))

    return mean("json_valid", lambda p, e: parse(p) is not _INVALID, unfit=unfit)


def json_fields() -> Metric:
    """Share of the expected answer's fields that the prediction has with the same value.

    A field is a leaf: a path of keys and positions (``address.street``, ``items[0]``) that ends in
    a string, number, truth value, null or empty container. Numbers are equal as numbers (1 = 1.0),
    strings as they are. Fields that only the prediction has cost nothing. A prediction that is not
    JSON has none. The value is the mean of the rows' shares.
    """

    def score(predicted: str, expected: str) -> float:
        ours = parse(predicted)
        found = {} if ours is _INVALID else dict(leaves(ours))
        wanted = dict(leaves(parse(expected)))
        return sum(p in found and same(found[p], v) for p, v in wanted.items()) / len(wanted)

    def unfit(expected: Texts) -> Unfit | None:
        return first_unfit(
            expected, lambda text: _complaint(text, isinstance(parse(text), dict | list))
        )

    return mean("json_fields", score, unfit=unfit)


def parse(text: str) -> Any:
    """The value of a JSON text; ``_INVALID`` if it is none."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _INVALID


def leaves(value: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """``(path, leaf)`` pairs of a parsed JSON text."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        for position, inner in enumerate(value):
            yield from leaves(inner, (*path, position))
    else:
        yield path, value


def same(ours: Any, theirs: Any) -> bool:
    """JSON's equality: to Python, 1 and true are equal too."""
    return isinstance(ours, bool) == isinstance(theirs, bool) and ours == theirs


def _complaint(text: str, is_good: bool) -> str | None:
    if is_good:
        return None
    return (
        f"the expected answer {text[:60]!r} is no JSON with fields. Use exact_match, or "
        "repair the row."
    )


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
