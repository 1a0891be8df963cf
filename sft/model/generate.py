"""Batched decoding with a key/value cache, compiled once per shape bucket."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sft.model import decoder, lora
from sft.model.specs import Spec
from sft.types import Tree


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
      max_new_tokens: cap on the length of an answer, its stop token included.
      stop_ids: an answer ends at the first of these, which is not part of it.
      temperature: 0 = greedy; the other two fields then do nothing.
      top_k: only the k likeliest tokens; 0 = all.
      top_p: only the likeliest tokens that together reach this probability; 1 = all.
    """

    max_new_tokens: int
    stop_ids: tuple[int, ...]
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0


def choose(logits_BxV: jax.Array, sampling: Sampling, key: jax.Array) -> jax.Array:
    """The next token of each row: int32 ``[B]``."""
    if sampling.temperature == 0:
        return jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
    z_BxV = logits_BxV / sampling.temperature
    if sampling.top_k:
        kth_Bx1 = jax.lax.top_k(z_BxV, min(sampling.top_k, z_BxV.shape[-1]))[0][:, -1:]
        z_BxV = jnp.where(z_BxV < kth_Bx1, -jnp.inf, z_BxV)
    if sampling.top_p < 1:
        sorted_BxV = -jnp.sort(-z_BxV, axis=-1)
        before_BxV = jnp.cumsum(jax.nn.softmax(sorted_BxV), axis=-1) - jax.nn.softmax(sorted_BxV)
        # Nothing comes before the likeliest token: it stays even where top_p is 0.
        is_kept_BxV = (before_BxV < sampling.top_p) | (before_BxV == 0)
        kept_BxV = jnp.where(is_kept_BxV, sorted_BxV, jnp.inf)
        z_BxV = jnp.where(z_BxV < jnp.min(kept_BxV, axis=-1, keepdims=True), -jnp.inf, z_BxV)
    return jax.random.categorical(key, z_BxV).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("spec", "options", "sampling"))
def decode(
    spec: Spec,
    options: decoder.Options,
    sampling: Sampling,
    params: Tree,
    adapters: Tree | None,
    prompts_BxL: jax.Array,
    lengths_B: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """Continues each prompt until its stop token or the cap.

    Args:
      prompts_BxL: int32 ids, each row its prompt followed by padding.
      lengths_B: int32 prompt lengths, at least 1.
      key: for sampling.

    Returns:
      int32 ``[B, max_new_tokens]``: the answers; from the stop token on, the first stop id.
    """
    B, L = prompts_BxL.shape
    T = sampling.max_new_tokens
    stop = sampling.stop_ids[0]
    place_L = jnp.arange(L, dtype=jnp.int32)
    segments_BxL = (place_L < lengths_B[:, None]).astype(jnp.int32)
    adapters = lora.with_gains(adapters, params["layers"], options.lora_scale)
    cache = decoder.init_cache(spec, B, L + T, options.dtype)
    hidden_BxLxD, cache = decoder.extend(
        spec,
        params,
        adapters,
        cache,
        prompts_BxL,
        jnp.where(segments_BxL == 1, place_L, 0),
        segments_BxL,
        options,
    )
    last_Bx1xD = jnp.take_along_axis(hidden_BxLxD, (lengths_B - 1)[:, None, None], axis=1)

    def pick(hidden_Bx1xD, done_B, t):
        logits_BxV = decoder.logits(spec, params, hidden_Bx1xD)[:, 0]
        token_B = choose(logits_BxV, sampling, jax.random.fold_in(key, t))
        done_B |= jnp.isin(token_B, jnp.array(sampling.stop_ids))
        return jnp.where(done_B, stop, token_B), done_B

    def more(carry):
        t, done_B, *_ = carry
        return (t < T) & ~jnp.all(done_B)

    def step(carry):
        t, done_B, token_B, answers_BxT, cache = carry
        hidden_Bx1xD, cache = decoder.extend(
            spec,
            params,
            adapters,
            cache,
            token_B[:, None],
            (lengths_B + t - 1)[:, None],
            jnp.ones((B, 1), jnp.int32),
            options,
        )
        token_B, done_B = pick(hidden_Bx1xD, done_B, t)
        return t + 1, done_B, token_B, answers_BxT.at[:, t].set(token_B), cache

    token_B, done_B = pick(last_Bx1xD, jnp.zeros(B, bool), 0)
    answers_BxT = jnp.full((B, T), stop, jnp.int32).at[:, 0].set(token_B)
    carry = jax.lax.while_loop(more, step, (1, done_B, token_B, answers_BxT, cache))
    return carry[3]


def generate(
    spec: Spec,
    options: decoder.Options,
    sampling: Sampling,
    params: Tree,
    adapters: Tree | None,
    prompts: Sequence[np.ndarray],
    *,
    batch_size: int,
    seed: int = 0,
    bucket: int = 32,
    on_batch: Callable[[int], object] = lambda done: None,
) -> list[list[int]]:
    """Answers to all prompts, in their order, without stop tokens.

    Prompts are sorted by length and cut into batches of one size, each padded to a multiple of
    ``bucket``, so that few shapes are compiled.

    Args:
      prompts: int32 ids of each prompt.
      on_batch: called with the number of prompts finished in each batch.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        length = -(-max(len(prompts[i]) for i in chosen) // bucket) * bucket
        prompts_BxL = np.zeros((batch_size, length), np.int32)
        # A short batch is filled with copies of its last prompt, which stop when that one does.
        filled = chosen + chosen[-1:] * (batch_size - len(chosen))
        for row, i in enumerate(filled):
            prompts_BxL[row, : len(prompts[i])] = prompts[i]
        lengths_B = np.array([len(prompts[i]) for i in filled], np.int32)
        key = jax.random.fold_in(jax.random.key(seed), start)
        ids_BxT = np.asarray(
            decode(spec, options, sampling, params, adapters, prompts_BxL, lengths_B, key)
        )
        for row, i in enumerate(chosen):
            stops = np.isin(ids_BxT[row], sampling.stop_ids)
            end = int(np.argmax(stops)) if stops.any() else len(stops)
            answers[i] = ids_BxT[row, :end].tolist()
        on_batch(len(chosen))
    return answers
