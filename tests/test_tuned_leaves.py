"""Exactly what is chosen is tuned, and full tuning starts from the weights as they are stored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from tiny import device_batch, make_config, make_examples, make_params
from weight_layouts import make_tree

from sft import session
from sft.config.check import validate
from sft.errors import UserError
from sft.mesh import sharding
from sft.model import lora, specs
from sft.train import optim
from sft.train.steps import make_steps

registered = tiny_run.registered
# Inputs + outputs of each projection of the tiny model: 32 wide, 4 query and 2 key/value heads of
# 16, 48 hidden. And its outputs alone.
SIDES = {"q": 96, "k": 64, "v": 64, "o": 96, "gate": 80, "up": 80, "down": 80}
OUTPUTS = {"q": 64, "k": 32, "v": 32, "o": 32, "gate": 48, "up": 48, "down": 32}
LAYERS, RANK = 4, 2


def start(spec, **changes):
    config = make_config(train__batch_size=1, **changes)
    mesh = sharding.make_mesh(config, jax.devices()[:1])
    steps = make_steps(config, spec, optim.make(config.optim, 1, config.lora.plus), mesh)
    return config, steps


@pytest.mark.parametrize("is_dora", [False, True])
@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("q|k|v|o", ("q", "k", "v", "o")),
        ("gate|up|down", ("gate", "up", "down")),
        (".*", tuple(SIDES)),
    ],
)
def test_targets_adapt_exactly_their_leaves(targets, names, is_dora):
    spec = specs.tiny("gemma3")
    _, steps = start(spec, lora__targets=targets, lora__dora=is_dora)
    params = make_params(spec)
    state, _ = steps.init(jax.random.key(0), params)
    count = sum(x.size for x in jax.tree.leaves(state.trainable))
    expected = sum(RANK * SIDES[n] + (OUTPUTS[n] if is_dora else 0) for n in names)
    assert set(state.trainable) == set(names)
    assert count == LAYERS * expected
    filled = jax.tree.map(lambda x: x + 0.5, state.trainable)
    merged = lora.merge(params, filled, 1.0)
    changed = {n for n, w in params["layers"].items() if np.any(w != merged["layers"][n])}
    assert changed == {lora.WEIGHTS[n] for n in names}


def test_masters_are_the_stored_float32_weights_not_rounded_ones(tmp_path):
    project = tiny_run.build(tmp_path)
    config = project.values(lora__rank=0, model__dtype="bfloat16", train__batch_size=8)
    mesh = sharding.make_mesh(config)
    steps = make_steps(config, tiny_run.SPEC, optim.make(config.optim, 1), mesh)
    params = session.params(config, tiny_run.SPEC, steps.params_sharding)
    state, frozen = steps.init(jax.random.key(0), params)
    stored = jax.tree.map(lambda x: np.asarray(x * 0.1), make_tree(tiny_run.SPEC))
    assert frozen == {} and steps.options.dtype == jnp.bfloat16
    assert all(x.is_deleted() for x in jax.tree.leaves(params))  # not held twice
    assert jax.tree.all(jax.tree.map(np.array_equal, state.trainable, stored))
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(np.float32), stored)
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, rounded, stored)))
    config.lora.rank = 4
    frozen = session.params(config, tiny_run.SPEC, steps.params_sharding)
    assert {x.dtype for x in jax.tree.leaves(frozen)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(("key", "value"), [("dora", True), ("plus", 16.0)])
def test_variants_of_adapters_need_adapters(key, value):
    with pytest.raises(UserError, match=rf"config\.lora\.{key} = .*config\.lora\.rank = 0"):
        validate(make_config(**{"lora__rank": 0, f"lora__{key}": value}))
    validate(make_config(**{f"lora__{key}": value}))


def test_lora_plus_reaches_the_step():
    """Adam's first update has the size of the learning rate; with A's, B could not move so far."""
    spec = specs.tiny("gemma3", num_layers=1)
    changes = {"optim__warmup": 0.0, "optim__eps": 1e-30, "optim__learning_rate": 1e-3}
    config, steps = start(spec, lora__plus=4.0, lora__targets="v", **changes)
    state, frozen = steps.init(jax.random.key(0), make_params(spec))
    state, _ = steps.train(state, frozen, device_batch([make_examples(1)], 48))
    moved = np.abs(state.trainable["v"]["B"])
    np.testing.assert_allclose(moved, 4 * config.optim.learning_rate, rtol=1e-4)
