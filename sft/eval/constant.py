"""What answers that look at no prompt would score: the most frequent label, and a random one.

A model that is no better has learnt nothing about the task, however high its score.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sft.eval import metrics, scores
from sft.eval.metrics.match import canonical

# Shares of right answers, of which 1 / k is the expected value where one of k labels is drawn.
_SHARES = ("exact_match", "accuracy", "micro_f1", "label_accuracy", "label_accuracy_norm")


def scored(
    config: ConfigDict,
    expected: Sequence[str],
    majority: str,
    known_from: str,
    labels: Sequence[str] = (),
) -> dict[str, Any]:
    """The ``constant`` part of a result.

    Args:
      expected: answers of the rows.
      majority: the label that is always answered.
      known_from: whose most frequent answer it is.
      labels: that are ranked; none = those of ``expected``.

    Returns:
      ``{"majority": {"label", "known_from", "metrics"}, "random": {"labels", "metrics"}}``; metrics
      are ``{name: {"value", "interval", …}}`` as of a model. Of the random label they are expected
      values, without an interval; ``macro_f1`` is that of the expected counts.
    """
    ranks = {"ranked": majority, "ranked_norm": majority, "ranks": len(labels)} if labels else {}
    rows = [{"predicted": majority, "expected": text, **ranks} for text in expected]
    found = scores.summary(config, scores.table(config, rows))
    look = metrics.looks_at(config)
    answers = [canonical(look(text)) for text in expected]
    known = set(labels) or set(answers)
    counts = np.array([answers.count(label) for label in dict.fromkeys(answers)], np.float64)
    k, n = len(known), len(answers)
    # Of a label with m rows: m/k hits, (n - m)/k false alarms, m (k - 1)/k misses.
    values = dict.fromkeys(_SHARES, 1 / k)
    values |= dict.fromkeys(
        ("macro_f1", "label_macro_f1"), float(np.mean(2 * counts / (n + k * counts)))
    )
    return {
        "majority": {"label": majority, "known_from": known_from, "metrics": found},
        "random": {
            "labels": k,
            "metrics": {
                name: {"value": values[name], "interval": None, "better": "higher"}
                for name in found
                if name in values
            },
        },
    }
