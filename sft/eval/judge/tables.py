"""Kappa, Spearman and alpha from counts: additive over rows, and vectorised over resamples.

For one table of counts, these are the formulas of the libraries that ``agreement`` calls.
"""

from collections.abc import Callable, Sequence

import numpy as np


def joint(
    ratings_nxR: np.ndarray, domain: Sequence[int], pairs: Sequence[tuple[int, int]]
) -> np.ndarray:
    """``[n, P*K*K]``: for each row and pair of raters, a one where their two ratings meet."""
    is_value_nxRxK = ratings_nxR[:, :, None] == np.asarray(domain, np.float64)
    both_nxPxKxK = [is_value_nxRxK[:, a, :, None] & is_value_nxRxK[:, b, None, :] for a, b in pairs]
    return np.stack(both_nxPxKxK, axis=1).reshape(len(ratings_nxR), -1).astype(np.float64)


def of_pairs(name: str, P: int, K: int) -> Callable[[np.ndarray], np.ndarray]:
    """From sums of ``joint``, ``[..., P*K*K]``: the mean over pairs, weighted by their rows."""
    of_table = {
        "kappa": lambda t: kappa(t, 1.0 - np.eye(K)),
        "weighted_kappa": lambda t: kappa(t, np.subtract.outer(range(K), range(K)) ** 2.0),
        "spearman": spearman,
    }[name]

    def value(sums: np.ndarray) -> np.ndarray:
        table_PxKxK = sums.reshape(*sums.shape[:-1], P, K, K)
        values_P, rows_P = of_table(table_PxKxK), table_PxKxK.sum((-2, -1))
        weights_P = np.where(np.isfinite(values_P), rows_P, 0.0)
        return (np.nan_to_num(values_P, posinf=0, neginf=0) * weights_P).sum(-1) / weights_P.sum(-1)

    return value


def kappa(table_KxK: np.ndarray, distance_KxK: np.ndarray) -> np.ndarray:
    """One minus observed over expected disagreement; Cohen (1968), *Psych. Bulletin* 70:213-220."""
    rows = table_KxK.sum((-2, -1), keepdims=True)
    expected_KxK = table_KxK.sum(-1, keepdims=True) * table_KxK.sum(-2, keepdims=True) / rows
    return 1 - (distance_KxK * table_KxK).sum((-2, -1)) / (distance_KxK * expected_KxK).sum(
        (-2, -1)
    )


def spearman(table_KxK: np.ndarray) -> np.ndarray:
    """Pearson's correlation of mid-ranks, which are half the ties above the ranks below."""
    first_K, second_K = table_KxK.sum(-1), table_KxK.sum(-2)
    n = first_K.sum(-1)
    x_K, y_K = (np.cumsum(c_K, -1) - c_K / 2 - n[..., None] / 2 for c_K in (first_K, second_K))
    covariance = (x_K[..., :, None] * y_K[..., None, :] * table_KxK).sum((-2, -1))
    return covariance / np.sqrt((first_K * x_K**2).sum(-1) * (second_K * y_K**2).sum(-1))


def coincidences(ratings_nxR: np.ndarray, domain: Sequence[int]) -> np.ndarray:
    """``[n, K*K]``: ordered pairs of ratings in a row over its ratings less one; 0 if single.

    Source: Krippendorff, *Content Analysis*, 4th ed., 12.2.
    """
    counts_nxK = (ratings_nxR[:, :, None] == np.asarray(domain, np.float64)).sum(1).astype(float)
    pairs_nxKxK = counts_nxK[:, :, None] * counts_nxK[:, None, :]
    pairs_nxKxK -= np.eye(len(domain)) * counts_nxK[:, :, None]
    others_n = np.maximum(counts_nxK.sum(1) - 1, 1)
    return (pairs_nxKxK / others_n[:, None, None]).reshape(len(counts_nxK), -1)


def alpha(K: int) -> Callable[[np.ndarray], np.ndarray]:
    """From sums of ``coincidences``, ``[..., K*K]``: ordinal alpha."""

    def value(sums: np.ndarray) -> np.ndarray:
        observed_KxK = sums.reshape(*sums.shape[:-1], K, K)
        values_K = observed_KxK.sum(-1)
        n = values_K.sum(-1)[..., None, None]
        # The distance of two values: the ratings between them, their own counted half.
        middle_K = np.cumsum(values_K, -1) - values_K / 2
        distance_KxK = (middle_K[..., :, None] - middle_K[..., None, :]) ** 2
        expected_KxK = (
            values_K[..., :, None] * values_K[..., None, :] - np.eye(K) * (values_K[..., :, None])
        )
        disagreement = (distance_KxK * expected_KxK).sum((-2, -1)) / (n[..., 0, 0] - 1)
        return 1 - (distance_KxK * observed_KxK).sum((-2, -1)) / disagreement

    return value
