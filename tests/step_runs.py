"""Steps of a tiny model, built and run in every way that ``test_steps*.py`` compares."""

import functools
import math

import jax
import jax.numpy as jnp
from tiny import assert_trees_close, device_batch, make_config, make_examples, make_params

from sft.mesh import sharding
from sft.model import specs
from sft.train import optim
from sft.train.steps import make_steps

B, L = 8, 48
EXAMPLES = make_examples(3 * B, longest_turn=4)  # at most 23 positions: two fit in a row
UNPACKED = [device_batch([[e] for e in EXAMPLES[i : i + B]], L) for i in (0, B, 2 * B)]


@functools.cache
def build(mesh=(1, 1, 1, 1), family="gemma3", dtype="float32", **changes):
    """Steps, and their weights where they want them."""
    data, fsdp, sequence, tensor = mesh
    config = make_config(
        **{
            "model__dtype": dtype,
            "mesh__data": data,
            "mesh__fsdp": fsdp,
            "mesh__sequence": sequence,
            "mesh__tensor": tensor,
            "train__batch_size": B,
            "loss__chunk": 7,
            "optim__learning_rate": 1e-2,
            "optim__schedule": "constant",
            "optim__warmup": 0.0,
            "optim__eps": 1e-3,  # smooth: rounding cannot turn a step around
        }
        | changes
    )
    spec = specs.tiny(family)
    devices = sharding.make_mesh(config, jax.devices()[: math.prod(mesh)])
    steps = make_steps(config, spec, optim.make(config.optim, 10), devices)
    return steps, jax.device_put(make_params(spec, dtype=dtype), steps.params_sharding)


def run(batches=tuple(UNPACKED), adapters=None, seed=0, **changes):
    """State, metrics of each step, and the frozen weights, after training on ``batches``."""
    steps, params = build(**changes)
    state, frozen = steps.init(jax.random.key(seed), params)
    if adapters is not None:
        adapters = jax.tree.map(jnp.copy, adapters)  # the step donates its state
        state = state.replace(trainable=jax.device_put(adapters, steps.state_sharding.trainable))
    history = []
    for batch in batches:
        batch = jax.device_put(batch, steps.batch_sharding)
        state, metrics = steps.train(state, frozen, batch)
        history.append(metrics)
    return state, history, frozen


@functools.cache
def baseline():
    return run()


@functools.cache  # the weights of a build are donated, and so good for one run
def fully_tuned(mesh):
    return run(lora__rank=0, family="gemma2", mesh=mesh)


def assert_same_run(ours, theirs):
    for a, b in zip(ours[1], theirs[1], strict=True):
        assert_trees_close(a, b, rtol=1e-5)
    assert_trees_close(ours[0].trainable, theirs[0].trainable, rtol=1e-5, atol=5e-6)
    assert_trees_close(ours[0].opt_state, theirs[0].opt_state, rtol=1e-4, atol=5e-6)
