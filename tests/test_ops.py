"""Rotation and attention logits where bfloat16 would not do: far along a row, and large."""

import jax.numpy as jnp
import numpy as np
import pytest

from sft.model import ops, specs
from sft.model.attention import reference

PLACES = [0, 1, 255, 256, 257, 8190, 8191, 8192, 8193, 32767, 131071]
DTYPES = [jnp.float32, jnp.bfloat16]


@pytest.mark.parametrize("name", ["gemma2_2b", "gemma3_1b", "gemma3_4b"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rotation_is_float32_far_along_a_row(name, dtype):
    spec = specs.get(name)
    positions_BxL = jnp.array([PLACES], jnp.int32)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, len(PLACES), 1, spec.head_dim)), dtype)
    for kind, sin, cos in zip(
        spec.kinds, *ops.angles(spec.kinds, spec.head_dim, positions_BxL), strict=True
    ):
        pairs = np.arange(spec.head_dim // 2)
        rate = kind.rope_base ** (-2 * pairs / spec.head_dim) / kind.rope_scale
        turn = np.exp(1j * np.outer(PLACES, rate))
        first, second = np.split(np.asarray(x[0, :, 0], np.float64), 2, axis=-1)
        turned = (first + 1j * second) * turn
        expected = np.concatenate([turned.real, turned.imag], axis=-1)
        found = np.asarray(ops.rotate(x, sin, cos)[0, :, 0], np.float64)
        # Float32 knows a power of 1,000,000 to 2**-20 of itself; a bfloat16 place, to 2**-9.
        angle = np.outer(PLACES, rate) * 2.0**-20 + 1e-6
        size = np.tile(np.abs(turned), 2)
        rounding = 2.0**-8 * size if dtype == jnp.bfloat16 else 0.0
        assert (np.abs(found - expected) <= size * np.tile(angle, 2) + rounding).all()


def test_neighbours_far_along_a_row_are_told_apart():
    kinds = specs.get("gemma3_1b").kinds
    sin, cos = ops.angles(kinds, 256, jnp.arange(8185, 8200)[None])
    x = jnp.ones((1, 15, 1, 256), jnp.bfloat16)
    for own in zip(sin, cos, strict=True):
        turned = np.asarray(ops.rotate(x, *own)[0, :, 0], np.float32)
        assert len(np.unique(turned, axis=0)) == 15


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_logits_are_told_apart(dtype):
    q = jnp.array([16.0, 1.0], dtype).reshape(1, 1, 1, 2)
    k = jnp.array([[16.0, 0.0], [16.0, 1.0]], dtype).reshape(1, 2, 1, 2)  # logits of 256 and 257
    v = jnp.eye(2, dtype=dtype).reshape(1, 2, 1, 2)
    attend = reference(jnp.ones((1, 1, 1, 2), bool), softcap=None)
    found = np.asarray(attend(jnp.int32(0), q, k, v)[0, 0, 0], np.float32)
    np.testing.assert_allclose(found, [1 / (1 + np.e), np.e / (1 + np.e)], rtol=2.0**-8)
