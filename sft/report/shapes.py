"""What a report needs of the files of a run directory: fields, types and ranges.

``fault(value, shape)`` says what is wrong with a value. A shape is a ``Kind`` of single values,
``[shape]`` for a list, ``Maybe(shape)`` for what may be null, or ``Fields`` for an object. Fields
that a report does not read may be anything. (jsonschema takes half a millisecond a row; a file of
predictions may have a hundred thousand.)
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sft import config as configs
from sft.config import check
from sft.config.effects import SOURCES
from sft.errors import UserError

_HALF = re.compile("[\ud800-\udfff]")  # of a pair of UTF-16: no text has it, no file can hold it
_MOST = 2**63  # of a count
_SHOWN = 40  # characters of a value in a message


class Kind(NamedTuple):
    """Single values: what they are called, and which they are."""

    words: str
    fits: Callable[[Any], bool]


class Maybe(NamedTuple):
    """Null, or a value of the shape."""

    shape: Any


@dataclasses.dataclass(frozen=True)
class Fields:
    """A JSON object.

    Attributes:
      needed, optional: shapes by field.
      others: shape of all other fields; ``None`` = anything.
      together: where the first of these fields is, the others must be too.
    """

    needed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optional: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    others: Any = None
    together: tuple[tuple[str, ...], ...] = ()


def fault(value: Any, shape: Any, at: str = "") -> str | None:
    """The first fault of a value that was read from JSON, or ``None``.

    Args:
      at: the field that it is in, as ``metrics.loss.value``.
    """
    if shape is None:
        return None
    if isinstance(shape, Maybe):
        return None if value is None else fault(value, shape.shape, at)
    if isinstance(shape, Kind):
        return None if shape.fits(value) else _wrong(value, shape.words, at)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _wrong(value, "a list", at)
        faults = (fault(one, shape[0], f"{at}[{i}]") for i, one in enumerate(value))
        return next(filter(None, faults), None)
    return _fields_fault(value, shape, at)


def _fields_fault(value: Any, shape: Fields, at: str) -> str | None:
    if not isinstance(value, dict):
        return _wrong(value, "an object", at)
    before = f"{at}." if at else ""
    lacking = [key for key in sorted(shape.needed) if key not in value]
    for first, *others in shape.together:
        lacking += [key for key in others if first in value and key not in value]
    if lacking:
        return f"field {before + lacking[0]!a} is missing"
    for key, one in value.items():
        if _HALF.search(key):
            return _wrong(key, TEXT.words, f"{before}(a name)")
        wanted = shape.needed.get(key) or shape.optional.get(key, shape.others)
        if wanted is not None and (found := fault(one, wanted, before + key)):
            return found
    return None


def _wrong(value: Any, words: str, at: str) -> str:
    if isinstance(value, dict):
        shown = "an object"
    elif isinstance(value, list):
        shown = f"a list of {len(value)}"
    else:
        shown = json.dumps(value)
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"
    return f"field {at!a} is {shown}, expected {words}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


TEXT = Kind("a text", lambda value: isinstance(value, str) and not _HALF.search(value))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a number", _is_number)  # or NaN, or infinite: a run may diverge
FINITE = Kind("a finite number", _is_finite)
POSITIVE = Kind("a number from 0 on", lambda value: _is_finite(value) and value >= 0)
COUNT = Kind("a whole number from 0 on", _is_count)
SOME = Kind("a whole number from 1 on", lambda value: _is_count(value) and value > 0)
SHARE = Kind("a number from 0 to 1", lambda value: _is_finite(value) and 0 <= value <= 1)
BETTER = Kind("higher or lower", lambda value: value in ("higher", "lower"))
SCALAR = Kind(
    "a text, a finite number, true or false",
    lambda value: FLAG.fits(value) or TEXT.fits(value) or _is_finite(value),
)
# Null is an end that is not known.
INTERVAL = Kind(
    "two numbers",
    lambda value: (
        isinstance(value, list)
        and len(value) == 2
        and all(end is None or _is_number(end) for end in value)
    ),
)

CONFIG = Fields({"config": Fields(others=SCALAR)}, {"fingerprint": TEXT})

ENVIRONMENT = Fields(
    optional={
        **dict.fromkeys(("command", "python", "platform"), TEXT),
        "versions": Fields(others=TEXT),
        "devices": [TEXT],
        "git": Maybe(Fields(optional={"revision": TEXT, "dirty": FLAG})),
    }
)

_FIT = Fields(
    {
        **dict.fromkeys(("over", "truncated", "dropped", "lost_trained_tokens"), COUNT),
        **{"share": SHARE, "max_length": COUNT},
    }
)
_SET = Fields(
    optional={
        **dict.fromkeys(("rows", "tokens", "trained_tokens", "trained_ends", "max_tokens"), COUNT),
        "mean_tokens": POSITIVE,
        "files": [TEXT],
        "rejected": Maybe(Fields(others=COUNT)),
        "fit": Maybe(_FIT),
        "untrained": Maybe(Fields({"rows": COUNT}, {"first": Maybe(TEXT)})),
        "content": TEXT,
    }
)
DATA = Fields(
    optional={
        "sets": Fields(others=_SET),
        "skew": [
            Fields(
                optional={"right": TEXT, "differs": COUNT, "summary": TEXT},
                together=(("differs", "summary"),),
            )
        ],
        "warnings": [Fields({"severity": TEXT, "text": TEXT})],
    }
)

_EPOCH = {"step": COUNT, "epoch": POSITIVE, "loss": NUMBER}
METRICS = Fields(
    {**_EPOCH, "split": TEXT, "token_accuracy": NUMBER},
    dict.fromkeys(("loss_se", "weight", "trained_tokens"), Maybe(POSITIVE)),
    others=Maybe(NUMBER),
)
_VALIDATION = Fields(_EPOCH, dict.fromkeys(("token_accuracy", "cut"), NUMBER))
SELECTION = Fields(
    {"epoch": POSITIVE, "step": COUNT, "epochs": [_VALIDATION]},
    {**dict.fromkeys(("metric", "why", "checkpoint", "warning"), TEXT), "better": BETTER},
)
SUMMARY = Fields(optional={"wall_seconds": Fields(others=POSITIVE), "peak_rss_bytes": POSITIVE})

_SCORES = Fields(
    others=Fields(
        {"value": NUMBER, "better": BETTER},
        {"interval": Maybe(INTERVAL), "signature": Maybe(TEXT), "bounds": Maybe(INTERVAL)},
    )
)
_CONSTANT = Fields(
    {
        "majority": Fields({"label": TEXT, "known_from": TEXT, "metrics": _SCORES}),
        "random": Fields({"labels": SOME, "metrics": _SCORES}),
    }
)
_ERRORS = Fields(
    {"count": COUNT, "wrong": COUNT, "cut": COUNT},
    {"same": Fields({"answer": TEXT, "count": COUNT})},
    others=COUNT,
)
EVAL = Fields(
    {
        **{"arm": TEXT, "set": TEXT, "count": SOME, "correct": COUNT},
        **{"exact_match": SHARE, "exact_match_interval": INTERVAL},
    },
    {
        **dict.fromkeys(("data", "content", "checkpoint", "primary", "fingerprint"), TEXT),
        **{"metrics": _SCORES, "loss": Maybe(NUMBER), "token_accuracy": Maybe(NUMBER)},
        **{"cut": COUNT, "max_new_tokens": SOME, "errors": _ERRORS},
        **{"labels": [TEXT], "constant": _CONSTANT, "settings": Fields(others=SCALAR)},
        **dict.fromkeys(("seconds", "peak_rss_bytes"), Maybe(POSITIVE)),
    },
    together=(("cut", "max_new_tokens"), ("errors", "max_new_tokens")),
)
PREDICTION = Fields(
    {**dict.fromkeys(("source", "prompt", "expected", "predicted"), TEXT), "correct": FLAG},
    {
        **dict.fromkeys(("compared", "ranked", "ranked_norm", "stop"), TEXT),
        **{"cut": FLAG, "error": Maybe(TEXT), "ranks": SOME, "log_likelihoods": [NUMBER]},
        **{"nll": NUMBER, "right_tokens": COUNT, "trained": SOME},
        "scores": Fields(others=NUMBER),
    },
    together=(("ranked", "ranked_norm", "ranks"), ("nll", "trained"), ("right_tokens", "trained")),
)

_RATE = Fields({"count": COUNT, "undecided": COUNT, "passed": COUNT}, {"pass_rate": Maybe(SHARE)})
_CASE = Fields(
    {
        **dict.fromkeys(("id", "kind", "source", "answer", "key"), TEXT),
        **{"passed": Maybe(FLAG), "note": Maybe(TEXT), "turns": [Fields({"text": TEXT})]},
        "failed": [Fields({"check": TEXT, "why": TEXT})],
    }
)
SUITE = Fields(
    {
        **dict.fromkeys(("arm", "suite", "file", "fingerprint"), TEXT),
        **{"count": COUNT, "kinds": Fields(others=_RATE), "cases": [_CASE]},
    },
    {"description": Maybe(TEXT)},
)

SWEEP = Fields({"points": Fields()})


def is_file_name(text: str) -> bool:
    """Whether a file or folder may have this name."""
    return text not in ("", ".", "..") and not set(text) & {"/", "\0"} and len(text.encode()) < 256


def settings_fault(values: Mapping[str, Any], field: str) -> str | None:
    """What is wrong with a flattened configuration of scalars: a type that is not the setting's, or
    a value that no score can be computed with. Settings that are not known today may be there.

    Args:
      field: that they are in.
    """
    known = dict(configs.flatten(configs.default()))
    for key, value in values.items():
        at = f"{field}.{key}"
        if key in known:
            wanted = known[key]
            fits = type(value) is type(wanted) or (type(wanted), type(value)) == (float, int)
            if not fits:
                return _wrong(value, _TYPES[type(wanted)], at)
        elif not key.startswith(SOURCES) and any(
            other.startswith(f"{key}.") or key.startswith(f"{other}.") for other in known
        ):
            return f"field {at!a} is not a setting"
    return _scoring_fault({key: value for key, value in values.items() if key in known})


_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _scoring_fault(values: dict[str, Any]) -> str | None:
    """The report computes with these itself."""
    try:
        for key, value in values.items():
            if key == "seed" or key.startswith("eval."):
                check.check_value(key, value)
        check.check_metrics(configs.from_dict(values))
    except UserError as error:
        return str(error).rstrip(".")
    return None
