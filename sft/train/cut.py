"""How positions and vocabulary are divided: among devices, and in time.

G groups of positions, Q chunks of a group, C positions in a chunk
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sft.mesh import sharding
from sft.mesh.sharding import ROWS, P
from sft.types import Array

BY_GROUP = P(None, (*ROWS, "sequence"))  # of anything that is [Q, G, …]
BLOCK = 4096  # vocabulary entries: with its logits, a block of the table stays in a CPU's cache


@dataclasses.dataclass(frozen=True)
class Cut:
    """How positions and vocabulary are divided. It changes no number, only memory and speed.

    Attributes:
      chunk: positions of a group whose logits exist at a time.
      block: vocabulary entries of a part whose logits exist at a time, at most.
      groups: of rows; each gathers its own trained positions.
      spans: of each row, which make as many groups of a group.
      parts: of the vocabulary, each swept by itself.
      shares: of each part, put together for each block.
      mesh: where groups, spans and parts live; ``None`` = on one device.
    """

    chunk: int
    block: int = BLOCK
    groups: int = 1
    spans: int = 1
    parts: int = 1
    shares: int = 1
    mesh: Mesh | None = None

    @classmethod
    def of(cls, mesh: Mesh, chunk: int) -> "Cut":
        """One group and one part for each device."""
        shape = mesh.shape
        return cls(
            chunk,
            groups=sharding.groups(mesh),
            spans=shape["sequence"],
            parts=shape["tensor"],
            shares=sharding.shares(mesh),
            mesh=mesh,
        )

    def kept(self, x: jax.Array, *spec) -> jax.Array:
        """``x``, divided among devices as ``spec`` says."""
        return x if self.mesh is None else sharding.constrained(x, self.mesh, P(*spec))


class Positions(NamedTuple):
    """Trained positions first, filled up to whole chunks; ``chunks`` of them have a trained one."""

    order_GxP: jax.Array
    hidden_QxGxCxD: jax.Array
    target_QxGxC: jax.Array
    weight_QxGxC: jax.Array
    chunks: jax.Array


def trained_first(
    hidden_BxLxD: Array, targets_BxL: Array, weights_BxL: Array, cut: Cut
) -> Positions:
    """Gathers the positions with loss of each group."""
    hidden_GxPxD, targets_GxP, weights_GxP = (
        _grouped(x, cut) for x in (hidden_BxLxD, targets_BxL, weights_BxL)
    )
    G, size, _ = hidden_GxPxD.shape
    C = min(cut.chunk, size)
    order_GxP = jnp.argsort(weights_GxP == 0, axis=1, stable=True)
    filled_GxP = jnp.pad(order_GxP, ((0, 0), (0, -size % C)))

    def in_chunks(x_GxP):
        return jnp.moveaxis(x_GxP.reshape(G, -1, C, *x_GxP.shape[2:]), 1, 0)

    # What fills the last chunk is not trained: whatever it holds must not reach a sum.
    weights_GxP = jnp.take_along_axis(weights_GxP, order_GxP, axis=1)
    weight_QxGxC = in_chunks(jnp.pad(weights_GxP, ((0, 0), (0, -size % C))))
    hidden = in_chunks(jnp.take_along_axis(hidden_GxPxD, filled_GxP[..., None], axis=1))
    return Positions(
        order_GxP,
        jnp.where(weight_QxGxC[..., None] == 0, 0, hidden),
        in_chunks(jnp.take_along_axis(targets_GxP, filled_GxP, axis=1)),
        weight_QxGxC,
        jnp.max(jnp.sum(weights_GxP != 0, axis=1) + C - 1) // C,
    )


def _grouped(x_BxL, cut: Cut):
    """``[B, L, …]`` as ``[G, P, …]``: a group is a span of the positions of a group of rows."""
    B, L, *rest = x_BxL.shape
    g, s = cut.groups, cut.spans
    x = jnp.moveaxis(x_BxL.reshape(g, B // g, s, L // s, *rest), 2, 1)
    return cut.kept(x.reshape(g * s, -1, *rest), *BY_GROUP[1:])


def restored(x_QxGxC: jax.Array, positions: Positions, shape: tuple[int, ...], cut: Cut):
    """``[Q, G, C, …]`` back in the order of the rows: ``[B, L, …]`` for a ``shape`` of B and L."""
    (B, L), (g, s) = shape, (cut.groups, cut.spans)
    rest = x_QxGxC.shape[3:]
    x_GxP = jnp.moveaxis(x_QxGxC, 0, 1).reshape(g * s, -1, *rest)
    place_GxP = jnp.argsort(positions.order_GxP, axis=1)
    place_GxP = place_GxP.reshape(*place_GxP.shape, *(1 for _ in rest))
    x_GxP = jnp.take_along_axis(x_GxP, place_GxP, axis=1)
    x = jnp.moveaxis(x_GxP.reshape(g, s, B // g, L // s, *rest), 1, 2)
    return cut.kept(x.reshape(B, L, *rest), *sharding.PLACES)
