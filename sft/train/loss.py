"""Cross-entropy and token accuracy over the trained positions only, fused with the projection.

Logits exist only for positions that are trained, for ``chunk`` positions and ``block`` vocabulary
entries at a time. The gradient of the loss with respect to a hidden state is a softmax-weighted
mean of rows of the table (minus the target's row), which is what attention computes when keys and
values are the table; so one sweep over the vocabulary with a running maximum, as in flash attention
(arXiv:2205.14135), gives loss and gradient together. The backward pass is a multiplication. (The
idea of a gradient formed in the forward pass is Liger Kernel's, arXiv:2410.10989.) The cost grows
with the number of *trained* tokens, not with the length of the rows.

Rows are divided into ``groups`` and the vocabulary into ``parts``, as the devices of a mesh divide
them. Each part is swept by itself, and what the parts found is put together at the end, so that no
logit ever moves between devices.

The gradient of the table itself, wanted only under full tuning, takes a second sweep, since it
needs the final normaliser.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sft.types import Array, Sums

BLOCK = 4096  # with its logits, a block of the table stays in a CPU's cache


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7, 8))
def cross_entropy(
    hidden_BxLxD: jax.Array,
    table_VxD: jax.Array,
    targets_BxL: Array,
    weights_BxL: Array,
    softcap: float | None,
    chunk: int,
    groups: int = 1,
    parts: int = 1,
    block: int = BLOCK,
) -> tuple[Sums, Sums]:
    """Weighted sums of negative log-likelihood (nats) and of correct greedy predictions.

    Args:
      hidden_BxLxD: final hidden states.
      table_VxD: output embedding, in the dtype of the hidden states.
      targets_BxL: int32 ids to predict.
      weights_BxL: float32; positions of weight 0 cost nothing.
      softcap: tanh cap on the logits, or ``None``.
      chunk: positions per group whose logits exist at a time.
      groups: parts the rows are divided into; each part gathers its own trained positions, so
        with one part per data-parallel device no hidden state moves between devices.
      parts: of the vocabulary: tensor-parallel devices.
      block: vocabulary entries whose logits exist at a time, at most.

    Returns:
      ``(loss, correct)``. Differentiable in ``hidden`` and ``table`` through ``loss.total``.
    """
    loss, correct, _, _ = _over_chunks(
        (hidden_BxLxD, table_VxD, targets_BxL, weights_BxL),
        (softcap, chunk, groups, parts, block),
        None,
    )
    return loss, correct


def _forward(hidden, table, targets, weights, *settings):
    # With symbolic zeros the arguments say whether anyone differentiates with respect to them:
    # the table's gradient is large, and under LoRA nobody does.
    loss, correct, d_hidden, d_table = _over_chunks(
        (hidden.value, table.value, targets.value, weights.value),
        settings,
        "table" if table.perturbed else "hidden",
    )
    return (loss, correct), (d_hidden, d_table)


def _backward(*settings_residuals_cotangents):
    *_, gradients, cotangents = settings_residuals_cotangents
    factor = cotangents[0].total  # accuracy and weights are not differentiable
    if isinstance(factor, jax.custom_derivatives.SymbolicZero):
        return None, None, None, None
    d_hidden, d_table = (g if g is None else (factor * g).astype(g.dtype) for g in gradients)
    return d_hidden, d_table, None, None


cross_entropy.defvjp(_forward, _backward, symbolic_zeros=True)


def _over_chunks(arrays, settings, wants):
    """Loops over chunks of trained positions. ``wants``: ``None``, ``"hidden"`` or ``"table"``."""
    hidden_BxLxD, table_VxD, targets_BxL, weights_BxL = arrays
    softcap, chunk, G, parts, block = settings
    B, L, D = hidden_BxLxD.shape
    P = B * L // G
    C = min(chunk, P)
    hidden_GxPxD = hidden_BxLxD.reshape(G, P, D)
    order, targets, weights, chunks = _trained_first(
        targets_BxL.reshape(G, P), weights_BxL.reshape(G, P), C
    )
    blocks = _in_blocks(table_VxD, parts, block)

    def one_chunk(i, carry):
        loss, correct, d_hidden, d_table = carry
        cut = functools.partial(
            jax.lax.dynamic_slice_in_dim, start_index=i * C, slice_size=C, axis=1
        )
        target_GxC, weight_GxC = cut(targets), cut(weights)
        h_GxCxD = jnp.take_along_axis(hidden_GxPxD, cut(order)[..., None], axis=1)
        # What fills the last chunk is not trained: whatever it holds must not reach a sum.
        h_GxCxD = jnp.where(weight_GxC[..., None] == 0, 0, h_GxCxD)
        swept = _sweep(h_GxCxD, blocks, target_GxC, softcap, bool(wants))
        loss += jnp.sum(weight_GxC * (swept.log_sum_GxC - swept.hit_GxC))
        # The target is a greedy prediction when nothing scores higher (ties count as correct).
        correct += jnp.sum(weight_GxC * (swept.hit_GxC >= swept.top_GxC))
        if wants:
            slope_GxCx1 = _slope(swept.hit_GxC, softcap)[..., None]
            target_row_GxCxD = slope_GxCx1 * table_VxD[target_GxC].astype(jnp.float32)
            d_h = weight_GxC[..., None] * (swept.mean_GxCxD - target_row_GxCxD)
            d_hidden = jax.lax.dynamic_update_slice_in_dim(
                d_hidden, d_h.astype(d_hidden.dtype), i * C, axis=1
            )
        if wants == "table":
            wh_GxCxD = weight_GxC[..., None] * h_GxCxD
            d_table += _softmax_outer(h_GxCxD, wh_GxCxD, blocks, swept.log_sum_GxC, softcap)
            d_table = d_table.at[target_GxC].add(-slope_GxCx1 * wh_GxCxD)
        return loss, correct, d_hidden, d_table

    zero = jnp.float32(0)
    d_hidden = jnp.zeros((G, P + C, D), hidden_BxLxD.dtype) if wants else None
    d_table = jnp.zeros(table_VxD.shape, jnp.float32) if wants == "table" else None
    loss, correct, d_hidden, d_table = jax.lax.fori_loop(
        0, chunks, one_chunk, (zero, zero, d_hidden, d_table)
    )
    if wants:  # back from trained-first order to the order of the rows
        place_GxP = jnp.argsort(order[:, :P], axis=1)
        d_hidden = jnp.take_along_axis(d_hidden, place_GxP[..., None], axis=1).reshape(B, L, D)
    if wants == "table":
        d_table = d_table.astype(table_VxD.dtype)
    weight = jnp.sum(weights_BxL)
    return Sums(loss, weight), Sums(correct, weight), d_hidden, d_table


def _trained_first(targets_GxP, weights_GxP, C):
    """Order that puts trained positions first, both arrays in it, and the chunks they fill.

    All three are padded by C, so that a last slice need not be clamped.
    """
    order_GxP = jnp.argsort(weights_GxP == 0, axis=1, stable=True)
    chunks = jnp.max(jnp.sum(weights_GxP != 0, axis=1) + C - 1) // C
    order = jnp.pad(order_GxP, ((0, 0), (0, C)))
    weights = jnp.pad(jnp.take_along_axis(weights_GxP, order_GxP, axis=1), ((0, 0), (0, C)))
    return order, jnp.take_along_axis(targets_GxP, order, axis=1), weights, chunks


def _in_blocks(table_VxD: jax.Array, parts: int, limit: int) -> jax.Array:
    """The table as ``[parts, blocks, entries, D]``.

    A block holds at most ``limit`` entries, a multiple of 128 (a TPU's lanes) where one divides.
    """
    V, D = table_VxD.shape
    own = V // parts
    sizes = [n for n in range(1, min(limit, own) + 1) if own % n == 0]
    entries = max([n for n in sizes if n % 128 == 0] or sizes)
    return table_VxD.reshape(parts, own // entries, entries, D)


class _Swept(NamedTuple):
    """Per position: greatest logit, log-sum-exp, the target's logit, d log_sum / d hidden."""

    top_GxC: jax.Array
    log_sum_GxC: jax.Array
    hit_GxC: jax.Array
    mean_GxCxD: jax.Array | None


def _sweep(h_GxCxD, blocks, target_GxC, softcap, wants_mean) -> _Swept:
    """One pass over each part of the vocabulary with a running maximum, as flash attention goes
    over keys; then the parts (axis t) are put together."""
    parts, count, entries, _ = blocks.shape
    first_T = jnp.arange(parts) * (count * entries)
    own_TxGxC = target_GxC - first_T[:, None, None]

    def one_block(b, carry):
        top, total, hit, mean = carry
        rows_TxvxD = jax.lax.dynamic_index_in_dim(blocks, b, axis=1, keepdims=False)
        z = _logits(h_GxCxD, rows_TxvxD, softcap)
        new_top = jnp.maximum(top, jnp.max(z, axis=-1))
        e, rescale = jnp.exp(z - new_top[..., None]), jnp.exp(top - new_top)
        place = own_TxGxC - b * entries
        found = jnp.take_along_axis(z, jnp.clip(place, 0, entries - 1)[..., None], axis=-1)[..., 0]
        hit += jnp.where((place >= 0) & (place < entries), found, 0)
        if wants_mean:
            p = (e * _slope(z, softcap)).astype(rows_TxvxD.dtype)
            part = jnp.einsum("tgcv,tvd->tgcd", p, rows_TxvxD, preferred_element_type=jnp.float32)
            mean = rescale[..., None] * mean + part
        return new_top, rescale * total + jnp.sum(e, axis=-1), hit, mean

    zero = jnp.zeros(own_TxGxC.shape, jnp.float32)
    mean = jnp.zeros((parts, *h_GxCxD.shape), jnp.float32) if wants_mean else None
    lowest = jnp.full_like(zero, -1e30)  # finite: the difference of two of them is a number
    tops, totals, hits, means = jax.lax.fori_loop(0, count, one_block, (lowest, zero, zero, mean))
    top = jnp.max(tops, axis=0)
    share = jnp.exp(tops - top)
    total = jnp.sum(share * totals, axis=0)
    if means is not None:
        means = jnp.sum(share[..., None] * means, axis=0) / total[..., None]
    return _Swept(top, top + jnp.log(total), jnp.sum(hits, axis=0), means)


def _softmax_outer(h_GxCxD, wh_GxCxD, blocks, log_sum_GxC, softcap):
    """Sum over positions of softmax times weighted hidden state: float32 ``[V, D]``."""

    def one_block(_, rows_TxvxD):
        z = _logits(h_GxCxD, rows_TxvxD, softcap)
        p = jnp.exp(z - log_sum_GxC[..., None]) * _slope(z, softcap)
        p, wh = p.astype(blocks.dtype), wh_GxCxD.astype(blocks.dtype)
        return None, jnp.einsum("tgcv,gcd->tvd", p, wh, preferred_element_type=jnp.float32)

    _, found = jax.lax.scan(one_block, None, jnp.swapaxes(blocks, 0, 1))
    return jnp.swapaxes(found, 0, 1).reshape(-1, blocks.shape[-1])


def _logits(h_GxCxD, rows_TxvxD, softcap):
    """Float32 ``[T, G, C, entries]``."""
    z = jnp.einsum("gcd,tvd->tgcv", h_GxCxD, rows_TxvxD, preferred_element_type=jnp.float32)
    return z if softcap is None else jnp.tanh(z / softcap) * softcap


def _slope(z: jax.Array, softcap: float | None) -> jax.Array:
    """Derivative of the tanh cap where its value is ``z``."""
    return jnp.ones_like(z) if softcap is None else 1 - jnp.square(z / softcap)
