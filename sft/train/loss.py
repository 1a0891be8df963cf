"""Cross-entropy and token accuracy over the trained positions only, fused with the projection.

Logits exist only for positions that are trained, for ``chunk`` positions and ``block`` vocabulary
entries at a time. The gradient of the loss with respect to a hidden state is a softmax-weighted
mean of rows of the table (minus the target's row), which is what attention computes when keys and
values are the table; so one sweep over the vocabulary with a running maximum, as in flash attention
(arXiv:2205.14135), gives loss and gradient together. The backward pass is a multiplication. (The
idea of a gradient formed in the forward pass is Liger Kernel's, arXiv:2410.10989.) The cost grows
with the number of *trained* tokens, not with the length of the rows.

Positions and vocabulary are cut as the devices of a mesh divide them: each part of the vocabulary
is swept by itself, and what the parts found is put together at the end, so that no logit ever moves
between devices. Where devices share the table, a block of it is gathered when its turn comes, once,
for all positions: the whole table is never on one device.

The gradient of the table itself, wanted only under full tuning, takes a second sweep, since it
needs the final normaliser.
"""

import functools

import jax
import jax.numpy as jnp

from sft.mesh import sharding
from sft.train import vocabulary
from sft.train.cut import BY_GROUP, Cut, Positions, restored, trained_first
from sft.types import Array, Sums


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def cross_entropy(
    hidden_BxLxD: jax.Array,
    table_VxD: jax.Array,
    targets_BxL: Array,
    weights_BxL: Array,
    softcap: float | None,
    cut: Cut,
) -> tuple[Sums, Sums]:
    """Weighted sums of negative log-likelihood (nats) and of correct greedy predictions.

    Args:
      hidden_BxLxD: final hidden states.
      table_VxD: output embedding, in the dtype of the hidden states.
      targets_BxL: int32 ids to predict.
      weights_BxL: float32; positions of weight 0 cost nothing.
      softcap: tanh cap on the logits, or ``None``.

    Returns:
      ``(loss, correct)``. Differentiable in ``hidden`` and ``table`` through ``loss.total``.
    """
    arrays = hidden_BxLxD, table_VxD, targets_BxL, weights_BxL
    return _sums_and_gradients(arrays, softcap, cut, None)[0]


def _forward(hidden, table, targets, weights, softcap, cut):
    # With symbolic zeros the arguments say whether anyone differentiates with respect to them:
    # the table's gradient is large, and under LoRA nobody does.
    arrays = hidden.value, table.value, targets.value, weights.value
    return _sums_and_gradients(arrays, softcap, cut, "table" if table.perturbed else "hidden")


def _backward(softcap, cut, gradients, cotangents):
    factor = cotangents[0].total  # accuracy and weights are not differentiable
    if isinstance(factor, jax.custom_derivatives.SymbolicZero):
        return None, None, None, None
    d_hidden, d_table = (g if g is None else (factor * g).astype(g.dtype) for g in gradients)
    return d_hidden, d_table, None, None


cross_entropy.defvjp(_forward, _backward, symbolic_zeros=True)


def by_position(
    hidden_BxLxD: jax.Array,
    table_VxD: jax.Array,
    targets_BxL: Array,
    weights_BxL: Array,
    softcap: float | None,
    cut: Cut,
) -> tuple[jax.Array, jax.Array]:
    """Weighted negative log-likelihood and weighted correctness of each position: ``[B, L]``."""
    positions = trained_first(hidden_BxLxD, targets_BxL, weights_BxL, cut)
    swept = vocabulary.sweep(
        positions, vocabulary.in_blocks(table_VxD, cut), softcap, cut, wants_mean=False
    )
    loss, correct = _losses(swept, positions)
    shape = hidden_BxLxD.shape[:2]
    return restored(loss, positions, shape, cut), restored(correct, positions, shape, cut)


def _sums_and_gradients(arrays, softcap: float | None, cut: Cut, wants: str | None):
    """``wants`` the gradient of: ``None``, ``"hidden"`` or ``"table"``, which has both."""
    hidden_BxLxD, table_VxD, targets_BxL, weights_BxL = arrays
    positions = trained_first(hidden_BxLxD, targets_BxL, weights_BxL, cut)
    blocks = vocabulary.in_blocks(table_VxD, cut)
    swept = vocabulary.sweep(positions, blocks, softcap, cut, bool(wants))
    loss, correct = (jnp.sum(x) for x in _losses(swept, positions))
    weight = jnp.sum(weights_BxL)
    d_hidden = d_table = None
    if swept.mean_QxGxCxD is not None:
        slope_QxGxCx1 = vocabulary.slope(swept.hit_QxGxC, softcap)[..., None]
        target_QxGxCxD = sharding.rows_of(table_VxD, positions.target_QxGxC, cut.mesh, BY_GROUP)
        target_QxGxCxD = target_QxGxCxD.astype(jnp.float32)
        d_h = positions.weight_QxGxC[..., None] * (
            swept.mean_QxGxCxD - slope_QxGxCx1 * target_QxGxCxD
        )
        d_h = d_h.astype(hidden_BxLxD.dtype)
        d_hidden = restored(d_h, positions, hidden_BxLxD.shape[:2], cut)
    if wants == "table":
        d_table = vocabulary.table_gradient(positions, blocks, swept.log_sum_QxGxC, softcap, cut)
        d_table = d_table.astype(table_VxD.dtype)
    return (Sums(loss, weight), Sums(correct, weight)), (d_hidden, d_table)


def _losses(swept: vocabulary.Swept, positions: Positions) -> tuple[jax.Array, jax.Array]:
    weight = positions.weight_QxGxC
    # The target is a greedy prediction when nothing scores higher (ties count as correct).
    return (
        weight * (swept.log_sum_QxGxC - swept.hit_QxGxC),
        weight * (swept.hit_QxGxC >= swept.top_QxGxC),
    )
