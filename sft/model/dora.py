"""DoRA (Liu et al. 2024, arXiv:2402.09353): a weight as its columns' lengths and directions.

``W' = m (W + scale A B) / ||W + scale A B||``, the norm over the inputs, one for each output, as
PEFT has it (``lora_magnitude_vector``). In the backward pass the norm is a constant (section 4.3).

The norm needs no array of the size of W:

    ||W + s A B||² = ||W||² + 2 s <W, A B> + s² ||A B||², the last two from Wᵀ A and Aᵀ A.

Wᵀ A costs what A B would, 2 in·out·R operations, but its result is ``[out, R]`` and not a float32
``[in, out]``, which for the 27B model is 0.46 GB a projection; and its operands stay bfloat16.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from sft.model.ops import product


def magnitude(weight: jax.Array, inputs: tuple[int, ...]) -> jax.Array:
    """``||W||`` over the axes ``inputs``, in float32: where ``m`` starts."""
    return jnp.sqrt(jnp.sum(jnp.square(weight.astype(jnp.float32)), axis=inputs))


def norm(weight: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    """``||W + scale A B||`` of one layer, a constant to differentiation.

    Args:
      weight: ``[*in, *out]``.
      a, b: ``[*in, R]`` and ``[R, *out]``, float32.

    Returns:
      float32 ``[*out]``, above 0 also where the column is 0.
    """
    rank, *outputs = b.shape
    a_IxR, b_RxO = a.reshape(-1, rank), b.reshape(rank, -1)
    w_IxO = weight.reshape(len(a_IxR), -1)

    def over_inputs(left, right):  # in the dtype that the forward pass multiplies A in
        left, right = left.astype(weight.dtype), right.astype(weight.dtype)
        return jnp.einsum("ir,io->ro", left, right, preferred_element_type=jnp.float32)

    update_RxO = 2 * over_inputs(a_IxR, w_IxO) + scale * over_inputs(a_IxR, a_IxR) @ b_RxO
    square_O = jnp.square(magnitude(w_IxO, (0,))) + scale * jnp.sum(b_RxO * update_RxO, axis=0)
    norm_O = jnp.sqrt(jnp.maximum(square_O, jnp.finfo(jnp.float32).tiny))
    return jax.lax.stop_gradient(norm_O.reshape(outputs))


def project(
    equation: str,
    x: jax.Array,
    dropped: jax.Array,
    weight: jax.Array,
    update: jax.Array,
    gain: jax.Array,
) -> jax.Array:
    """``x W + (gain - 1) dropped W + gain update`` in the dtype of ``x``, as PEFT computes it.

    Args:
      x: ``[B, L, *in]``.
      dropped: ``x`` after dropout, which here is on the base product too; ``x`` itself if none.
      update: ``scale * dropped A B``, ``[B, L, *out]``.
      gain: ``m / norm``, ``[*out]``.
    """
    y = product(equation, dropped, weight) + update
    # Saved before it is scaled: the gradient of m needs it.
    y = gain * checkpoint_name(y.astype(x.dtype), "projection")
    if dropped is not x:
        y += product(equation, x - dropped, weight)
    return y.astype(x.dtype)
