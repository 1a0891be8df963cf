"""Attention over masks made from positions and segments: the reference, softmax in float32."""

import jax
import jax.numpy as jnp

from sft.model.ops import product

# Finite, so that a row with nothing to attend to gives a number and not a NaN.
MASKED = -2.3819763e38


def make_mask(
    positions_BxL: jax.Array,
    segments_BxL: jax.Array,
    key_positions_BxM: jax.Array,
    key_segments_BxM: jax.Array,
    window: int | None,
) -> jax.Array:
    """Which keys each query may see: same segment, not later, and within ``window`` of it.

    Padding is segment 0 and sees other padding only, so that no query sees nothing.

    Returns:
      Boolean ``[B, L, M]``.
    """
    same_BxLxM = segments_BxL[:, :, None] == key_segments_BxM[:, None, :]
    ahead_BxLxM = positions_BxL[:, :, None] - key_positions_BxM[:, None, :]
    mask_BxLxM = same_BxLxM & (ahead_BxLxM >= 0)
    if window is not None:
        mask_BxLxM &= ahead_BxLxM < window
    return mask_BxLxM


def attend(
    q_BxLxNxH: jax.Array,
    k_BxMxKxH: jax.Array,
    v_BxMxKxH: jax.Array,
    mask_BxLxM: jax.Array,
    softcap: float | None,
) -> jax.Array:
    """Grouped-query attention; logits and softmax in float32.

    Args:
      q_BxLxNxH: scaled, rotated queries; each key/value head serves ``N / K`` of them in a row.
      k_BxMxKxH: rotated keys.
      v_BxMxKxH: values.
      mask_BxLxM: True where a query may see a key.
      softcap: tanh cap on the logits (Gemma 2), or ``None``.

    Returns:
      ``[B, L, N, H]`` in the dtype of the values.
    """
    B, L, N, H = q_BxLxNxH.shape
    K = k_BxMxKxH.shape[2]
    q = q_BxLxNxH.reshape(B, L, K, N // K, H)
    logits = product("blkgh,bmkh->bkglm", q, k_BxMxKxH)
    if softcap is not None:
        logits = jnp.tanh(logits / softcap) * softcap
    logits = jnp.where(mask_BxLxM[:, None, None], logits, MASKED)
    weights = jax.nn.softmax(logits, axis=-1).astype(v_BxMxKxH.dtype)
    out = product("bkglm,bmkh->blkgh", weights, v_BxMxKxH)
    return out.reshape(B, L, N, H).astype(v_BxMxKxH.dtype)
