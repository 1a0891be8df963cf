"""Builders shared by the tests of the numerical core: weights, examples, batches, jaxpr walks."""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sft.config import default
from sft.data.batches.pipeline import make_batch
from sft.data.chat.encoding import ANSWER, PROMPT, Example
from sft.model import decoder, lora
from sft.types import Batch

FLOAT32 = decoder.Options(dtype=jnp.float32)

forward = jax.jit(decoder.forward, static_argnums=(0, 6))


def make_config(**changes) -> ConfigDict:
    """Defaults in float32 with every changed key written ``group__key``."""
    config = default()
    changes = {"model__dtype": "float32", "lora__rank": 2, "lora__alpha": 4.0} | changes
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def drawn(draw, name, shape):
    """``draw(shape)``; q, k and v are drawn inputs first, as for the golden files."""
    if name[0] not in "qkv" or "norm" in name:
        return draw(shape)
    return np.moveaxis(draw((shape[0], shape[-1], *shape[1:-1])), 1, -1)


def make_params(spec, seed=0, dtype=jnp.float32):
    """Random weights of about unit gain. Drawn by NumPy: nothing to compile."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        fan_in = spec.heads * spec.head_dim if name == "o_SxNxHxD" else leaf.shape[-1]
        fan_in = leaf.shape[1] if name[0] in "gud" else fan_in
        deviation = 0.1 if "norm" in name else fan_in**-0.5
        return jnp.asarray(drawn(lambda s: rng.normal(0, deviation, s), name, leaf.shape), dtype)

    return jax.tree_util.tree_map_with_path(draw, decoder.abstract_params(spec, dtype))


def make_adapters(spec, names=lora.NAMES, rank=3, seed=1):
    """Adapters whose update is not zero."""
    rng = np.random.default_rng(seed)
    adapters = {}
    for name in names:
        inputs, outputs = lora.shapes(spec)[name]
        shapes = {"A": (spec.num_layers, *inputs, rank), "B": (spec.num_layers, rank, *outputs)}
        bound = math.prod(inputs) ** -0.5
        adapters[name] = {
            leaf: jnp.asarray(rng.normal(0, bound if leaf == "A" else 1, shape), jnp.float32)
            for leaf, shape in shapes.items()
        }
    return adapters


def make_examples(count, seed=0, vocab=256, longest_turn=5) -> list[Example]:
    """Conversations of one to three exchanges, at most ``6 * longest_turn`` tokens; the answers
    are trained."""
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        turns = 2 * rng.integers(1, 4)
        lengths = rng.integers(1, longest_turn + 1, turns)
        kinds = np.repeat(np.where(np.arange(turns) % 2, ANSWER, PROMPT), lengths)
        tokens = rng.integers(1, vocab, len(kinds)).astype(np.int32)
        examples.append(Example(tokens, kinds.astype(np.uint8)))
    return examples


def device_batch(rows, length) -> Batch:
    return jax.tree.map(jnp.asarray, make_batch(rows, length))


def avals(jaxpr) -> Iterator[jax.core.ShapedArray]:
    """Every array that a jaxpr or anything nested in it produces; its inputs are left out."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield from (v.aval for v in equation.outvars)
        for parameter in jax.tree.leaves(
            equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            if hasattr(parameter, "eqns") or hasattr(parameter, "jaxpr"):
                yield from avals(parameter)


def assert_trees_close(ours, theirs, rtol=1e-5, atol=1e-6):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, a), b in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(
            np.asarray(a, np.float64),
            np.asarray(b, np.float64),
            rtol=rtol,
            atol=atol,
            err_msg=jax.tree_util.keystr(path),
        )


def scored(steps, trainable, frozen, batch):
    """``loss`` and ``correct`` of all rows of a batch together."""
    return jax.tree.map(jnp.sum, steps.score(trainable, frozen, batch))
