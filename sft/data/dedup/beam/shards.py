"""Rows as files that workers read by their number, and what they write back."""

import dataclasses
import io
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from etils import epath

from sft.data.batches.examples import Examples
from sft.data.read.opening import message, one_line
from sft.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Shard:
    """Some rows one after another of a set.

    Attributes:
      examples: these rows.
      groups, origins: int64 ``[n]``, of each.
      row, position: of all rows and all tokens, the first one here.
    """

    examples: Examples
    groups: np.ndarray
    origins: np.ndarray
    row: int
    position: int


def cut(starts: np.ndarray, tokens: int) -> np.ndarray:
    """int64 ``[s + 1]``: the rows with which shards begin, and the number of rows.

    A shard has about so many ``tokens``, or one row of more. ``starts`` as in ``Examples``, of one
    row at least.
    """
    number = starts[:-1] // tokens
    return np.array([0, *(np.flatnonzero(np.diff(number)) + 1), len(number)], np.int64)


def write(
    folder: str, examples: Examples, groups: np.ndarray, origins: np.ndarray, bounds: np.ndarray
) -> None:
    """Writes the rows between ``bounds``, a shard at a time; of memory-mapped rows no others are
    in memory.

    Raises:
      UserError: the folder cannot be written.
    """
    for number, (first, last) in enumerate(pairwise(bounds.tolist())):
        begin, end = examples.starts[first], examples.starts[last]
        save(
            f"{folder}/rows-{number:05d}.npz",
            tokens=examples.tokens[begin:end],
            kinds=examples.kinds[begin:end],
            starts=examples.starts[first : last + 1] - begin,
            groups=groups[first:last],
            origins=origins[first:last],
            at=np.array([first, begin], np.int64),
        )


def read(folder: str, number: int) -> Shard:
    """A shard by its number."""
    found = load(f"{folder}/rows-{number:05d}.npz")
    examples = Examples(found["tokens"], found["kinds"], found["starts"])
    return Shard(examples, found["groups"], found["origins"], *map(int, found["at"]))


def write_outcome(folder: str, number: int, **arrays: np.ndarray) -> None:
    """What was found in a shard. Written again, it is the same: a worker may be started anew."""
    save(f"{folder}/outcome-{number:05d}.npz", **arrays)


def outcomes(folder: str, count: int) -> Iterator[dict[str, np.ndarray]]:
    """What was found in each shard, in their order."""
    for number in range(count):
        yield load(f"{folder}/outcome-{number:05d}.npz")


def save(path: str, **arrays: np.ndarray) -> None:
    """Arrays as one file, local or in a bucket.

    Raises:
      UserError: it cannot be written.
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    try:
        epath.Path(path).write_bytes(buffer.getvalue())
    except Exception as error:  # each backend of epath has errors of its own
        raise UserError(
            f"{path}: cannot write: {message(error)}. Give another --temp_location in "
            "config.data.dedup.beam."
        ) from None


def load(path: str) -> dict[str, np.ndarray]:
    """The inverse of ``save``.

    Raises:
      UserError: it cannot be read.
    """
    with one_line(path):
        content = epath.Path(path).read_bytes()
    with np.load(io.BytesIO(content)) as arrays:
        return dict(arrays)
