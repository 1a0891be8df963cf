"""Members of classes of equal things, told to each other by few of them.

What is a copy depends on a class only through its lowest keys, its highest, and how many rows of
each source hold it. So a shard sends, of each class, the members that make these up: two at least
where it has two, and at most ``max_copies`` + 1 and one of each source. For a text that is in every
record, one partition gets that many members from each shard rather than one from each record, and
decides the same.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from sft.data.dedup.repeats import NEVER, Options, limits
from sft.data.dedup.templates import most

_ID = [("high", np.uint64), ("low", np.uint64)]

# 36 bytes: what is shuffled. Held are rows of the origin that the member speaks for.
MEMBER = np.dtype(
    [*_ID, ("key", np.int64), ("row", np.int32), ("origin", np.int32), ("held", np.int32)]
)
# From which key on members are copies; the row of the first; of a template, see templates.most.
DECISION = np.dtype(
    [*_ID, ("limit", np.int64), ("owner", np.int32), ("rows", np.int32), ("origin", np.int32)]
)


def make(
    high: np.ndarray, low: np.ndarray, keys: np.ndarray, rows: np.ndarray, origins: np.ndarray
) -> np.ndarray:
    """MEMBER ``[m]``, from arrays ``[m]``."""
    members = np.zeros(len(high), MEMBER)
    for name, array in zip(MEMBER.names or (), (high, low, keys, rows, origins), strict=False):
        members[name] = array
    return members


def essential(
    members: np.ndarray, gap: int, options: Options, has_templates: bool = False
) -> np.ndarray:
    """Those that decide what all of them would, in the order of their ids.

    Args:
      members: MEMBER ``[m]``, all that a shard has of their classes.
      gap: see ``repeats.limits``; members of different shards must be at different places or
        have the same key.
      has_templates: the rows of each source are counted too.
    """
    members = _ordered(members)
    starts = _starts(members)
    heads, sizes, keys = starts[:-1], np.diff(starts), members["key"]
    needed = np.zeros(len(members), bool)
    needed[heads] = needed[starts[1:] - 1] = True
    limit, count = keys[heads] + gap, 1
    while count < options.max_copies and len(heads):
        is_below = keys < np.repeat(limit, sizes)
        after = heads + np.add.reduceat(is_below, heads, dtype=np.int64)
        has_more = after < starts[1:]
        if not has_more.any():
            break
        needed[after[has_more]] = True
        limit = np.full(len(heads), NEVER)
        limit[has_more] = keys[after[has_more]] + gap
        count += 1
    if has_templates:
        _count_rows(members, np.repeat(np.arange(len(heads)), sizes), needed)
    return members[needed]


def _count_rows(members: np.ndarray, classes: np.ndarray, needed: np.ndarray) -> None:
    """Has one member of each class and origin, which is then ``needed``, speak for all its rows."""
    order = np.lexsort((members["row"], members["origin"], classes))
    classes, origins, rows = classes[order], members["origin"][order], members["row"][order]
    is_pair, is_row = np.ones((2, len(order)), bool)
    is_pair[1:] = (classes[1:] != classes[:-1]) | (origins[1:] != origins[:-1])
    is_row[1:] = is_pair[1:] | (rows[1:] != rows[:-1])
    pairs = np.flatnonzero(is_pair)
    if len(pairs):
        members["held"][order[pairs]] = np.add.reduceat(is_row, pairs, dtype=np.int32)
        needed[order[pairs]] = True


def by_partition(members: np.ndarray, partitions: int) -> Iterator[tuple[int, np.ndarray]]:
    """Members in the order of their ids, cut by the upper bits of these."""
    parts = ((members["high"] >> np.uint64(32)) * np.uint64(partitions)) >> np.uint64(32)
    edges = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(members)]
    for start, stop in pairwise(edges):
        if start < stop:
            yield int(parts[start]), members[start:stop].copy()


def decide(
    parts: Sequence[np.ndarray], bounds: np.ndarray, least: np.ndarray, gap: int, options: Options
) -> Iterator[tuple[int, np.ndarray]]:
    """What holds for the classes of a partition that have a copy or are templates.

    Args:
      parts: MEMBER ``[...]``, from ``essential``, in any order.
      bounds: int64 ``[s + 1]``, the first row of each shard.
      least: from ``templates.least_rows``.

    Yields:
      The number of each shard that has members of such classes, and of these the DECISION ``[k]``,
      in the order of their ids.
    """
    members = _ordered(np.concatenate(parts))
    members = members[_several(members)]
    starts = _starts(members)
    heads, sizes, keys = starts[:-1], np.diff(starts), members["key"]
    if not len(heads):
        return
    limit, first = limits(keys, starts, gap, options)
    classes = np.repeat(np.arange(len(heads)), sizes)
    decisions = np.zeros(len(heads), DECISION)
    if len(least):
        told = np.flatnonzero(members["held"])
        held = (classes[told], members["origin"][told], members["held"][told])
        decisions["rows"], decisions["origin"] = most(*held, least, len(heads))
    limit[decisions["rows"] > 0] = NEVER
    decisions["high"], decisions["low"] = members["high"][heads], members["low"][heads]
    decisions["limit"] = limit
    decisions["owner"] = members["row"][first] if options.keep == "first" else -1
    matters = (np.maximum.reduceat(keys, heads) >= limit) | (decisions["rows"] > 0)
    chosen = np.repeat(matters, sizes)
    shards = np.searchsorted(bounds, members["row"][chosen], side="right") - 1
    pairs = np.unique(shards * len(heads) + classes[chosen])
    shards, classes = np.divmod(pairs, len(heads))
    edges = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(shards)]
    for start, stop in pairwise(edges):
        if start < stop:
            yield int(shards[start]), decisions[classes[start:stop]]


def match(members: np.ndarray, parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The members about which something was decided.

    Args:
      members: MEMBER ``[m]``.
      parts: DECISION ``[...]``, of different classes, in any order.

    Returns:
      int64 ``[k]``, indices of members, ascending; and DECISION ``[k]``, of each of them.
    """
    decisions = np.concatenate([np.zeros(0, DECISION), *parts])
    decisions = decisions[np.lexsort((decisions["low"], decisions["high"]))]
    place = np.searchsorted(decisions["high"], members["high"])
    last = np.maximum(len(decisions) - 1, 0)
    found = np.flatnonzero(place < len(decisions))
    place = place[found]
    while True:  # once, unless ids agree in one half
        is_high = decisions["high"][place] == members["high"][found]
        is_low = decisions["low"][place] == members["low"][found]
        further = is_high & ~is_low & (place < last)
        if not further.any():
            return found[is_high & is_low], decisions[place[is_high & is_low]]
        place += further


def _ordered(members: np.ndarray) -> np.ndarray:
    """By id, then key, then row."""
    order = np.lexsort((members["row"], members["key"], members["low"], members["high"]))
    return members[order]


def _joins(members: np.ndarray) -> np.ndarray:
    """bool ``[m + 1]``: whether member i is of the same class as the one before it."""
    joins = np.zeros(len(members) + 1, bool)
    high, low = members["high"], members["low"]
    joins[1:-1] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    return joins


def _starts(members: np.ndarray) -> np.ndarray:
    """int64 ``[k + 1]``: where each class begins."""
    joins = _joins(members)[:-1]
    return np.append(np.flatnonzero(~joins), len(members))


def _several(members: np.ndarray) -> np.ndarray:
    """bool ``[m]``: those that are not alone in their class."""
    joins = _joins(members)
    return joins[:-1] | joins[1:]
