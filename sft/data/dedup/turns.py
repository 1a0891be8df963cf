"""Whole answers that equal one of an earlier row, be it in their own group.

Conversations cut into overlapping rows repeat whole answers, which teaches nothing new. Within a
group, text that is only a part of an answer is left alone: it is often what the next turn edits.
"""

import hashlib
from collections.abc import Iterator

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import CONTEXT
from sft.data.dedup.repeats import Options, limits
from sft.data.dedup.stretches import Stream, Stretches


def find(
    examples: Examples, groups: np.ndarray, stream: Stream, options: Options, kept: np.ndarray
) -> tuple[Stretches, np.ndarray]:
    """The answers of the ``kept`` rows, bool ``[n]``, that are copies too many, in ascending order.

    Rows are in the order of their group's rank, then of their place. Equal answers of one row are
    one copy.

    Returns:
      The copies; and int64 ``[k]``: the row of the first copy of each.
    """
    found = whole(examples, stream, options.length)
    turns, starts = _equal(examples, found.select(kept[found.rows]))
    ranks = np.empty(len(examples), np.int64)
    ranks[np.lexsort((np.arange(len(examples)), groups))] = np.arange(len(examples))
    keys, sizes = ranks[turns.rows], np.diff(starts)
    limit, first = limits(keys, starts, 1, options)
    is_copy = keys >= np.repeat(limit, sizes)
    owners = np.repeat(turns.rows[first], sizes)[is_copy]
    found = turns.select(is_copy)
    order = np.argsort(found.begins)
    return found.select(order), owners[order]


def whole(examples: Examples, stream: Stream, length: int) -> Stretches:
    """The answers with ``length`` tokens or more besides forms, no part of which has become
    context."""
    kinds, starts = examples.kinds, examples.starts
    turns = stream.turns.select(stream.sizes >= length)
    before = kinds[np.maximum(turns.begins - 1, 0)]
    after = kinds[np.minimum(turns.stops, len(kinds) - 1)]
    is_part = (before == CONTEXT) & (turns.begins > starts[turns.rows])
    is_part |= (after == CONTEXT) & (turns.stops < starts[turns.rows + 1])
    return turns.select(~is_part)


def _equal(examples: Examples, turns: Stretches) -> tuple[Stretches, np.ndarray]:
    """Turns that equal another, class by class, ascending within one; int64 ``[k + 1]`` where the
    classes start. Equal are turns of the same digest."""
    known: dict[bytes, int] = {}
    found = [known.setdefault(digest, len(known)) for digest in digests(examples, turns)]
    ids = np.array(found, np.int64)
    sizes = np.bincount(ids, minlength=len(known))
    order = np.argsort(ids, kind="stable")
    order = order[sizes[ids[order]] > 1]
    return turns.select(order), np.concatenate([[0], np.cumsum(sizes[sizes > 1])])


def digests(examples: Examples, turns: Stretches) -> Iterator[bytes]:
    """128-bit hashes of the tokens of each turn."""
    for begin, stop in zip(turns.begins, turns.stops, strict=True):
        content = np.ascontiguousarray(examples.tokens[begin:stop])
        yield hashlib.blake2b(content, digest_size=16).digest()
