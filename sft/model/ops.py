"""The pieces of a block: matrix products, norm, rotation, gate. Float32 inside, rounded once."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from sft.model.specs import LayerKind
from sft.types import Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """An einsum of two operands with a float32 result, also where both are bfloat16.

    Its backward products again take both operands in the dtype of ``a``: plain differentiation
    would multiply float32 cotangents by bfloat16 operands, which runs as a float32 product at a
    fraction of the speed. (Flash attention rounds in the same place.)
    """
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def _product_forward(equation, a, b):
    return product(equation, a, b), (a, b)


def _product_backward(equation, operands, cotangent):
    a, b = operands
    inputs, out = equation.split("->")
    left, right = inputs.split(",")
    ct = cotangent.astype(a.dtype)
    d_a = jnp.einsum(f"{out},{right}->{left}", ct, b, preferred_element_type=jnp.float32)
    # The first operand of this product is transposed in memory: let that be the smaller one.
    factors = sorted([(left, a), (out, ct)], key=lambda factor: factor[1].size)
    (first, x), (second, y) = factors
    d_b = jnp.einsum(f"{first},{second}->{right}", x, y, preferred_element_type=jnp.float32)
    return d_a.astype(a.dtype), d_b.astype(b.dtype)


product.defvjp(_product_forward, _product_backward)


def rms_norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    """``x / rms(x) * (1 + scale)`` over the last axis, in float32, returned in the dtype of x."""
    x32 = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + 1e-6)
    return (x32 * inverse * (1 + scale.astype(jnp.float32))).astype(x.dtype)


def angles(
    kinds: Sequence[LayerKind], head_dim: int, positions_BxL: Array
) -> tuple[jax.Array, jax.Array]:
    """Sine and cosine of RoPE, stacked by kind of layer: ``[kinds, B, L, H / 2]``."""
    sines, cosines = [], []
    half = jnp.arange(head_dim // 2, dtype=jnp.float32)
    for kind in kinds:
        timescale_H = kind.rope_base ** (2 * half / head_dim)
        angle_BxLxH = positions_BxL[..., None].astype(jnp.float32) / timescale_H / kind.rope_scale
        sines.append(jnp.sin(angle_BxLxH))
        cosines.append(jnp.cos(angle_BxLxH))
    return jnp.stack(sines), jnp.stack(cosines)


def rotate(
    x_BxLxNxH: jax.Array, sin_BxLxH: jax.Array, cos_BxLxH: jax.Array, scale: float = 1.0
) -> jax.Array:
    """``scale`` times RoPE on split halves (Su et al. 2021, arXiv:2104.09864), in float32.

    ``sin_BxLxH`` and ``cos_BxLxH`` hold half a head width: one angle per pair.
    """
    first, second = jnp.split(x_BxLxNxH.astype(jnp.float32), 2, axis=-1)
    sin, cos = scale * sin_BxLxH[:, :, None], scale * cos_BxLxH[:, :, None]
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BxLxNxH.dtype)


def geglu(gate: jax.Array, up: jax.Array) -> jax.Array:
    """``gelu(gate) * up`` with the tanh form of GELU; float32 inside, rounded once."""
    y = jax.nn.gelu(gate.astype(jnp.float32), approximate=True) * up.astype(jnp.float32)
    return y.astype(gate.dtype)
