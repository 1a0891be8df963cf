"""A metric of the user's own: ``FILE.py:NAME`` in ``config.eval.metrics``."""

import dataclasses
import hashlib
import inspect
import math
import runpy
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sft.config import nearest
from sft.errors import UserError
from sft.eval.metrics.metric import ANY, Metric, Texts, Unfit, mean

WANTED = (
    "expected a function (predicted, expected) that returns a number, or a sft.eval.metrics.Metric"
)


def load(entry: str) -> Metric:
    """The metric that ``entry`` names.

    A function of two texts gives the score of a row: the metric is their mean, and higher is
    better. Anything else is a ``Metric``. Its signature has a digest of the file.

    Raises:
      UserError: no such file or name, it cannot be run, or is neither; and, when it is used,
        statistics that are not finite numbers of the right shape. Names the file and the line.
    """
    path, _, name = entry.rpartition(":")
    if not Path(path).is_file():
        raise UserError(f"config.eval.metrics: {entry}: no such file as {path}.")
    found = _guarded(entry, path, lambda: runpy.run_path(path))
    if name not in found:
        names = [key for key in found if not key.startswith("__")]
        hint = nearest(name, names) if names else ""
        raise UserError(f"config.eval.metrics: {entry}: {path} has no {name}.{hint}")
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
    metric = _as_metric(entry, path, name, found[name])
    signature = "|".join(filter(None, [metric.signature, f"{entry}|sha256:{digest}"]))

    def statistics(predicted: Texts, expected: Texts) -> np.ndarray:
        made = _guarded(entry, path, lambda: metric.statistics(predicted, expected))
        return _checked(entry, made, predicted, expected)

    def value(sums: np.ndarray) -> np.ndarray:
        made = np.asarray(_guarded(entry, path, lambda: metric.value(sums)))
        if made.shape != np.shape(sums)[:-1] or not np.isfinite(made).all():
            raise UserError(
                f"config.eval.metrics: {entry}: value() of sums {np.shape(sums)} gave "
                f"{made!r:.80}: expected finite numbers, shaped {np.shape(sums)[:-1]}."
            )
        return made

    def unfit(expected: Texts) -> Unfit | None:
        value(statistics(expected, expected).sum(0))  # fails now rather than after the generation
        return metric.unfit(expected)

    return dataclasses.replace(
        metric, name=name, signature=signature, statistics=statistics, value=value, unfit=unfit
    )


def _as_metric(entry: str, path: str, name: str, found: Any) -> Metric:
    if isinstance(found, Metric):
        if found.better not in ("higher", "lower"):
            raise UserError(
                f"config.eval.metrics: {entry}: better = {found.better!r}: "
                "expected 'higher' or 'lower'."
            )
        return found
    try:
        inspect.signature(found).bind("", "")
    except (TypeError, ValueError):
        kind = type(found).__name__
        raise UserError(f"config.eval.metrics: {entry} is a {kind}: {WANTED}.") from None

    def score(predicted: str, expected: str) -> float:
        made = found(predicted, expected)
        try:
            return float(made)
        except (TypeError, ValueError):
            return math.nan  # refused with its row, below

    return mean(name, score, bounds=ANY)  # what it can be, nobody has said


def _checked(entry: str, made: Any, predicted: Texts, expected: Texts) -> np.ndarray:
    try:
        statistics = np.asarray(made, np.float64)
    except (TypeError, ValueError):
        statistics = np.empty(0)
    if statistics.ndim != 2 or len(statistics) != len(expected):
        raise UserError(
            f"config.eval.metrics: {entry}: statistics() of {len(expected)} rows gave "
            f"{np.shape(made) or type(made).__name__}: expected numbers shaped "
            f"[{len(expected)}, k]."
        )
    bad = np.flatnonzero(~np.isfinite(statistics).all(axis=1))
    if len(bad):
        row = int(bad[0])
        raise UserError(
            f"config.eval.metrics: {entry}: no finite number for row {row + 1} (predicted "
            f"{predicted[row][:60]!r}, expected {expected[row][:60]!r})."
        )
    return statistics


def _guarded(entry: str, path: str, call: Callable[[], Any]) -> Any:
    """What the user's code returns; what it raises, with its line, as a ``UserError``."""
    try:
        return call()
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f"{error.filename}:{error.lineno}: {error.msg}.") from None
    except Exception as error:  # the file is Python: it can raise anything
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
        place = f"{path}:{lines[-1]}" if lines else path
        kind = type(error).__name__
        raise UserError(f"{place}: {kind}: {error} (config.eval.metrics: {entry}).") from None
