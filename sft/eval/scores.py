"""From the rows of a predictions file to every metric of a set, with what it needs to be resampled.

A metric is a function of sums over rows, so that the same rows give its value, its interval, and,
paired with those of another model, the difference and its significance: see ``sft.eval.bootstrap``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sft.eval import bootstrap, metrics
from sft.eval.metrics import Metric

Row = dict[str, Any]


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def _of_texts(predicted: Sequence[str], expected: Sequence[str]) -> np.ndarray:
    raise TypeError("the model's likelihoods are not in the texts: see sft.eval.scores.table")


# Of the expected answers under the model, per trained token: nothing is generated for them.
LIKELIHOOD: dict[str, tuple[str, Metric]] = {
    "loss": ("nll", Metric("loss", "lower", None, _of_texts, _ratio)),
    "perplexity": (
        "nll",
        Metric("perplexity", "lower", None, _of_texts, lambda sums: np.exp(_ratio(sums))),
    ),
    "token_accuracy": (
        "right_tokens",
        Metric("token_accuracy", "higher", None, _of_texts, _ratio),
    ),
}


def table(config: ConfigDict, rows: Sequence[Row]) -> dict[str, tuple[Metric, np.ndarray]]:
    """Each metric with its statistics, float64 ``[n, k]``.

    Args:
      rows: with ``predicted`` and ``expected``; those of ``LIKELIHOOD`` are left out where the rows
        have no ``nll``, ``right_tokens`` and ``trained``.
    """
    predicted, expected = ([row[key] for row in rows] for key in ("predicted", "expected"))
    found = {
        name: (metric, metric.statistics(predicted, expected))
        for name, metric in metrics.of(config).items()
    }
    for name, (field, metric) in LIKELIHOOD.items():
        if rows and all(field in row and "trained" in row for row in rows):
            found[name] = (metric, np.array([[row[field], row["trained"]] for row in rows], float))
    return found


def summary(config: ConfigDict, rows: Sequence[Row]) -> dict[str, Row]:
    """``{metric: {"value", "interval", "better", "signature"}}``, the interval over rows."""
    options = {"resamples": config.eval.resamples, "seed": config.seed}
    return {
        name: {
            "value": float(metric.value(statistics.sum(axis=0))),
            "interval": list(bootstrap.interval(metric, statistics, **options)),
            "better": metric.better,
            "signature": metric.signature,
        }
        for name, (metric, statistics) in table(config, rows).items()
    }


def by_row(config: ConfigDict, rows: Sequence[Row]) -> list[dict[str, float]]:
    """Every metric of each row by itself."""
    values = {
        name: metric.value(statistics)
        for name, (metric, statistics) in table(config, rows).items()
        if name not in LIKELIHOOD or name == "loss"
    }
    return [{name: float(of_all[i]) for name, of_all in values.items()} for i in range(len(rows))]
