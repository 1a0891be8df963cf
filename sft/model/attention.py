"""Attention, one signature: ``Attend``. Every implementation gives the same numbers.

    reference   plain XLA; logits, mask and softmax in float32 and in full: ``[B, N, L, L]``
    splash      TPU: JAX's Pallas kernel (flash attention that skips blocks without a visible key);
                no mask and no logits in memory, key/value heads are not repeated
    cudnn       GPU: cuDNN's fused kernel through ``jax.nn.dot_product_attention``; the mask is in
                memory, the logits are not

Splash takes rows a multiple of 128 long and, on a TPU, heads a multiple of 128 wide; cuDNN has no
soft cap. Where one cannot serve, that is an error or an explicit choice of ``choose``: nothing
falls back by itself.

Where rows are divided among devices, each has its queries, and gathers keys and values, which few
heads make small (Llama 3's context parallelism, arXiv:2407.21783, section 3.3.2). Parts are in the
order of the row, so in layers without a window the device with the last one does the most.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from sft.errors import UserError
from sft.mesh.sharding import ROWS, P, whole_rows
from sft.model.ops import product
from sft.model.specs import Spec
from sft.types import Array

# (kind, q_BxLxNxH, k_BxMxKxH, v_BxMxKxH) -> [B, L, N, H] in the dtype of the values. ``kind`` is an
# int32 scalar: which of the windows holds. Queries are scaled; each key/value head serves ``N / K``
# query heads in a row.
Attend = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
Windows = Sequence[int | None]  # of each kind of layer: keys a query sees; None = all earlier ones

NAMES = ("reference", "splash", "cudnn")
LANES = 128  # of a TPU: splash divides rows and heads into multiples of it
SPLASH_BLOCK = 512  # queries and keys at a time, or the largest multiple of LANES that divides L

# Finite, so that a row with nothing to attend to gives a number and not a NaN.
MASKED = -2.3819763e38


def choose(name: str, platform: str, spec: Spec, max_length: int, spans: int = 1) -> str:
    """The implementation for a platform, or the one asked for if it can serve.

    Args:
      name: one of ``NAMES``; ``""`` = by platform: splash on a TPU, cuDNN on a GPU unless the model
        has a soft cap, the reference elsewhere.
      max_length: of training rows.
      spans: parts of a row, each on another device.

    Raises:
      UserError: it cannot; says what to change.
    """
    usual = {"tpu": "splash", "gpu": "reference" if spec.attn_softcap else "cudnn"}
    chosen = name or usual.get(platform, "reference")
    problem, lanes = "", LANES * spans
    if chosen == "splash" and max_length % lanes:
        problem = f"rows of data.max_length = {max_length} tokens, expected a multiple of {lanes}"
    elif chosen == "splash" and platform == "tpu" and spec.head_dim % LANES:
        problem = f"heads of {spec.head_dim} in {spec.name}, expected a multiple of {LANES}"
    elif chosen == "splash" and platform == "gpu":
        problem = "a TPU kernel, and the devices are GPUs"
    elif chosen == "cudnn" and platform != "gpu":
        problem = f"a GPU kernel, and the devices are of platform {platform!r}"
    elif chosen == "cudnn" and spec.attn_softcap:
        problem = f"no soft cap on logits, which {spec.name} has"
    elif chosen == "cudnn" and spans > 1:
        problem = f"rows divided among devices (config.mesh.sequence = {spans})"
    if problem:
        raise UserError(
            f"config.model.attention: {chosen!r} ({'asked for' if name else 'chosen by platform'}) "
            f"cannot be used: {problem}. Change that, or set config.model.attention = 'reference'."
        )
    return chosen


def multiple(name: str, spans: int) -> int:
    """What the length of rows must be a multiple of."""
    return (LANES if name == "splash" else 1) * spans


def make(
    name: str,
    windows: Windows,
    softcap: float | None,
    positions_BxL: Array,
    segments_BxL: Array,
    mesh: Mesh | None = None,
) -> Attend:
    """Attention of rows to themselves: same segment, not later, within the window.

    Args:
      softcap: tanh cap on the logits (Gemma 2), or ``None``.
      positions_BxL: int32, counted from 0 in each segment.
      segments_BxL: int32, 0 = padding, which sees other padding only.
      mesh: where positions and heads are; ``None`` = on one device.
    """
    if name == "splash":
        return _splash(windows, softcap, segments_BxL, mesh)
    keys = (whole_rows(jnp.asarray(x), mesh) for x in (positions_BxL, segments_BxL))
    masks = make_masks(windows, positions_BxL, segments_BxL, *keys)
    attend = _cudnn(masks) if name == "cudnn" else reference(masks, softcap)
    return lambda kind, q, k, v: attend(kind, q, whole_rows(k, mesh), whole_rows(v, mesh))


def make_masks(
    windows: Windows,
    positions_BxL: Array,
    segments_BxL: Array,
    key_positions_BxM: Array,
    key_segments_BxM: Array,
) -> jax.Array:
    """``make_mask`` for each window, stacked: bool ``[kinds, B, L, M]``."""
    places = positions_BxL, segments_BxL, key_positions_BxM, key_segments_BxM
    return jnp.stack([make_mask(*places, window) for window in windows])


def make_mask(
    positions_BxL: Array,
    segments_BxL: Array,
    key_positions_BxM: Array,
    key_segments_BxM: Array,
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


def reference(masks: jax.Array, softcap: float | None) -> Attend:
    """Any queries and keys, by masks ``[kinds, B, L, M]``; logits and softmax in float32."""

    def attend(kind, q_BxLxNxH, k_BxMxKxH, v_BxMxKxH):
        B, L, N, H = q_BxLxNxH.shape
        K = k_BxMxKxH.shape[2]
        q = q_BxLxNxH.reshape(B, L, K, N // K, H)
        logits = product("blkgh,bmkh->bkglm", q, k_BxMxKxH)
        if softcap is not None:
            logits = jnp.tanh(logits / softcap) * softcap
        logits = jnp.where(masks[kind][:, None, None], logits, MASKED)
        weights = jax.nn.softmax(logits, axis=-1).astype(v_BxMxKxH.dtype)
        out = product("bkglm,bmkh->blkgh", weights, v_BxMxKxH)
        return out.reshape(B, L, N, H).astype(v_BxMxKxH.dtype)

    return attend


def _cudnn(masks: jax.Array) -> Attend:
    def attend(kind, q_BxLxNxH, k_BxMxKxH, v_BxMxKxH):
        return jax.nn.dot_product_attention(
            q_BxLxNxH,
            k_BxMxKxH,
            v_BxMxKxH,
            mask=masks[kind][:, None],
            scale=1.0,
            implementation="cudnn",
        )

    return attend


def _splash(
    windows: Windows, softcap: float | None, segments_BxL: Array, mesh: Mesh | None
) -> Attend:
    """In a packed row, a segment's tokens are neighbours: tokens apart are positions apart."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    segments_BxL = jnp.asarray(segments_BxL)
    spans, shares = (1, 1) if mesh is None else (mesh.shape["sequence"], mesh.shape["tensor"])

    def local(kind, kernels, *arrays):
        """On one device: its queries, and the keys of all positions."""
        *qkv, q_segments_BxL, kv_segments_BxM = arrays
        major = [jnp.swapaxes(x, 1, 2) for x in qkv]  # heads before positions
        ids = splash.SegmentIds(q_segments_BxL, kv_segments_BxM)
        branches = [lambda q, k, v, own=own: jax.vmap(own)(q, k, v, ids) for own in kernels]
        return jnp.swapaxes(jax.lax.switch(kind, branches, *major), 1, 2)

    def attend(kind, q_BxLxNxH, k_BxMxKxH, v_BxMxKxH):
        heads = q_BxLxNxH.shape[2] // shares
        shape = heads, segments_BxL.shape[1], spans
        kernels = [_splash_kernel(window, *shape, softcap, mesh) for window in windows]
        arrays = q_BxLxNxH, k_BxMxKxH, v_BxMxKxH, segments_BxL, segments_BxL
        if mesh is None:
            return local(kind, kernels, *arrays)
        # The kernel knows nothing of meshes: each device gets its own part.
        rows, whole = P(ROWS, "sequence"), P(ROWS)
        queries, keys = P(ROWS, "sequence", "tensor"), P(ROWS, None, "tensor")
        of_masks = NamedSharding(mesh, P(None, "sequence"))
        masks = [kernel.manual_sharding_spec(of_masks) for kernel in kernels]
        on_devices = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(P(), masks, queries, keys, keys, rows, whole),
            out_specs=queries,
            check_vma=False,  # Pallas kernels do not say along which axes their outputs vary
        )
        return on_devices(kind, kernels, *arrays)

    return attend


def _splash_kernel(
    window: int | None,
    heads: int,
    length: int,
    spans: int,
    softcap: float | None,
    mesh: Mesh | None,
):
    """For one row, in parts of which each is on another device."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    sizes = range(LANES, SPLASH_BLOCK + 1, LANES)
    block = max(n for n in sizes if (length // spans) % n == 0)
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    seen = splash.LocalMask((length, length), (None if window is None else window - 1, 0), 0)
    return splash.make_splash_mha(
        splash.MultiHeadMask([seen] * heads),
        head_shards=1,
        q_seq_shards=spans,
        block_sizes=splash.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        attn_logits_soft_cap=softcap,
        interpret=platform != "tpu",  # slow, and the same numbers
    )
