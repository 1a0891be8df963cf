"""Metrics of classification: every answer is one of a few labels.

Labels are compared as exact match compares answers (NFC, without surrounding white space). The
labels are those of the expected answers of the whole set; a prediction that is none of them is a
miss of the expected label and a false alarm of no label, as in scikit-learn's ``f1_score`` with
``labels=`` the expected ones.
"""

import numpy as np

from sft.eval.metrics.match import canonical, is_exact
from sft.eval.metrics.metric import SHARE, Ends, Metric, Texts, Unfit, mean

_FEW = 20  # distinct labels that any set may have
_MOST = 1000  # labels of which macro_f1 keeps three counts for every row


def accuracy() -> Metric:
    """The same number as exact match, and refused where the answers are no labels."""
    return mean("accuracy", is_exact, unfit=no_labels)


def micro_f1(expected: Texts) -> Metric:
    """F1 of the summed counts. Below accuracy's name only if a prediction is no label."""
    known = {canonical(text) for text in expected}

    def statistics(predicted: Texts, expected: Texts) -> np.ndarray:
        rows = []
        for ours, theirs in zip(map(canonical, predicted), map(canonical, expected), strict=True):
            right = ours == theirs
            rows.append((right, not right and ours in known, not right))
        return np.array(rows, np.float64).reshape(-1, 3)

    def ends(statistics_nx3: np.ndarray) -> Ends:
        n = len(statistics_nx3)
        return np.tile([0.0, 1.0, 1.0], (n, 1)), np.tile([1.0, 0.0, 0.0], (n, 1))

    return Metric(
        "micro_f1",
        "higher",
        _signature(known),
        statistics,
        _f1,
        unfit=no_labels,
        bounds=SHARE,
        ends=ends,
    )


def macro_f1(expected: Texts) -> Metric:
    """The mean of the labels' F1, every label counting the same, whatever its frequency.

    In a sample of the rows, labels that are expected nowhere in it are left out of the mean.
    """
    index = {label: i for i, label in enumerate(sorted({canonical(text) for text in expected}))}

    def statistics(predicted: Texts, expected: Texts) -> np.ndarray:
        counts = np.zeros((len(expected), 3, len(index)))  # hits, false alarms, misses
        for row, (p, e) in enumerate(zip(predicted, expected, strict=True)):
            ours, theirs = index.get(canonical(p)), index[canonical(e)]
            counts[row, 0 if ours == theirs else 2, theirs] = 1
            if ours is not None and ours != theirs:
                counts[row, 1, ours] = 1
        return counts.reshape(len(expected), -1)

    def ends(statistics_nxk: np.ndarray) -> Ends:
        hits_nxL, _, misses_nxL = np.moveaxis(statistics_nxk.reshape(-1, 3, len(index)), 1, 0)
        expected_nxL = hits_nxL + misses_nxL
        none_nxL = np.zeros_like(expected_nxL)
        alarms_nxL = (1 - expected_nxL) / max(len(index) - 1, 1)  # each other label as often
        wrong = np.concatenate([none_nxL, alarms_nxL, expected_nxL], axis=1)
        return wrong, np.concatenate([expected_nxL, none_nxL, none_nxL], axis=1)

    return Metric(
        "macro_f1",
        "higher",
        _signature(index),
        statistics,
        _macro,
        unfit=no_labels,
        bounds=SHARE,
        ends=ends,
    )


def no_labels(expected: Texts) -> Unfit | None:
    """A set with almost as many labels as rows is no classification."""
    seen: set[str] = set()
    for index, text in enumerate(expected):
        seen.add(canonical(text))
        if too_many(len(seen), len(expected)):
            return index, (
                f"the expected answer {text[:60]!r} is the {len(seen)}th different one of "
                f"{len(expected)} rows: these are no labels. Use exact_match or token_f1."
            )
    return None


def too_many(labels: int, rows: int) -> bool:
    """Whether so many different answers in so many rows are not labels."""
    return labels > max(_FEW, min(_MOST, rows // 2))


def _signature(labels: set[str] | dict[str, int]) -> str:
    return f"labels:{len(labels)}"


def _f1(counts: np.ndarray) -> np.ndarray:
    """``[..., 3]`` hits, false alarms, misses → F1; 0 where all are 0."""
    hits, alarms, misses = np.moveaxis(counts, -1, 0)
    total = 2 * hits + alarms + misses
    return np.divide(2 * hits, total, out=np.zeros(np.shape(total)), where=total > 0)


def _macro(sums: np.ndarray) -> np.ndarray:
    counts = sums.reshape(*sums.shape[:-1], 3, -1)
    f1 = _f1(np.moveaxis(counts, -2, -1))
    expected = counts[..., 0, :] + counts[..., 2, :] > 0
    labels = expected.sum(-1)
    return (f1 * expected).sum(-1) / np.maximum(labels, 1)
