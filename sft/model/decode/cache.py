"""The forward pass with a key/value cache: a few new positions of each row see all earlier ones.

Slot m of a row holds position m of its text, so a row's length says all about its slots: what lies
beyond it is never seen, whoever wrote it. Rows have lengths of their own, and a row can be given
to another text at any time.

The cache is carried through the scan over layers, so that a step writes the new positions in place
and copies nothing (``tests/test_generate.py`` holds it to that). Keys and values are read a block
of slots at a time, up to the longest row and not to the end of the cache.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from sft.model import attention, decoder
from sft.model.ops import angles, product, rms_norm
from sft.model.specs import Spec
from sft.types import Tree

BLOCK = 128  # slots read at a time; the number of slots is a multiple of it


@struct.dataclass
class Cache:
    """Rotated keys, and values: ``[S, B, K, M, H]`` for ``M`` slots."""

    k_SxBxKxMxH: jax.Array
    v_SxBxKxMxH: jax.Array


def empty(spec: Spec, rows: int, slots: int, dtype: jnp.dtype) -> Cache:
    """A cache for at least ``slots`` positions of each row."""
    slots = -(-slots // BLOCK) * BLOCK
    shape = (spec.num_layers, rows, spec.kv_heads, slots, spec.head_dim)
    return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def extend(
    spec: Spec,
    params: Tree,
    adapters: Tree | None,
    cache: Cache,
    tokens_BxL: jax.Array,
    starts_B: jax.Array,
    options: decoder.Options,
) -> tuple[jax.Array, Cache]:
    """``decoder.forward`` for ``L`` further positions of each row, from ``starts_B`` on.

    Args:
      adapters: as returned by ``lora.with_gains``.
      starts_B: int32; those slots of the cache and later ones are written over.

    Returns:
      Final hidden states ``[B, L, D]`` and the cache with those positions written.
    """
    B, L = tokens_BxL.shape
    slots_BxL = starts_B[:, None] + jnp.arange(L, dtype=jnp.int32)
    turns = angles(spec.kinds, spec.head_dim, slots_BxL)
    masks = _masks(spec, slots_BxL, cache.k_SxBxKxMxH.shape[3])
    end = jnp.max(starts_B) + L

    def body(carry, scanned):
        x_BxLxD, k_SxBxKxMxH, v_SxBxKxMxH = carry
        layer, per_layer = scanned
        written = layer, jnp.arange(B)[:, None], slice(None), slots_BxL

        def store(k_BxLxKxH, v_BxLxKxH):
            return (
                k_SxBxKxMxH.at[written].set(k_BxLxKxH, unique_indices=True),
                v_SxBxKxMxH.at[written].set(v_BxLxKxH, unique_indices=True),
            )

        attend = _attention(layer, masks, end, spec.attn_softcap)
        x_BxLxD, kv = decoder.layer(spec, options, attend, turns, store, x_BxLxD, per_layer)
        return (x_BxLxD, *kv), None

    x_BxLxD = decoder.embed(spec, params, tokens_BxL, options.dtype)
    layers = jnp.arange(spec.num_layers), decoder.scanned(spec, params, adapters, None)
    carry = x_BxLxD, cache.k_SxBxKxMxH, cache.v_SxBxKxMxH
    (x_BxLxD, k, v), _ = jax.lax.scan(body, carry, layers)
    return rms_norm(x_BxLxD, params["final_norm_D"]), Cache(k, v)


def put(cache: Cache, rows_R: jax.Array, new: Cache) -> Cache:
    """``cache`` with its first slots of row ``rows_R[r]`` taken from row ``r`` of ``new``."""

    def one(r, cache):
        def write(all_SxBxKxMxH, new_SxRxKxLxH):
            row = jax.lax.dynamic_slice_in_dim(new_SxRxKxLxH, r, 1, axis=1)
            return jax.lax.dynamic_update_slice(all_SxBxKxMxH, row, (0, rows_R[r], 0, 0, 0))

        return jax.tree.map(write, cache, new)

    return jax.lax.fori_loop(0, len(rows_R), one, cache)


def _masks(spec: Spec, slots_BxL: jax.Array, slots: int) -> jax.Array:
    """Which slots each query sees, by kind of layer: bool ``[kinds, B, L, M]``."""
    B, L = slots_BxL.shape
    keys_BxM = jnp.broadcast_to(jnp.arange(slots, dtype=jnp.int32), (B, slots))
    one_text = jnp.zeros((B, L), jnp.int32), keys_BxM, jnp.zeros((B, slots), jnp.int32)
    return attention.make_masks(spec.windows, slots_BxL, *one_text)


def _attention(
    layer: jax.Array, masks: jax.Array, end: jax.Array, softcap: float | None
) -> Callable:
    """``attention.reference`` over the slots before ``end``, in blocks.

    Args:
      layer: int32 scalar, which of the cache's.
      masks: bool ``[kinds, B, L, M]``.
      end: int32 scalar; no query sees a slot from there on.
    """

    def attend(kind, q_BxLxNxH, k_SxBxKxMxH, v_SxBxKxMxH):
        B, L, N, H = q_BxLxNxH.shape
        _, _, K, M, _ = k_SxBxKxMxH.shape
        # One position a row: a block at a time. Many: a prompt, whose own slots are all there is.
        size = BLOCK if L == 1 else M
        blocks = (end + size - 1) // size
        q_BxKxQxH = jnp.moveaxis(q_BxLxNxH.reshape(B, L, K, N // K, H), 1, 3)
        q_BxKxQxH = q_BxKxQxH.reshape(B, K, -1, H)

        def block(cache_SxBxKxMxH, i):
            start = (layer, 0, 0, i * size, 0)
            return jax.lax.dynamic_slice(cache_SxBxKxMxH, start, (1, B, K, size, H))[0]

        def score(i, z_BxKxQxM):
            z = product("bkqh,bkmh->bkqm", q_BxKxQxH, block(k_SxBxKxMxH, i))
            return jax.lax.dynamic_update_slice_in_dim(z_BxKxQxM, z, i * size, axis=3)

        z_BxKxQxM = jnp.zeros((B, K, q_BxKxQxH.shape[2], M), jnp.float32)
        z_BxKxQxM = jax.lax.fori_loop(0, blocks, score, z_BxKxQxM)
        if softcap is not None:
            z_BxKxQxM = jnp.tanh(z_BxKxQxM / softcap) * softcap
        z = z_BxKxQxM.reshape(B, K, N // K, L, M)
        z = jnp.where(masks[kind][:, None, None], z, attention.MASKED)
        w_BxKxQxM = jax.nn.softmax(z, axis=-1).astype(v_SxBxKxMxH.dtype).reshape(z_BxKxQxM.shape)

        def add(i, sum_BxKxQxH):
            w = jax.lax.dynamic_slice_in_dim(w_BxKxQxM, i * size, size, axis=3)
            return sum_BxKxQxH + product("bkqm,bkmh->bkqh", w, block(v_SxBxKxMxH, i))

        out = jax.lax.fori_loop(0, blocks, add, jnp.zeros(q_BxKxQxH.shape, jnp.float32))
        out = jnp.moveaxis(out.reshape(B, K, N // K, L, H), 3, 1).reshape(B, L, N, H)
        return out.astype(v_SxBxKxMxH.dtype)

    return attend
