"""Packing changes how many rows there are, and nothing that is computed.

The batches come from the training plan and go through the compiled steps, as in a run.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import (
    FLOAT32,
    assert_trees_close,
    forward,
    make_adapters,
    make_config,
    make_examples,
    make_params,
    scored,
)

from sft.data.batches import pipeline
from sft.mesh import sharding
from sft.model import specs
from sft.train.steps import make_steps

B, L = 16, 48
EXAMPLES = make_examples(B, seed=4, longest_turn=4)  # one to three exchanges; answers trained
FAMILIES = ("gemma2", "gemma3")


@functools.cache
def batch(packed):
    """All examples in one batch; packing leaves rows of it empty."""
    lengths = np.array([len(example.tokens) for example in EXAMPLES])
    plan = pipeline.plan_training(
        lengths, max_length=L, batch_size=B, epochs=1, seed=0, packed=packed
    )
    (found,) = pipeline.train_batches(plan, EXAMPLES)
    return found


@functools.cache
def build(family, rank):
    """Steps whose optimiser keeps the gradient as it is, and their state and weights."""
    config = make_config(lora__rank=rank, train__batch_size=B, loss__chunk=7)
    spec = specs.tiny(family)
    keep = optax.trace(decay=0.0)
    steps = make_steps(config, spec, keep, sharding.make_mesh(config, jax.devices()[:1]))
    state, frozen = steps.init(jax.random.key(0), make_params(spec))
    if rank:  # a fresh B is zero, and so is the gradient of A
        state = state.replace(trainable=make_adapters(spec, rank=rank))
    return steps, state, frozen


def train(family, rank, packed):
    steps, state, frozen = build(family, rank)
    state = jax.tree.map(jnp.copy, state)  # the step donates it
    after, metrics = steps.train(state, frozen, jax.tree.map(jnp.asarray, batch(packed)))
    return metrics, optax.tree.get(after.opt_state, "trace")


def test_the_packed_batch_is_packed():
    packed, plain = batch(True), batch(False)
    assert plain.segments_BxL.max() == 1 and np.all(plain.segments_BxL[:, 0] == 1)
    assert packed.segments_BxL.max() >= 3
    assert 2 * np.sum(packed.segments_BxL[:, 0] > 0) <= B
    for row in packed.segments_BxL:
        assert np.all(np.diff(row[row > 0]) >= 0)


@pytest.mark.parametrize(("family", "rank"), [("gemma2", 0), ("gemma3", 3)])
def test_loss_and_gradient_do_not_depend_on_packing(family, rank):
    ours, gradient = train(family, rank, packed=True)
    theirs, expected = train(family, rank, packed=False)
    trained = sum(int(example.is_target[1:].sum()) for example in EXAMPLES)
    assert ours["loss"].weight == theirs["loss"].weight == trained
    np.testing.assert_allclose(ours["loss"].mean(), theirs["loss"].mean(), rtol=1e-5)
    np.testing.assert_allclose(ours["grad_norm"], theirs["grad_norm"], rtol=1e-5)
    assert ours["correct"].total == theirs["correct"].total
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    assert_trees_close(gradient, expected, rtol=1e-4, atol=1e-6 * scale)


def test_evaluation_does_not_depend_on_packing():
    steps, state, frozen = build("gemma3", 3)
    ours, theirs = (
        scored(steps, state.trainable, frozen, jax.tree.map(jnp.asarray, batch(packed)))
        for packed in (True, False)
    )
    np.testing.assert_allclose(ours["loss"].mean(), theirs["loss"].mean(), rtol=1e-5)
    assert ours["correct"].total == theirs["correct"].total


@functools.cache
def crowded_row():
    """Tokens, positions and segments ``[1, L]`` of a packed row with three segments and padding."""
    packed = batch(True)
    padded = packed.segments_BxL[:, -1] == 0
    row = np.flatnonzero(padded & (packed.segments_BxL.max(axis=1) >= 3))[0]
    fields = (packed.tokens_BxL, packed.positions_BxL, packed.segments_BxL)
    return tuple(np.asarray(field)[row : row + 1] for field in fields)


def hidden(family, tokens, positions, segments):
    """``[L, D]``, of adapted weights."""
    spec = specs.tiny(family)
    found = forward(
        spec, make_params(spec), make_adapters(spec), tokens, positions, segments, FLOAT32
    )
    return np.asarray(found)[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("segment", [0, 1, 2, 3])
def test_segments_do_not_see_one_another(family, segment):
    """Every token of one segment (0: the padding) becomes another; the rest stays bit for bit."""
    tokens, positions, segments = crowded_row()
    chosen = segments == segment
    assert np.any(chosen)
    changed = np.where(chosen, (tokens + 97) % 256, tokens)
    before = hidden(family, tokens, positions, segments)
    after = hidden(family, changed, positions, segments)
    np.testing.assert_array_equal(before[~chosen[0]], after[~chosen[0]])
    assert np.all(np.any(before[chosen[0]] != after[chosen[0]], axis=-1))


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_segments_keep_them_apart(family):
    """The same row as one segment: what the test above sees then moves."""
    tokens, positions, segments = crowded_row()
    first = segments == 1
    changed = np.where(first, (tokens + 97) % 256, tokens)
    one = np.ones_like(segments)
    moved = hidden(family, tokens, positions, one) != hidden(family, changed, positions, one)
    assert np.any(moved[segments[0] == 2])
