"""Rows that are alike by a user's embeddings: what says the same in other words.

Embeddings need a model of their own, so they are read from a file, a vector for each row.
"""

import warnings

import numpy as np

from sft.data.dedup import graph
from sft.errors import UserError

_SAMPLE = 20_000  # vectors that k-means sees
_SIMILARITIES = 2**22  # computed at a time
_ROUNDING = 1e-6  # of a float32 cosine


def read(path: str, rows: int) -> np.ndarray:
    """A ``.npy`` file of one vector a row, memory-mapped.

    Args:
      rows: how many there must be.

    Raises:
      UserError: no such file, not an array of numbers, or another number of rows.
    """
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Expected a .npy file of embeddings.") from None
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a .npy file of numbers: {reason}") from None
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or len(vectors) != rows:
        shape = getattr(vectors, "shape", "an archive of arrays")
        raise UserError(
            f"{path}: found {shape}, expected ({rows}, width): one vector for each row of the "
            "data, in the same order. Compute the embeddings again from this data."
        )
    return vectors


def clusters(
    vectors: np.ndarray, threshold: float, seed: int = 0, source: str = "embeddings"
) -> np.ndarray:
    """Clusters of rows whose vectors point nearly the same way (SemDeDup, Abbas et al. 2023).

    Rows are divided into about √n cells by k-means (on at most 20,000 rows drawn with ``seed``);
    in each cell, pairs of cosine similarity ``threshold`` or more are joined. Pairs across cells
    are not seen. The same seed gives the same clusters.

    Args:
      vectors: float ``[n, d]``, d > 0.
      threshold: above 0, at most 1.
      source: what the vectors are, for errors.

    Returns:
      int64 ``[n]``: the lowest row of the cluster.

    Raises:
      UserError: another shape, not numbers, a value that is not finite, a vector of zeros, or a
        threshold out of its range.
    """
    units = _unit_vectors(vectors, source)
    if not 0 < threshold <= 1:
        raise UserError(f"{source}: threshold = {threshold}: expected above 0 and at most 1.")
    labels = np.arange(len(units))
    if len(units) < 2:
        return labels
    cells = _cells(units, seed)
    order = np.argsort(cells, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(cells))[:-1]):
        labels[rows] = rows[_components_of_cell(units[rows], threshold)]
    return labels


def _components_of_cell(units: np.ndarray, threshold: float) -> np.ndarray:
    labels = np.arange(len(units))
    step = max(_SIMILARITIES // max(len(units), 1), 1)
    for start in range(0, len(units), step):
        near = units[start : start + step] @ units[start:].T >= threshold - _ROUNDING
        left, right = np.nonzero(near)
        labels = graph.merge(labels, left + start, right + start)
    return labels


def _unit_vectors(vectors: np.ndarray, source: str) -> np.ndarray:
    """float32 ``[n, d]``."""
    if vectors.ndim != 2 or not vectors.shape[1] or vectors.dtype.kind not in "fiu":
        raise UserError(
            f"{source}: found {vectors.dtype} of shape {vectors.shape}, expected numbers of shape "
            "(rows, width)."
        )
    # Scaled first: the square of a large float32 is infinite, that of a small one zero.
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    for problem, is_bad in (
        ("a value that is not finite", ~np.isfinite(largest)),
        ("only zeros", largest == 0),
    ):
        if is_bad.any():
            raise UserError(
                f"{source}: row {np.argmax(is_bad)} has {problem}; so have {is_bad.sum()} of "
                f"{len(vectors)} rows (counted from 0). Compute their embeddings again."
            )
    scaled = (vectors / largest).astype(np.float32)
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def _cells(units: np.ndarray, seed: int) -> np.ndarray:
    """int ``[n]``: the cell of each vector."""
    from scipy.cluster.vq import kmeans2, vq

    draw = np.random.default_rng(seed)
    sample = units
    if len(units) > _SAMPLE:
        sample = units[np.sort(draw.choice(len(units), _SAMPLE, replace=False))]
    sample = np.unique(sample, axis=0)
    count = min(round(len(units) ** 0.5), len(sample))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty cell does no harm here
        centres, _ = kmeans2(sample, count, iter=20, minit="points", rng=draw)
    return vq(units, centres, check_finite=False)[0]
