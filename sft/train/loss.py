"""Cross-entropy and token accuracy over the trained positions only, fused with the projection.

The logits of a position exist only if it is trained, only ``chunk`` positions at a time, and only
once: the forward pass already forms the gradient with respect to the hidden states (softmax minus
one-hot, times the table), so that the backward pass is a multiplication. Its cost grows with the
number of *trained* tokens, not with the length of the rows; no ``B x L x V`` array ever exists.

The idea of forming the gradient in the forward pass is that of Liger Kernel (arXiv:2410.10989).
"""

import functools

import jax
import jax.numpy as jnp

from sft.types import Array, Sums


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def cross_entropy(
    hidden_BxLxD: jax.Array,
    table_VxD: jax.Array,
    targets_BxL: Array,
    weights_BxL: Array,
    softcap: float | None,
    chunk: int,
    groups: int,
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
        with one part per data-parallel device nothing moves between devices.

    Returns:
      ``(loss, correct)``. Differentiable in ``hidden`` and ``table`` through ``loss.total``.
    """
    loss, correct, _, _ = _scan_chunks(
        hidden_BxLxD, table_VxD, targets_BxL, weights_BxL, softcap, chunk, groups, None
    )
    return loss, correct


def _forward(hidden, table, targets, weights, softcap, chunk, groups):
    # With symbolic zeros the arguments say whether anyone differentiates with respect to them:
    # the table's gradient is large, and under LoRA nobody does.
    loss, correct, d_hidden, d_table = _scan_chunks(
        hidden.value,
        table.value,
        targets.value,
        weights.value,
        softcap,
        chunk,
        groups,
        "table" if table.perturbed else "hidden",
    )
    return (loss, correct), (d_hidden, d_table)


def _backward(softcap, chunk, groups, gradients, cotangents):
    del softcap, chunk, groups
    factor = cotangents[0].total  # accuracy and weights are not differentiable
    if isinstance(factor, jax.custom_derivatives.SymbolicZero):
        return None, None, None, None
    d_hidden, d_table = (g if g is None else (factor * g).astype(g.dtype) for g in gradients)
    return d_hidden, d_table, None, None


cross_entropy.defvjp(_forward, _backward, symbolic_zeros=True)


def cap_slope(z: jax.Array, softcap: float | None) -> jax.Array | float:
    """Derivative of the tanh cap where its value is ``z``."""
    return 1.0 if softcap is None else 1 - jnp.square(z / softcap)


def _trained_first(targets_GxP, weights_GxP, C):
    """Order that puts trained positions first, both arrays in it, and the chunks they fill.

    All three are padded by C, so that a last slice need not be clamped.
    """
    order_GxP = jnp.argsort(weights_GxP == 0, axis=1, stable=True)
    chunks = jnp.max(jnp.sum(weights_GxP != 0, axis=1) + C - 1) // C
    order = jnp.pad(order_GxP, ((0, 0), (0, C)))
    weights = jnp.pad(jnp.take_along_axis(weights_GxP, order_GxP, axis=1), ((0, 0), (0, C)))
    return order, jnp.take_along_axis(targets_GxP, order, axis=1), weights, chunks


def _scan_chunks(hidden_BxLxD, table_VxD, targets_BxL, weights_BxL, softcap, chunk, groups, wants):
    """One pass over the trained positions. ``wants``: ``None``, ``"hidden"`` or ``"table"``."""
    G, (B, L, D) = groups, hidden_BxLxD.shape
    P = B * L // G
    C = min(chunk, P)
    hidden_GxPxD = hidden_BxLxD.reshape(G, P, D)
    order, targets, weights, chunks = _trained_first(
        targets_BxL.reshape(G, P), weights_BxL.reshape(G, P), C
    )

    def one_chunk(i, carry):
        loss, correct, d_hidden, d_table = carry
        cut = functools.partial(
            jax.lax.dynamic_slice_in_dim, start_index=i * C, slice_size=C, axis=1
        )
        weight_GxC, target_GxC = cut(weights), cut(targets)
        h_GxCxD = jnp.take_along_axis(hidden_GxPxD, cut(order)[..., None], axis=1)
        z = jnp.einsum("gcd,vd->gcv", h_GxCxD, table_VxD, preferred_element_type=jnp.float32)
        if softcap is not None:
            z = jnp.tanh(z / softcap) * softcap
        top_GxCx1 = jnp.max(z, axis=-1, keepdims=True)
        sum_GxCx1 = jnp.sum(jnp.exp(z - top_GxCx1), axis=-1, keepdims=True)
        hit_GxCx1 = jnp.take_along_axis(z, target_GxC[..., None], axis=-1)
        weight_GxCx1 = weight_GxC[..., None]
        loss += jnp.sum(weight_GxCx1 * (top_GxCx1 + jnp.log(sum_GxCx1) - hit_GxCx1))
        # The target is a greedy prediction when nothing scores higher (ties count as correct).
        correct += jnp.sum(weight_GxCx1 * (hit_GxCx1 >= top_GxCx1))
        if not wants:
            return loss, correct, d_hidden, d_table
        # d loss / d z = weight * (softmax - one_hot). The softmax is normalised, and the one-hot
        # subtracted, after the product with the table: on D columns and not on V.
        slope = cap_slope(z, softcap)
        e = (jnp.exp(z - top_GxCx1) * slope).astype(table_VxD.dtype)
        share_GxCx1 = weight_GxCx1 / sum_GxCx1
        hit_slope_GxCx1 = weight_GxCx1 * cap_slope(hit_GxCx1, softcap)
        d_h = jnp.einsum("gcv,vd->gcd", e, table_VxD, preferred_element_type=jnp.float32)
        d_h = share_GxCx1 * d_h - hit_slope_GxCx1 * table_VxD[target_GxC].astype(jnp.float32)
        d_hidden = jax.lax.dynamic_update_slice_in_dim(
            d_hidden, d_h.astype(d_hidden.dtype), i * C, axis=1
        )
        if wants == "table":
            scaled = (share_GxCx1 * h_GxCxD).astype(e.dtype)
            d_table += jnp.einsum("gcv,gcd->vd", e, scaled, preferred_element_type=jnp.float32)
            d_table = d_table.at[target_GxC].add(-hit_slope_GxCx1 * h_GxCxD)
        return loss, correct, d_hidden, d_table

    zero = jnp.float32(0)
    d_hidden = jnp.zeros((G, P + C, D), hidden_BxLxD.dtype) if wants else None
    d_table = jnp.zeros(table_VxD.shape, jnp.float32) if wants == "table" else None
    loss, correct, d_hidden, d_table = jax.lax.fori_loop(
        0, chunks, one_chunk, (zero, zero, d_hidden, d_table)
    )
    if wants:  # back from trained-first order to the order of the rows
        place_GxP = jnp.argsort(order[:, :P], axis=1)
        d_hidden = jnp.take_along_axis(d_hidden, place_GxP[..., None], axis=1)
        d_hidden = d_hidden.reshape(B, L, D)
    if wants == "table":
        d_table = d_table.astype(table_VxD.dtype)
    weight = jnp.sum(weights_BxL)
    return Sums(loss, weight), Sums(correct, weight), d_hidden, d_table
