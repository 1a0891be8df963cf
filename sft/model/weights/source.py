"""A source is one checkpoint of one format, as the others of this room see it.

It knows where each part of our tree lies (``entry``), and returns it in our orientation
(``tensor``).
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

EMBED = "embed_VxD"
FINAL_NORM = "final_norm_D"

# Vocabularies that are also published with another number of rows. Gemma 2: 256,000 pieces on
# Hugging Face, padded here with zero rows, whose logits are exactly 0 (no tokenizer makes those
# ids). Gemma 3 from 4B up: 64 more rows there, for image tokens, dropped here.
OTHER_ROWS = {256_128: 256_000, 262_144: 262_208}
_CHUNK_ELEMENTS = 1 << 20  # of the embedding, read at a time by each thread


class Tensor(Protocol):
    """A stored array in our orientation that is read where it is sliced."""

    shape: tuple[int, ...]

    def __getitem__(self, index: tuple[slice, ...], /) -> Any: ...


class Source(Protocol):
    """One checkpoint. ``layer`` is ``None`` for the leaves that are not stacked.

    Attributes:
      path: for messages.
      shapes: every stored tensor by name.
      ignored: regex of names that may be there and are not ours.
      heads: names under which a copy of the embedding may be stored as the output head.
    """

    path: str
    shapes: dict[str, tuple[int, ...]]
    ignored: str
    heads: tuple[str, ...]

    @property
    def stored(self) -> str:
        """How, for people: ``safetensors, bfloat16``."""
        ...

    def entry(self, leaf: str, layer: int | None) -> tuple[str, tuple[int, ...]]:
        """Name and shape with which it has to be stored."""
        ...

    def tensor(self, leaf: str, layer: int | None) -> Tensor: ...

    def table(self, name: str) -> Tensor:
        """The stored ``[V, D]`` matrix called ``name``."""
        ...


def row_chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    """The rows of a matrix, some at a time."""
    step = max(1, _CHUNK_ELEMENTS // int(np.prod(shape[1:], dtype=np.int64)))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))
