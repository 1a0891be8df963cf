"""LoRA adapters (Hu et al. 2021, arXiv:2106.09685) as a tree of their own.

One pair (A, B) per projection, named and initialised as PEFT does, so that adapters can go both
ways and published learning rates transfer: ``y = x W + scale * (x A) B`` with A Kaiming-uniform
(a = sqrt(5), that is U(-1/sqrt(in), 1/sqrt(in))) and B zero.
"""

import math

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sft.model import dora
from sft.model.ops import product
from sft.model.specs import Spec
from sft.model.targets import match as match
from sft.types import Tree

# Projections in the order of the forward pass; those of one group share their input.
GROUPS = (("q", "k", "v"), ("o",), ("gate", "up"), ("down",))
NAMES = tuple(name for group in GROUPS for name in group)

# The leaf of params["layers"] that each projection adapts.
WEIGHTS = {
    "q": "q_SxNxHxD",
    "k": "k_SxKxHxD",
    "v": "v_SxKxHxD",
    "o": "o_SxNxHxD",
    "gate": "gate_SxDxF",
    "up": "up_SxDxF",
    "down": "down_SxFxD",
}


def shapes(spec: Spec) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Input and output dimensions of each projection, without the layer axis."""
    D, F, H = spec.embed, spec.hidden, spec.head_dim
    heads, kv_heads = (spec.heads, H), (spec.kv_heads, H)
    return {
        "q": ((D,), heads),
        "k": ((D,), kv_heads),
        "v": ((D,), kv_heads),
        "o": (heads, (D,)),
        "gate": ((D,), (F,)),
        "up": ((D,), (F,)),
        "down": ((F,), (D,)),
    }


def weights_dtype(config: ConfigDict) -> jnp.dtype:
    """In which the weights are loaded: float32 under full tuning, whose masters they become."""
    return jnp.dtype(config.model.dtype if config.lora.rank else "float32")


def oriented(name: str, weight: jax.Array) -> jax.Array:
    """``[…, *in, *out]``: a projection's weight as A B has its axes, in which q, k and v differ."""
    return jnp.moveaxis(weight, -1, -3) if name in GROUPS[0] else weight


def init(spec: Spec, names: tuple[str, ...], rank: int, key: jax.Array) -> Tree:
    """Float32 adapters ``{name: {"A": [S, *in, R], "B": [S, R, *out]}}``; the update is zero."""
    adapters = {}
    for name in names:
        inputs, outputs = shapes(spec)[name]
        bound = 1 / math.sqrt(math.prod(inputs))
        # Folded by name: an adapter starts the same whichever others are chosen.
        a = jax.random.uniform(
            jax.random.fold_in(key, NAMES.index(name)),
            (spec.num_layers, *inputs, rank),
            jnp.float32,
            -bound,
            bound,
        )
        b = jnp.zeros((spec.num_layers, rank, *outputs), jnp.float32)
        adapters[name] = {"A": a, "B": b}
    return adapters


def scaling(rank: int, alpha: float, rslora: bool) -> float:
    """``alpha / rank``, or ``alpha / sqrt(rank)`` (rsLoRA, arXiv:2312.03732)."""
    return alpha / math.sqrt(rank) if rslora else alpha / rank


def with_magnitudes(adapters: Tree, layers: Tree) -> Tree:
    """DoRA's: each adapter with ``"m"``, float32 ``[S, *out]``, the norms of the columns of W.

    Args:
      layers: the weights, ``params["layers"]``.
    """
    return {
        name: {
            **adapter,
            "m": dora.magnitude(oriented(name, layers[WEIGHTS[name]]), _input_axes(adapter)),
        }
        for name, adapter in adapters.items()
    }


def with_gains(adapters: Tree | None, layers: Tree, scale: float) -> Tree:
    """What the layers need: the adapters, those with a magnitude with ``"gain"``, ``[S, *out]``.

    The gain depends on weights alone, so it is computed once before the scan over layers and not
    again in each backward pass or for each decoded token; a layer at a time.
    """
    gained = dict(adapters or {})
    for name, adapter in gained.items():
        if "m" in adapter:
            norm = _norms(name, layers[WEIGHTS[name]], adapter, scale)
            gained[name] = {**adapter, "gain": adapter["m"] / norm}
    return gained


def _norms(name: str, stacked: jax.Array, adapter: Tree, scale: float) -> jax.Array:
    def of_layer(leaves):
        weight, a, b = leaves
        return dora.norm(oriented(name, weight), a, b, scale)

    return jax.lax.map(of_layer, (stacked, adapter["A"], adapter["B"]))


def down_project(x: jax.Array, adapters: Tree, names: tuple[str, ...]) -> dict[str, jax.Array]:
    """``x A`` for the adapters of one group, as one product since they share ``x``.

    Args:
      x: ``[B, L, *in]``.
      adapters: one layer's ``{name: {"A", "B"}}``, possibly without some of ``names``.

    Returns:
      ``{name: [B, L, R]}`` for the names that have an adapter.
    """
    present = [name for name in names if name in adapters]
    if not present:
        return {}
    x = x.reshape(*x.shape[:2], -1)
    a = jnp.concatenate([_flat(adapters[name]["A"]) for name in present], axis=-1)
    low = product("bli,ir->blr", x, a.astype(x.dtype)).astype(x.dtype)
    return dict(zip(present, jnp.split(low, len(present), axis=-1), strict=True))


def up_project(h_BxLxR: jax.Array, adapter: Tree, scale: float) -> jax.Array:
    """``scale * h B`` as float32 ``[B, L, *out]``."""
    b = adapter["B"]
    y = product("blr,ro->blo", h_BxLxR, (scale * b.reshape(b.shape[0], -1)).astype(h_BxLxR.dtype))
    return y.reshape(*h_BxLxR.shape[:2], *b.shape[1:])


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Zeroes entries with probability ``rate`` and scales the rest by ``1 / (1 - rate)``."""
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


def merge(params: Tree, adapters: Tree, scale: float) -> Tree:
    """Weights with the update added, computed in float32 and kept in the dtype of the weights."""
    layers = dict(params["layers"])
    for name, adapter in adapters.items():
        stored, b = layers[WEIGHTS[name]], adapter["B"]
        weight = oriented(name, stored)
        a_SxIxR, b_SxRxO = _flat(adapter["A"], 1), b.reshape(*b.shape[:2], -1)
        update = scale * jnp.matmul(a_SxIxR, b_SxRxO, precision="highest").reshape(weight.shape)
        merged = weight.astype(jnp.float32) + update
        if "m" in adapter:
            inputs = _input_axes(adapter)
            merged *= jnp.expand_dims(adapter["m"] / dora.magnitude(merged, inputs), inputs)
        merged = jnp.moveaxis(merged, -3, -1) if name in GROUPS[0] else merged
        layers[WEIGHTS[name]] = merged.astype(stored.dtype)
    return {**params, "layers": layers}


def _input_axes(adapter: Tree) -> tuple[int, ...]:
    """Where a stacked weight has its inputs."""
    return tuple(range(1, adapter["A"].ndim - 1))


def _flat(a: jax.Array, axis: int = 0) -> jax.Array:
    """Joins the input axes of an A, the first of which is ``axis``, into one."""
    return a.reshape(*a.shape[:axis], -1, a.shape[-1])
