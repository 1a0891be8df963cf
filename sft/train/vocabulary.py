"""Sweeps over the output embedding, block by block: log-sum-exp, its gradient, the table's.

T parts of the vocabulary, v entries in a block; Q, G, C as in ``sft.train.cut``
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sft.mesh.sharding import SHARED
from sft.train.cut import Cut, Positions


def in_blocks(table_VxD: jax.Array, cut: Cut) -> jax.Array:
    """The table as ``[blocks, T, shares, v / shares, D]``, where it is: a block has as many rows of
    each device that shares the table.

    A block holds at most ``cut.block`` entries of a part; the rows of a device in it are a multiple
    of 128 (a TPU's lanes) where one divides.
    """
    V, D = table_VxD.shape
    own = V // cut.parts // cut.shares
    sizes = [n for n in range(1, min(cut.block // cut.shares, own) + 1) if own % n == 0]
    rows = max([n for n in sizes if n % 128 == 0] or sizes or [1])
    blocks = table_VxD.reshape(cut.parts, cut.shares, own // rows, rows, D)
    return jnp.moveaxis(cut.kept(blocks, "tensor", SHARED), 2, 0)


def _gathered(blocks: jax.Array, b: jax.Array, cut: Cut) -> jax.Array:
    """Block ``b``, whole: ``[T, v, D]``."""
    _, parts, shares, rows, D = blocks.shape
    block = cut.kept(jax.lax.dynamic_index_in_dim(blocks, b, keepdims=False), "tensor")
    return block.reshape(parts, shares * rows, D)


def _places(target: jax.Array, blocks: jax.Array) -> tuple[jax.Array, jax.Array]:
    """In which block each part of the vocabulary has the target, ``[T, …]``, or -1 where another
    part has it, and where in that block, ``[…]``."""
    count, parts, shares, rows, _ = blocks.shape
    target, row = jnp.divmod(target, rows)
    target, block = jnp.divmod(target, count)
    part, share = jnp.divmod(target, shares)
    has_it = part == jnp.arange(parts).reshape(-1, *(1 for _ in part.shape))
    return jnp.where(has_it, block, -1), share * rows + row


class Swept(NamedTuple):
    """Per position: greatest logit, log-sum-exp, the target's logit, d log_sum / d hidden."""

    top_QxGxC: jax.Array
    log_sum_QxGxC: jax.Array
    hit_QxGxC: jax.Array
    mean_QxGxCxD: jax.Array | None


def sweep(positions: Positions, blocks, softcap, cut: Cut, wants_mean: bool) -> Swept:
    """One pass over each part of the vocabulary with a running maximum, as flash attention goes
    over keys; then the parts are put together."""
    count, parts, *_, D = blocks.shape

    def one_block(b, found):
        rows_TxvxD = _gathered(blocks, b, cut)

        def one_chunk(i, found):
            block_TxGxC, place_GxC = _places(positions.target_QxGxC[i], blocks)
            z = _logits(positions.hidden_QxGxCxD[i], rows_TxvxD, softcap)
            top, total, hit, *mean = (x[i] for x in found)
            new_top = jnp.maximum(top, jnp.max(z, axis=-1))
            e, rescale = jnp.exp(z - new_top[..., None]), jnp.exp(top - new_top)
            there_TxGxC = jnp.take_along_axis(z, place_GxC[None, ..., None], axis=-1)[..., 0]
            hit += jnp.where(block_TxGxC == b, there_TxGxC, 0)
            new = [new_top, rescale * total + jnp.sum(e, axis=-1), hit]
            if wants_mean:
                p = (e * slope(z, softcap)).astype(rows_TxvxD.dtype)
                more = jnp.einsum(
                    "tgcv,tvd->tgcd", p, rows_TxvxD, preferred_element_type=jnp.float32
                )
                new.append(rescale[..., None] * mean[0] + more)
            return [
                jax.lax.dynamic_update_index_in_dim(x, y, i, 0)
                for x, y in zip(found, new, strict=True)
            ]

        return jax.lax.fori_loop(0, positions.chunks, one_chunk, found)

    Q, G, C = positions.target_QxGxC.shape
    zero = jnp.zeros((Q, parts, G, C), jnp.float32)
    lowest = jnp.full_like(zero, -1e30)  # finite: the difference of two of them is a number
    means = [jnp.zeros((*zero.shape, D), jnp.float32)] if wants_mean else []
    return _together(*jax.lax.fori_loop(0, count, one_block, [lowest, zero, zero, *means]))


def _together(top_QxTxGxC, total_QxTxGxC, hit_QxTxGxC, mean_QxTxGxCxD=None) -> Swept:
    """Of all parts of the vocabulary."""
    top = jnp.max(top_QxTxGxC, axis=1)
    share = jnp.exp(top_QxTxGxC - top[:, None])
    total = jnp.sum(share * total_QxTxGxC, axis=1)
    total = jnp.where(total == 0, 1, total)  # of chunks without a trained position
    mean = mean_QxTxGxCxD
    if mean is not None:
        mean = jnp.sum(share[..., None] * mean, axis=1) / total[..., None]
    return Swept(top, top + jnp.log(total), jnp.sum(hit_QxTxGxC, axis=1), mean)


def table_gradient(positions: Positions, blocks, log_sum_QxGxC, softcap, cut: Cut) -> jax.Array:
    """Sum over positions of (softmax - target) times weighted hidden state: float32 ``[V, D]``,
    shared by devices as the table is."""
    count, parts, shares, rows, D = blocks.shape

    def one_block(_, b):
        rows_TxvxD = _gathered(blocks, b, cut)

        def one_chunk(i, total_TxvxD):
            h_GxCxD = positions.hidden_QxGxCxD[i]
            wh_GxCxD = (positions.weight_QxGxC[i][..., None] * h_GxCxD).astype(blocks.dtype)
            z = _logits(h_GxCxD, rows_TxvxD, softcap)
            block_TxGxC, place_GxC = _places(positions.target_QxGxC[i], blocks)
            is_target = (block_TxGxC == b)[..., None] & (
                place_GxC[..., None] == jnp.arange(shares * rows)
            )
            p = (jnp.exp(z - log_sum_QxGxC[i][..., None]) - is_target) * slope(z, softcap)
            return total_TxvxD + jnp.einsum(
                "tgcv,gcd->tvd",
                p.astype(blocks.dtype),
                wh_GxCxD,
                preferred_element_type=jnp.float32,
            )

        nothing = jnp.zeros((parts, shares * rows, D), jnp.float32)
        total_TxvxD = jax.lax.fori_loop(0, positions.chunks, one_chunk, nothing)
        return None, cut.kept(total_TxvxD.reshape(parts, shares, rows, D), "tensor", SHARED)

    found = jax.lax.scan(one_block, None, jnp.arange(count))[1]
    return jnp.moveaxis(found, 0, 2).reshape(-1, D)


def _logits(h_GxCxD, rows_TxvxD, softcap):
    """Float32 ``[T, G, C, v]``."""
    z = jnp.einsum("gcd,tvd->tgcv", h_GxCxD, rows_TxvxD, preferred_element_type=jnp.float32)
    return z if softcap is None else jnp.tanh(z / softcap) * softcap


def slope(z: jax.Array, softcap: float | None) -> jax.Array:
    """Derivative of the tanh cap where its value is ``z``."""
    return jnp.ones_like(z) if softcap is None else 1 - jnp.square(z / softcap)
