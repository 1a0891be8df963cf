"""The cache: written in place, read as far as it is filled, the same hidden states as without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_generate import FAMILIES, forward, make_prompts, setting

from sft.model.decode import cache as cached
from sft.model.decode import slots
from sft.model.decode.sampling import Sampling


@pytest.mark.parametrize("family", FAMILIES)
def test_extending_a_cache_in_pieces_equals_one_forward(family):
    """Rows at different places of their texts, in a cache longer than the texts."""
    spec, options, params, adapters = setting(family)
    texts = make_prompts((24, 17), seed=5)
    tokens_BxL = np.zeros((2, 24), np.int32)
    for row, text in enumerate(texts):
        tokens_BxL[row, : len(text)] = text
    segments_BxL = (np.arange(24) < [[24], [17]]).astype(np.int32)
    whole_BxLxD = forward(
        spec, params, adapters, tokens_BxL, np.arange(24) * segments_BxL, segments_BxL, options
    )
    extend = jax.jit(cached.extend, static_argnums=(0, 6))
    cache, starts_B = cached.empty(spec, 2, 200, jnp.float32), np.zeros(2, np.int32)
    assert cache.k_SxBxKxMxH.shape[3] == 256
    for sizes in ((7, 7), (1, 1), (1, 1), (9, 8), (1, 0), (5, 0)):
        longest = max(sizes)
        piece_BxL = np.zeros((2, longest), np.int32)
        for row, size in enumerate(sizes):
            piece_BxL[row, :size] = texts[row][starts_B[row] : starts_B[row] + size]
        hidden_BxLxD, cache = extend(
            spec, params, adapters, cache, piece_BxL, jnp.array(starts_B), options
        )
        for row, size in enumerate(sizes):
            expected_LxD = whole_BxLxD[row, starts_B[row] : starts_B[row] + size]
            np.testing.assert_allclose(hidden_BxLxD[row, :size], expected_LxD, atol=2e-5)
        starts_B = starts_B + np.array(sizes, np.int32)
    assert starts_B.tolist() == [24, 17]


def test_a_step_copies_no_cache():
    """The two arrays of the cache are written where they are: nothing else of their size is made,
    and they come out where they went in."""
    spec, options, params, _ = setting("gemma3")
    sampling = Sampling(max_new_tokens=64, stop_ids=(-1,))
    recipe = slots.Recipe(spec, options, sampling, 0)
    state = jax.eval_shape(lambda: slots.start(recipe, 64, 1024))
    bools_B, number = jax.ShapeDtypeStruct((64,), bool), jax.ShapeDtypeStruct((), jnp.int32)
    compiled = slots.advance.lower(recipe, params, {}, state, bools_B, number, number).compile()
    memory = compiled.memory_analysis()
    cache_bytes = 2 * state.cache.k_SxBxKxMxH.size * 4
    assert memory.alias_size_in_bytes >= cache_bytes
    assert memory.temp_size_in_bytes < cache_bytes / 2
