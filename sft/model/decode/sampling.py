"""How the next token is chosen."""

import dataclasses

import jax
import jax.numpy as jnp


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
        # The first of the largest, as jnp.argmax, whose reduction of pairs CPUs do one by one.
        is_top_BxV = logits_BxV == jnp.max(logits_BxV, axis=-1, keepdims=True)
        ids_BxV = jax.lax.broadcasted_iota(jnp.int32, logits_BxV.shape, 1)
        return jnp.min(jnp.where(is_top_BxV, ids_BxV, logits_BxV.shape[-1] - 1), axis=-1)
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
