"""The values that flow between stages, and the dimension glossary.

Arrays carry their dimensions in their names:

    B batch rows        L positions         D embed width      F feed-forward width
    N query heads       K key/value heads   H head width       V vocabulary
    R LoRA rank         S stacked layers    T target positions G data-parallel groups
    M cache positions (keys and values kept while decoding)
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

Tree = Any  # a pytree of arrays
Array = jax.Array | np.ndarray


@struct.dataclass
class Batch:
    """Rows of one or more packed examples. Every field is a ``[B, L]`` array.

    Attributes:
      tokens_BxL: int32 input ids.
      targets_BxL: int32 ids to predict at each position (the next token of the same example).
      weights_BxL: float32, 1 where the target is trained and 0 elsewhere.
      positions_BxL: int32, restarting at 0 in each packed segment.
      segments_BxL: int32, 1, 2, … for packed examples and 0 for padding.
    """

    tokens_BxL: Array
    targets_BxL: Array
    weights_BxL: Array
    positions_BxL: Array
    segments_BxL: Array


@struct.dataclass
class Sums:
    """A weighted total that can be added over microbatches, devices, hosts and batches.

    Divide once, at the end, with ``mean``: then batch size, packing and device count cannot
    change the number.
    """

    total: jax.Array
    weight: jax.Array

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.total + other.total, self.weight + other.weight)

    def mean(self) -> jax.Array:
        """``total / weight``; 0 where the weight is 0."""
        return self.total / jnp.maximum(self.weight, 1e-9)


@struct.dataclass
class TrainState:
    """Everything a step changes, and nothing else: this is what a checkpoint holds.

    Attributes:
      step: int32 scalar, optimiser updates done.
      trainable: float32 tree; the adapters under LoRA, the weights under full tuning.
      opt_state: the optax state over ``trainable``.
      rng: key data (uint32) from which each step folds its own dropout key.
    """

    step: jax.Array
    trainable: Tree
    opt_state: Tree
    rng: jax.Array
