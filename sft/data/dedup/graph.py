"""Clusters from pairs: which rows are worth comparing, and what hangs together."""

from collections.abc import Callable, Iterable

import numpy as np


def firsts(keys: Iterable[str]) -> np.ndarray:
    """int64 ``[n]``: the first row with the same key; itself for a row whose key is empty."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(k, i) if k else i for i, k in enumerate(keys)], np.int64)


def buckets(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with equal keys in a band, two or more: ``members[first[i] : stop[i]]``, ascending."""
    members, first, stop = [np.zeros(0, np.int64)], [], []
    for band in range(keys.shape[1]):
        order = np.argsort(keys[:, band], kind="stable")
        ranked = keys[order, band]
        edges = np.flatnonzero(ranked[1:] != ranked[:-1]) + 1
        starts, stops = np.append(0, edges), np.append(edges, len(order))
        several = stops - starts > 1
        first.append(starts[several] + band * len(order))
        stop.append(stops[several] + band * len(order))
        members.append(order)
    return np.concatenate(members), np.concatenate(first), np.concatenate(stop)


def components(
    count: int,
    members: np.ndarray,
    first: np.ndarray,
    stop: np.ndarray,
    is_edge: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """The components that all edges inside the buckets would make, from few of these edges.

    Pairs that others have connected already are not looked at: of a bucket of k near-duplicates,
    k - 1 pairs instead of k (k - 1) / 2.
    """
    labels = np.arange(count)
    refused = np.zeros(0, np.int64)
    while len(first):
        sizes = stop - first - 1
        left = np.repeat(members[first], sizes)
        right = members[ranges(first + 1, stop)]
        codes = np.unique((left * count + right)[labels[left] != labels[right]])
        codes = np.setdiff1d(codes, refused, assume_unique=True)
        passed = is_edge(codes // count, codes % count)
        refused = np.concatenate([refused, codes[~passed]])
        labels = merge(labels, codes[passed] // count, codes[passed] % count)
        bucket = np.repeat(np.arange(len(first)), sizes)
        is_apart = np.bincount(bucket, labels[left] != labels[right], minlength=len(first)) > 0
        is_open = is_apart & (sizes > 1)
        first, stop = first[is_open] + 1, stop[is_open]
    return labels


def merge(labels: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Labels, each the lowest member of its component, after more edges."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(labels)
    ends = np.concatenate([np.arange(count), left]), np.concatenate([labels, right])
    graph = coo_array((np.ones(len(ends[0]), np.int8), ends), shape=(count, count))
    components = connected_components(graph, directed=False)[1]
    return np.unique(components, return_index=True)[1][components]


def ranges(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """``arange(starts[i], stops[i])`` of all i, one after another."""
    sizes = stops - starts
    offsets = np.cumsum(sizes) - sizes
    return np.arange(sizes.sum()) + np.repeat(starts - offsets, sizes)
