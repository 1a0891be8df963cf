"""From the rows of a predictions file to every metric of a set, with what it needs to be resampled.

A metric is a function of sums over rows, so that the same rows give its value, its interval, and,
paired with those of another model, the difference and its significance: see ``sft.eval.bootstrap``.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sft.eval import bootstrap, metrics
from sft.eval.metrics import Metric

Row = dict[str, Any]
Table = dict[str, tuple[Metric, np.ndarray]]

# The field of a row that each likelihood is a mean of, per trained token.
_FIELDS = {"loss": "nll", "perplexity": "nll", "token_accuracy": "right_tokens"}


def table(config: ConfigDict, rows: Sequence[Row]) -> Table:
    """Each metric with its statistics, float64 ``[n, k]``.

    Args:
      rows: with ``predicted`` and ``expected``. Metrics of ranked labels are left out where they
        have no ``ranked``, ``ranked_norm`` and ``ranks``; the likelihoods where they have no
        ``nll``, ``right_tokens`` and ``trained``.
    """
    predicted, expected = ([row[key] for row in rows] for key in ("predicted", "expected"))
    found = {
        name: (metric, metric.statistics(predicted, expected))
        for name, metric in metrics.of(config, expected).items()
    }
    if all("ranked" in row for row in rows):
        look = metrics.looks_at(config)
        sought = [look(text) for text in expected]
        for name, metric in metrics.ranked(sought, rows[0]["ranks"]).items():
            column = "ranked_norm" if name == "label_accuracy_norm" else "ranked"
            found[name] = (metric, metric.statistics([row[column] for row in rows], sought))
    for name, metric in metrics.LIKELIHOOD.items():
        field = _FIELDS[name]
        if all(field in row and "trained" in row for row in rows):
            columns = ([row[key] for row in rows] for key in (field, "trained"))
            found[name] = (metric, metric.statistics(*columns))
    return found


def summary(config: ConfigDict, table: Table) -> dict[str, Row]:
    """``{metric: {"value", "interval", "better", "signature", "bounds"}}``, the interval over rows.

    An end of the interval or of the bounds that is nowhere is ``None``.
    """
    options = {"resamples": config.eval.resamples, "seed": config.seed}
    return {
        name: {
            "value": float(metric.value(statistics.sum(axis=0))),
            "interval": _finite(bootstrap.interval(metric, statistics, **options)),
            "better": metric.better,
            "signature": metric.signature,
            "bounds": _finite(metric.bounds),
        }
        for name, (metric, statistics) in table.items()
    }


def _finite(bounds: tuple[float, float]) -> list[float | None]:
    return [bound if math.isfinite(bound) else None for bound in bounds]


def of_row(table: Table, i: int) -> dict[str, float]:
    """Every metric of one row by itself."""
    return {name: float(metric.value(found[i])) for name, (metric, found) in table.items()}
