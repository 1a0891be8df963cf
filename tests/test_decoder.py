"""The forward pass against its own definitions: who sees whom, and equal ways to one result."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import FLOAT32, forward, make_adapters, make_params

from sft.model import decoder, specs
from sft.model.attention import make_mask, reference

FAMILIES = ("gemma2", "gemma3")
L = 20  # more than two windows of the tiny models


def one_segment(shape):
    positions_BxL = jnp.broadcast_to(jnp.arange(shape[1], dtype=jnp.int32), shape)
    return positions_BxL, jnp.ones(shape, jnp.int32)


def random_tokens(shape, seed=0):
    return jax.random.randint(jax.random.key(seed), shape, 1, 256, jnp.int32)


def influence(spec, positions_L, segments_L):
    """``[L, L]``: norm of the gradient of output i (row) with respect to embedding j (column)."""
    params = make_params(spec)
    length = len(positions_L)
    x_BxLxD = jax.random.normal(jax.random.key(1), (1, length, spec.embed))
    direction_D = jax.random.normal(jax.random.key(2), (spec.embed,))

    @jax.jit
    def gradients(x_BxLxD):
        def outputs(x):
            return (
                forward(spec, params, None, x, positions_L[None], segments_L[None], FLOAT32)[0]
                @ direction_D
            )

        _, pull = jax.vjp(outputs, x_BxLxD)
        return jax.vmap(lambda cotangent_L: pull(cotangent_L)[0][0])(jnp.eye(length))

    return np.linalg.norm(gradients(x_BxLxD), axis=-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_position_sees_a_later_one(family):
    positions_BxL, segments_BxL = one_segment((1, L))
    reach_LxL = influence(specs.tiny(family), positions_BxL[0], segments_BxL[0])
    earlier = np.tri(L, dtype=bool)
    assert np.all(reach_LxL[~earlier] == 0)
    assert np.all(reach_LxL[earlier] > 0)  # through the global layers, everything before


def test_the_sliding_window_ends_exactly_at_its_size():
    spec = specs.tiny("gemma3", num_layers=1)  # the first layer is local
    positions_BxL, segments_BxL = one_segment((1, L))
    reach_LxL = influence(spec, positions_BxL[0], segments_BxL[0])
    ahead_LxL = np.arange(L)[:, None] - np.arange(L)
    np.testing.assert_array_equal(reach_LxL > 0, (ahead_LxL >= 0) & (ahead_LxL < 8))


def test_segments_and_padding_do_not_see_each_other():
    segments_L = jnp.array([1] * 5 + [2] * 9 + [3] * 2 + [0] * 4, jnp.int32)
    positions_L = jnp.array([*range(5), *range(9), *range(2), 0, 0, 0, 0], jnp.int32)
    reach_LxL = influence(specs.tiny("gemma3"), positions_L, segments_L)
    same_LxL = np.asarray(segments_L[:, None] == segments_L)
    real = np.asarray(segments_L) > 0
    assert np.all(reach_LxL[~same_LxL] == 0)
    np.testing.assert_array_equal(
        (reach_LxL > 0)[real][:, real], (same_LxL & np.tri(L, dtype=bool))[real][:, real]
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_equal_separate_rows(family):
    spec, lengths = specs.tiny(family), (13, 1, 6, 10)
    params, adapters = make_params(spec), make_adapters(spec)
    width = sum(lengths) + 2
    tokens_L = np.asarray(random_tokens((width,)))
    positions_L, segments_L = np.zeros((2, width), np.int32)
    alone_BxL = np.zeros((len(lengths), width), np.int32)
    starts = [0, *itertools.accumulate(lengths)]
    for row, length in enumerate(lengths):
        cut = slice(starts[row], starts[row] + length)
        positions_L[cut], segments_L[cut] = np.arange(length), row + 1
        alone_BxL[row, :length] = tokens_L[cut]
    packed_LxD = forward(
        spec, params, adapters, *(jnp.array(x)[None] for x in (tokens_L, positions_L, segments_L)),
        FLOAT32,
    )[0]  # fmt: skip
    real_BxL = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int32)
    for row, length in enumerate(lengths):
        # One at a time: arrays of the packed shape, so that products are summed in the same order.
        one = (alone_BxL[row], np.arange(width) * real_BxL[row], real_BxL[row])
        alone_LxD = forward(spec, params, adapters, *(jnp.array(x)[None] for x in one), FLOAT32)[0]
        np.testing.assert_allclose(
            packed_LxD[starts[row] : starts[row] + length], alone_LxD[:length], atol=2e-5
        )


def test_padding_is_finite_in_value_and_gradient():
    spec = specs.tiny("gemma2")
    tokens_BxL = random_tokens((2, L)).at[1].set(0)
    segments_BxL = jnp.ones((2, L), jnp.int32).at[0, 5:].set(0).at[1].set(0)
    positions_BxL = jnp.arange(L, dtype=jnp.int32) * segments_BxL

    def total(params):
        hidden = forward(spec, params, None, tokens_BxL, positions_BxL, segments_BxL, FLOAT32)
        return jnp.sum(hidden), hidden

    gradient, hidden = jax.grad(total, has_aux=True)(make_params(spec))
    assert np.all(np.isfinite(hidden))
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))


def test_remat_changes_memory_and_nothing_else():
    spec = specs.tiny("gemma3")
    trees = make_params(spec), make_adapters(spec)
    tokens_BxL = random_tokens((2, L))
    cotangent_BxLxD = jax.random.normal(jax.random.key(3), (2, L, spec.embed))
    results, texts, saved_bytes = {}, {}, {}
    for remat in decoder.REMAT:
        options = dataclasses.replace(FLOAT32, remat=remat, lora_scale=0.7, dropout=0.3)

        def hidden(trees, options=options):
            return decoder.forward(
                spec, *trees, tokens_BxL, *one_segment((2, L)), options, jax.random.key(4)
            )

        def value_and_pull(trees, hidden=hidden):
            value, pull = jax.vjp(hidden, trees)
            return value, pull(cotangent_BxLxD)[0]

        results[remat] = jax.jit(value_and_pull)(trees)
        texts[remat] = str(jax.make_jaxpr(value_and_pull)(trees))
        residuals = jax.eval_shape(lambda t, hidden=hidden: jax.vjp(hidden, t)[1], trees)
        saved_bytes[remat] = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(residuals))
    for remat in decoder.REMAT:
        for ours, expected in zip(
            jax.tree.leaves(results[remat]), jax.tree.leaves(results["none"]), strict=True
        ):
            assert np.linalg.norm(ours - expected) <= 2e-5 * np.linalg.norm(expected)
    assert saved_bytes["layer"] < saved_bytes["projections"] < saved_bytes["none"]
    assert saved_bytes["host"] == saved_bytes["layer"]  # the same, elsewhere
    assert "<host>" in texts["host"] and "<host>" not in texts["layer"]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_embeddings_may_be_given_instead_of_tokens(dtype):
    spec = specs.tiny("gemma3")
    params, options = make_params(spec), dataclasses.replace(FLOAT32, dtype=dtype)
    tokens_BxL = random_tokens((2, L))
    x_BxLxD = decoder.embed(spec, params, tokens_BxL, dtype)
    given, looked_up = (
        forward(spec, params, None, x, *one_segment((2, L)), options) for x in (x_BxLxD, tokens_BxL)
    )
    np.testing.assert_array_equal(given, looked_up)


def test_the_embedding_scale_is_rounded_to_the_activation_dtype():
    spec = specs.tiny("gemma3")
    params = {"embed_VxD": jnp.ones((spec.vocab, spec.embed))}
    tokens_BxL = jnp.zeros((1, 1), jnp.int32)
    assert decoder.embed(spec, params, tokens_BxL, jnp.bfloat16)[0, 0, 0] == 5.65625
    assert decoder.embed(spec, params, tokens_BxL, jnp.float32)[0, 0, 0] == np.float32(32**0.5)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_near_float32(family):
    spec = specs.tiny(family)
    params, adapters = make_params(spec), make_adapters(spec)
    tokens_BxL = random_tokens((2, L))
    half, full = (
        forward(
            spec, params, adapters, tokens_BxL, *one_segment((2, L)),
            dataclasses.replace(FLOAT32, dtype=dtype, lora_scale=0.1),
        )
        for dtype in (jnp.bfloat16, jnp.float32)
    )  # fmt: skip
    assert half.dtype == jnp.bfloat16
    error = np.linalg.norm(half.astype(jnp.float32) - full) / np.linalg.norm(full)
    assert 1e-4 < error < 0.04


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_attention_equals_a_loop_over_heads(softcap, kv_heads):
    B, M, N, H = 2, 9, 6, 4
    rng = np.random.default_rng(0)
    q = rng.normal(size=(B, 5, N, H)) * 2
    k, v = rng.normal(size=(2, B, M, kv_heads, H))
    mask = rng.random((B, 5, M)) < 0.5
    mask[..., 0] = True
    expected = np.zeros_like(q)
    for b, row, n in np.ndindex(B, 5, N):
        head = n // (N // kv_heads)
        z = k[b, :, head] @ q[b, row, n]
        if softcap:
            z = softcap * np.tanh(z / softcap)
        p = np.where(mask[b, row], np.exp(z), 0)
        expected[b, row, n] = p / p.sum() @ v[b, :, head]
    attend = reference(jnp.array(mask)[None], softcap)
    ours = attend(jnp.int32(0), *(jnp.array(x, jnp.float32) for x in (q, k, v)))
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_no_query_sees_nothing():
    segments_BxL = jnp.array([[1, 1, 2, 0, 0], [0, 0, 0, 0, 0]])
    positions_BxL = jnp.array([[0, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    for window in (None, 1):
        mask = make_mask(positions_BxL, segments_BxL, positions_BxL, segments_BxL, window)
        assert np.all(np.diagonal(mask, axis1=1, axis2=2))
