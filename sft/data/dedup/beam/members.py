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
# From which key on members are copies; the row of the first.
DECISION = np.dtype([*_ID, ("limit", np.int64), ("owner", np.int32)])
# What belongs to a form: rows of a source that hold it, see templates.most.
FORM = np.dtype([*_ID, ("rows", np.int32), ("origin", np.int32)])


def make(
    high: np.ndarray, low: np.ndarray, keys: np.ndarray, rows: np.ndarray, origins: np.ndarray
) -> np.ndarray:
    """MEMBER ``[m]``, from arrays ``[m]``."""
    members = np.zeros(len(high), MEMBER)
    for name, array in zip(MEMBER.names or (), (high, low, keys, rows, origins), strict=False):
        members[name] = array
    return members


def essential(
    members: np.ndarray, gap: int, options: Options, counts_rows: bool = False
) -> np.ndarray:
    """Those that decide what all of them would, in the order of their ids.

    Args:
      members: MEMBER ``[m]``, all that a shard has of their classes.
      gap: see ``repeats.limits``; members of different shards must be at different places or
        have the same key.
      counts_rows: the rows of each source are counted too, for ``decide_forms``.
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
    if counts_rows:
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
    parts: Sequence[np.ndarray], bounds: np.ndarray, gap: int, options: Options
) -> Iterator[tuple[int, np.ndarray]]:
    """What holds for the classes of a partition that have a copy.

    Args:
      parts: MEMBER ``[...]``, from ``essential``, in any order.
      bounds: int64 ``[s + 1]``, the first row of each shard.

    Yields:
      The number of each shard that has members of such classes, and of these the DECISION ``[k]``,
      in the order of their ids.
    """
    members, starts, classes = _classes(parts)
    heads, keys = starts[:-1], members["key"]
    if not len(heads):
        return
    limit, first = limits(keys, starts, gap, options)
    decisions = _about(members, heads, DECISION)
    decisions["limit"] = limit
    decisions["owner"] = members["row"][first] if options.keep == "first" else -1
    has_copy = np.maximum.reduceat(keys, heads) >= limit
    yield from _by_shard(decisions, has_copy, members["row"], classes, bounds)


def decide_forms(
    parts: Sequence[np.ndarray], bounds: np.ndarray, least: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """Which classes of a partition belong to forms; arguments and result as of ``decide``.

    Args:
      least: from ``templates.least_rows``.

    Yields:
      The number of each shard, and FORM ``[k]``.
    """
    members, starts, classes = _classes(parts)
    heads = starts[:-1]
    if not len(heads):
        return
    counted = np.flatnonzero(members["held"])
    held = (classes[counted], members["origin"][counted], members["held"][counted])
    forms = _about(members, heads, FORM)
    forms["rows"], forms["origin"] = most(*held, least, len(heads))
    yield from _by_shard(forms, forms["rows"] > 0, members["row"], classes, bounds)


def _classes(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The members that are not alone in their class, in order; int64 ``[k + 1]`` where classes
    start; and the class of each member."""
    members = _ordered(np.concatenate(parts))
    members = members[_several(members)]
    starts = _starts(members)
    return members, starts, np.repeat(np.arange(len(starts) - 1), np.diff(starts))


def _about(members: np.ndarray, heads: np.ndarray, kind: np.dtype) -> np.ndarray:
    """``kind [k]`` with the ids of the classes that begin at ``heads``."""
    found = np.zeros(len(heads), kind)
    found["high"], found["low"] = members["high"][heads], members["low"][heads]
    return found


def _by_shard(
    decisions: np.ndarray,
    matters: np.ndarray,
    rows: np.ndarray,
    classes: np.ndarray,
    bounds: np.ndarray,
) -> Iterator[tuple[int, np.ndarray]]:
    """Each shard with the ``decisions`` that ``matter`` to it: those with a member in its rows."""
    chosen = matters[classes]
    shards = np.searchsorted(bounds, rows[chosen], side="right") - 1
    pairs = np.unique(shards * len(decisions) + classes[chosen])
    shards, classes = np.divmod(pairs, len(decisions))
    edges = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(shards)]
    for start, stop in pairwise(edges):
        if start < stop:
            yield int(shards[start]), decisions[classes[start:stop]]


def match(
    members: np.ndarray, parts: Sequence[np.ndarray], kind: np.dtype = DECISION
) -> tuple[np.ndarray, np.ndarray]:
    """The members about which something was decided.

    Args:
      members: MEMBER ``[m]``.
      parts: ``kind [...]``, of different classes, in any order.

    Returns:
      int64 ``[k]``, indices of members, ascending; and ``kind [k]``, of each of them.
    """
    decisions = np.concatenate([np.zeros(0, kind), *parts])
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
