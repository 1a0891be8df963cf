"""Metrics of the model's probabilities rather than of its texts.

Their two columns are numbers: ``loss.statistics(nll, trained)`` with, for each row, the sum of
negative log-likelihoods in nats and the number of trained tokens. So every token counts the same,
whatever row it is in.
"""

import math
from collections.abc import Sequence

import numpy as np

from sft.eval.metrics.metric import SHARE, Metric, ends_of_ratio, ratio


def columns(total: Sequence[float], tokens: Sequence[float]) -> np.ndarray:
    """float64 ``[n, 2]``."""
    return np.stack([np.asarray(total, np.float64), np.asarray(tokens, np.float64)], axis=1)


def _exp(sums: np.ndarray) -> np.ndarray:
    return np.exp(np.minimum(ratio(sums), 700.0))  # exp(710) is not finite


_AT_LEAST_0 = (0.0, math.inf)

loss = Metric(
    "loss",
    "lower",
    "nats per trained token",
    columns,
    ratio,
    bounds=_AT_LEAST_0,
    ends=ends_of_ratio(_AT_LEAST_0),
)
perplexity = Metric(
    "perplexity",
    "lower",
    "exp(loss)",
    columns,
    _exp,
    bounds=(1.0, math.inf),
    ends=ends_of_ratio(_AT_LEAST_0),
)
token_accuracy = Metric(
    "token_accuracy",
    "higher",
    "per trained token",
    columns,
    ratio,
    bounds=SHARE,
    ends=ends_of_ratio(SHARE),
)
