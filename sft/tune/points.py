"""The points of a sweep: flat overrides, from flags or from a file of Python.

A file has ``points()``, which returns or yields dictionaries::

    from sft.tune.points import grid, paired, seeds

    def points():
        \"\"\"Rank at a rate that suits it, three seeds each.\"\"\"
        pairs = paired({"lora.rank": [4, 16], "optim.learning_rate": [1e-3, 5e-4]})
        return seeds(3, pairs)
"""

import contextlib
import dataclasses
import hashlib
import itertools
import re
import runpy
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft import config as configs
from sft import session
from sft.config.check import validate
from sft.errors import UserError

LONGEST = 120  # characters of a name, which is a directory
_RETURNS = {  # what a file is asked for
    "points": "returns dictionaries of overrides. Write one, or give --points=FILE.py or "
    "--sweep.KEY=A,B.",
    "suggest": "takes a trial of Optuna and returns its overrides. See sft/tune/search.py.",
}
Overrides = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
      name: of its directory, made of its overrides.
    """

    name: str
    overrides: Overrides
    config: ConfigDict


def grid(values: Mapping[str, Sequence[Any]]) -> Iterator[Overrides]:
    """Every combination; the last key changes fastest."""
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def paired(values: Mapping[str, Sequence[Any]]) -> Iterator[Overrides]:
    """The first values together, the second ones, and so on.

    Raises:
      ValueError: lists of unequal lengths.
    """
    for together in zip(*values.values(), strict=True):
        yield dict(zip(values, together, strict=True))


def seeds(count: int, points: Iterable[Overrides] = ({},)) -> Iterator[Overrides]:
    """Each point with the seeds 0 to ``count - 1``."""
    for point in points:
        for seed in range(count):
            yield point | {"seed": seed}


def from_flags(given: Mapping[str, str]) -> list[Overrides]:
    """The grid of ``--sweep.KEY=A,B``; each value is read as what its key holds.

    Raises:
      UserError: no such key, or a value of another type.
    """
    defaults = dict(configs.flatten(configs.default()))
    lists = {}
    for key, text in given.items():
        if key not in defaults:
            hint = configs.nearest(key)
            raise UserError(f"--sweep.{key}: no such key.{hint} See sft/config/__init__.py.")
        lists[key] = [_value(key, word, defaults[key]) for word in text.split(",")]
    return list(grid(lists))


def _value(key: str, word: str, default: Any) -> Any:
    kind = type(default)
    if kind is bool and word.lower() in ("true", "false"):
        return word.lower() == "true"
    try:
        if kind in (int, float):
            return kind(word)
    except ValueError:
        pass
    else:
        if kind is str:
            return word
    raise UserError(f"--sweep.{key}: {word!r} is no {kind.__name__}.")


def from_file(path: str) -> list[Overrides]:
    """What ``points()`` of a Python file gives.

    Raises:
      UserError: no file, no such function, or what it raises, with file and line.
    """
    made = list(function(path, "points")())
    for point in made:
        if not isinstance(point, dict):
            raise UserError(f"{path}: points() gave {point!r}, expected dictionaries.")
    return made


def function(path: str, name: str) -> Callable[..., Any]:
    """``name`` of a Python file; a list where it would give its values one by one.

    Raises:
      UserError: no file, or no such function; and when called what it raises, with file and line.
    """
    if not Path(path).is_file():
        raise UserError(f"--points={path}: no such file.")
    found = _guarded(path, lambda: runpy.run_path(path))
    if name not in found:
        raise UserError(f"{path}: no {name}() in it, which {_RETURNS[name]}")

    def call(*arguments: Any) -> Any:
        made = found[name](*arguments)
        return list(made) if isinstance(made, Iterator) else made

    return lambda *arguments: _guarded(path, lambda: call(*arguments))


def _guarded(path: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except UserError:
        raise
    except Exception as error:  # the file is Python: it can raise anything
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
        where = f"{path}:{frames[-1].lineno}" if frames else path
        raise UserError(f"{where}: {type(error).__name__}: {error}") from None


def check(config: ConfigDict, wanted: Iterable[Overrides], where: str) -> list[Point]:
    """Every point as a whole configuration, checked; equal points once.

    Raises:
      UserError: no points, or one that is not a sound configuration; all unsound ones are named.
    """
    found: dict[str, Point] = {}
    wrong = []
    for number, overrides in enumerate(wanted, start=1):
        try:
            point = _point(config, overrides)
        except UserError as error:
            wrong.append(f"point {number} ({said(overrides)}): {error}")
            continue
        found[configs.fingerprint(point.config)] = point
    if wrong:
        raise UserError(f"{where}: nothing was started. " + " ".join(wrong))
    if not found:
        raise UserError(f"{where}: no points.")
    return list(found.values())


def _point(config: ConfigDict, overrides: Overrides) -> Point:
    known = dict(configs.flatten(config))
    for key, value in overrides.items():
        if key not in known:
            raise UserError(f"{key}: no such key.{configs.nearest(key, list(known))}")
        if not _fits(value, known[key]):
            raise UserError(f"{key}: {value!r} is no {type(known[key]).__name__}.")
    own = config.copy_and_resolve_references()
    own.update_from_flattened_dict(
        {k: float(v) if isinstance(known[k], float) else v for k, v in overrides.items()}
    )
    validate(own)
    with contextlib.suppress(UserError):  # the weights may be elsewhere; its run will say
        session.name_model(own, required=False)
    return Point(name(overrides), overrides, own)


def _fits(value: Any, default: Any) -> bool:
    """Whether it has the type of ``default``; a whole number will do for a float."""
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))


def name(overrides: Overrides) -> str:
    """``learning_rate=0.001,rank=8``: as short as is unambiguous, and fit for a directory."""
    if not overrides:
        return "base"
    leaves = [key.rpartition(".")[2] for key in overrides]
    parts = [
        f"{key if leaves.count(leaf) > 1 else leaf}={value}"
        for (key, value), leaf in zip(overrides.items(), leaves, strict=True)
    ]
    whole = ",".join(parts)
    safe = re.sub(r"[^\w.,=+-]", "_", whole)
    if safe == whole and len(safe) <= LONGEST:
        return safe
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{safe[: LONGEST - 9]}-{digest}"


def said(overrides: Overrides) -> str:
    """``lora.rank = 8, optim.learning_rate = 0.001``."""
    return ", ".join(f"{key} = {value!r}" for key, value in overrides.items()) or "no overrides"
