"""Rows of prompts and their answers on the devices, and the compiled functions that change them.

``read`` and ``admit`` bring prompts into free rows; ``advance`` adds one token after the other to
all rows until enough of them are free again.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from sft.mesh import sharding
from sft.model import decoder
from sft.model.decode import cache as cached
from sft.model.decode.sampling import Sampling, choose
from sft.model.specs import Spec
from sft.types import Tree


@struct.dataclass
class Slots:
    """Rows, each of which holds a prompt and the answer so far.

    Attributes:
      index_B: int32, the prompt's place in the list; its random numbers depend on it.
      length_B: int32, positions in the cache. The newest token is not among them yet.
      count_B: int32, tokens of the answer.
      answers_BxT: int32, of which the first ``count_B``.
      live_B: bool; a row that is not is free, and its answer finished.
    """

    cache: cached.Cache
    index_B: jax.Array
    length_B: jax.Array
    count_B: jax.Array
    answers_BxT: jax.Array
    live_B: jax.Array


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is compiled in."""

    spec: Spec
    options: decoder.Options
    sampling: Sampling
    seed: int


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def start(recipe: Recipe, rows: int, slots: int) -> Slots:
    zeros_B = jnp.zeros(rows, jnp.int32)
    answers_BxT = jnp.zeros((rows, recipe.sampling.max_new_tokens), jnp.int32)
    cache = cached.empty(recipe.spec, rows, slots, recipe.options.dtype)
    free_B = jnp.zeros(rows, bool)
    return _placed(Slots(cache, zeros_B, zeros_B, zeros_B, answers_BxT, free_B), recipe)


def _placed(slots: Slots, recipe: Recipe) -> Slots:
    """Whole on every device but for the heads, so that any device can do any row's next step."""
    mesh = recipe.options.mesh
    if mesh is None:
        return slots
    whole = jax.tree.map(lambda x: sharding.constrained(x, mesh, sharding.P()), slots)
    heads = sharding.P(None, None, "tensor")
    cache = jax.tree.map(lambda x: sharding.constrained(x, mesh, heads), slots.cache)
    return dataclasses.replace(whole, cache=cache)


def _next(recipe: Recipe, params: Tree, hidden_BxD: jax.Array, index_B, count_B) -> jax.Array:
    """The next token of each row: int32 ``[B]``."""
    logits_BxV = decoder.logits(recipe.spec, params, hidden_BxD)
    if recipe.sampling.temperature == 0:
        return choose(logits_BxV, recipe.sampling, jax.random.key(0))

    def row(logits_V, index, count):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(recipe.seed), index), count)
        return choose(logits_V[None], recipe.sampling, key)[0]

    return jax.vmap(row)(logits_BxV, index_B, count_B)


def _ends(recipe: Recipe, token_B: jax.Array, count_B: jax.Array) -> jax.Array:
    """Whether a row ends with its newest token, which makes ``count_B``."""
    is_stop_B = jnp.isin(token_B, jnp.array(recipe.sampling.stop_ids))
    return is_stop_B | (count_B >= recipe.sampling.max_new_tokens)


def read(
    recipe: Recipe, params: Tree, adapters: Tree, prompts_RxL: jax.Array, lengths_R: jax.Array
) -> tuple[jax.Array, cached.Cache]:
    """Final hidden state ``[R, D]`` of the last token of each prompt, and a cache with them.

    Args:
      prompts_RxL: int32 ids, each row its prompt followed by padding.
      lengths_R: int32 prompt lengths, at least 1.
    """
    R, L = prompts_RxL.shape
    cache = cached.empty(recipe.spec, R, L, recipe.options.dtype)
    starts_R = jnp.zeros(R, jnp.int32)
    hidden_RxLxD, cache = cached.extend(
        recipe.spec, params, adapters, cache, prompts_RxL, starts_R, recipe.options
    )
    return hidden_RxLxD[jnp.arange(R), lengths_R - 1], cache


@functools.cache
def reader(platform: str) -> Callable:
    """``read``, compiled."""
    # Of XLA's libraries for CPUs, the one that it prefers (YNNPACK) takes a fifth longer for large
    # products, a third in bfloat16; it is the better one for those of ``advance``.
    compiler = {"xla_cpu_experimental_ynn_fusion_type": ""} if platform == "cpu" else None
    return jax.jit(read, static_argnums=0, compiler_options=compiler)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def admit(
    recipe: Recipe,
    params: Tree,
    slots: Slots,
    hidden_RxD: jax.Array,
    fresh: cached.Cache,
    lengths_R: jax.Array,
    index_R: jax.Array,
    rows_R: jax.Array,
) -> Slots:
    """Puts what ``read`` returns into free rows, and chooses the first token of each answer.

    Args:
      index_R, rows_R: int32, which prompts, and the rows for them; a pair may occur again.
    """
    token_R = _next(recipe, params, hidden_RxD, index_R, jnp.zeros_like(index_R))
    end_R = _ends(recipe, token_R, jnp.ones_like(index_R))
    admitted = Slots(
        cache=cached.put(slots.cache, rows_R, fresh),
        index_B=slots.index_B.at[rows_R].set(index_R),
        length_B=slots.length_B.at[rows_R].set(lengths_R),
        count_B=slots.count_B.at[rows_R].set(1),
        answers_BxT=slots.answers_BxT.at[rows_R, 0].set(token_R),
        live_B=slots.live_B.at[rows_R].set(~end_R),
    )
    return _placed(admitted, recipe)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def advance(
    recipe: Recipe,
    params: Tree,
    adapters: Tree,
    slots: Slots,
    kept_B: jax.Array,
    until: jax.Array,
    tokens: jax.Array,
) -> Slots:
    """Adds up to ``tokens`` tokens to the live rows, while more than ``until`` of them are left.

    Args:
      kept_B: bool; rows that are not are ended first, whatever they say.
    """
    spec, options = recipe.spec, recipe.options
    rows_B = jnp.arange(len(slots.live_B))

    def more(carry):
        t, slots = carry
        return (t < tokens) & (jnp.sum(slots.live_B) > until)

    def step(carry):
        t, slots = carry
        live_B, count_B = slots.live_B, slots.count_B
        newest_B = slots.answers_BxT[rows_B, count_B - 1]
        # A free row writes over its first slot, and must not lengthen what the others look at.
        starts_B = jnp.where(live_B, slots.length_B, 0)
        hidden_Bx1xD, cache = cached.extend(
            spec, params, adapters, slots.cache, newest_B[:, None], starts_B, options
        )
        token_B = _next(recipe, params, hidden_Bx1xD[:, 0], slots.index_B, count_B)
        places = rows_B, jnp.where(live_B, count_B, slots.answers_BxT.shape[1])
        return t + 1, Slots(
            cache=cache,
            index_B=slots.index_B,
            length_B=slots.length_B + live_B,
            count_B=count_B + live_B,
            answers_BxT=slots.answers_BxT.at[places].set(token_B, mode="drop"),
            live_B=live_B & ~_ends(recipe, token_B, count_B + 1),
        )

    kept = dataclasses.replace(slots, live_B=slots.live_B & kept_B)
    return _placed(jax.lax.while_loop(more, step, (0, kept))[1], recipe)
