"""The Gemma forward pass: pure functions over stacked parameters, one ``lax.scan`` over layers.

    hidden_BxLxD = forward(spec, params, adapters, tokens_BxL, positions_BxL, segments_BxL)
    logits_BxLxV = logits(spec, params, hidden_BxLxD)

Numerics as in the reference implementations: the embedding scale is rounded to the activation
dtype; norms, RoPE, attention logits and softmax are float32; everything else is the activation
dtype. Weights are cast to it where they are used, so float32 masters may be passed.

The parameter tree. Each leaf of ``layers`` is stacked over all layers; the axes of q, k and v are
in the order that the compiler for TPUs wants: given another, it copies the stacks in every step::

    embed_VxD, final_norm_D
    layers: pre_attention_norm_SxD, post_attention_norm_SxD, pre_ffw_norm_SxD, post_ffw_norm_SxD,
            q_norm_SxH, k_norm_SxH (Gemma 3), q_SxNxHxD, k_SxKxHxD, v_SxKxHxD, o_SxNxHxD,
            gate_SxDxF, up_SxDxF, down_SxFxD
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from sft.mesh import sharding
from sft.model import attention, dora, lora
from sft.model.ops import angles, geglu, product, rms_norm, rotate
from sft.model.specs import Spec
from sft.types import Array, Tree

# What the backward pass finds saved of each layer besides its input; the rest is computed again.
# "host" saves only the input, and in the memory of the host.
REMAT = {
    "none": jax.checkpoint_policies.everything_saveable,
    "projections": jax.checkpoint_policies.save_only_these_names("projection"),
    "layer": jax.checkpoint_policies.nothing_saveable,
    "host": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["input"],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """How to run the forward pass; nothing here is an array.

    Attributes:
      dtype: of activations.
      remat: what the backward pass computes again, a key of ``REMAT``: nothing, all but the outputs
        of matrix products, whole layers, or those from inputs that wait on the host.
      lora_scale: factor on the adapters' update.
      dropout: probability, on the adapters' input; applied when a key is passed.
      attention: of ``forward``, one of ``attention.NAMES``.
      mesh: where arrays live; ``None`` = on one device.
    """

    dtype: jnp.dtype
    remat: str = "none"
    lora_scale: float = 1.0
    dropout: float = 0.0
    attention: str = "reference"
    mesh: Mesh | None = None


def abstract_params(spec: Spec, dtype: jnp.dtype) -> Tree:
    """Shapes and dtypes of the parameter tree."""
    S, D, F = spec.num_layers, spec.embed, spec.hidden
    N, K, H = spec.heads, spec.kv_heads, spec.head_dim
    layers = {
        "pre_attention_norm_SxD": (S, D),
        "post_attention_norm_SxD": (S, D),
        "pre_ffw_norm_SxD": (S, D),
        "post_ffw_norm_SxD": (S, D),
        "q_SxNxHxD": (S, N, H, D),
        "k_SxKxHxD": (S, K, H, D),
        "v_SxKxHxD": (S, K, H, D),
        "o_SxNxHxD": (S, N, H, D),
        "gate_SxDxF": (S, D, F),
        "up_SxDxF": (S, D, F),
        "down_SxFxD": (S, F, D),
    }
    if spec.qk_norm:
        layers |= {"q_norm_SxH": (S, H), "k_norm_SxH": (S, H)}
    tree = {"embed_VxD": (spec.vocab, D), "final_norm_D": (D,), "layers": layers}
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, dtype), tree, is_leaf=lambda x: type(x) is tuple
    )


def init_params(spec: Spec, key: jax.Array, dtype: jnp.dtype) -> Tree:
    """Random weights of about unit gain, norms included, for tests and benchmarks."""
    leaves, structure = jax.tree.flatten_with_path(abstract_params(spec, dtype))
    values = []
    for (path, leaf), k in zip(leaves, jax.random.split(key, len(leaves)), strict=True):
        name, shape = path[-1].key, leaf.shape
        inputs_last = name.endswith("HxD") and name[0] != "o"
        if inputs_last:  # drawn as the others, for which they are first
            shape = shape[0], shape[-1], *shape[1:-1]
        if "norm" in name:
            deviation = 0.1
        elif name == "o_SxNxHxD":
            deviation = (spec.heads * spec.head_dim) ** -0.5
        else:
            deviation = shape[1] ** -0.5
        drawn = deviation * jax.random.normal(k, shape)
        values.append((jnp.moveaxis(drawn, 1, -1) if inputs_last else drawn).astype(dtype))
    return jax.tree.unflatten(structure, values)


def embed(
    spec: Spec, params: Tree, tokens_BxL: Array, dtype: jnp.dtype, mesh: Mesh | None = None
) -> jax.Array:
    """Token embeddings times sqrt(D), the factor rounded to ``dtype``: ``[B, L, D]``."""
    x_BxLxD = sharding.rows_of(params["embed_VxD"], tokens_BxL, mesh).astype(dtype)
    return x_BxLxD * jnp.sqrt(jnp.float32(spec.embed)).astype(dtype)


def logits(spec: Spec, params: Tree, hidden: jax.Array) -> jax.Array:
    """Float32 logits ``[..., V]`` of final hidden states ``[..., D]``."""
    table_VxD = params["embed_VxD"].astype(hidden.dtype)
    out = jnp.einsum("...d,vd->...v", hidden, table_VxD, preferred_element_type=jnp.float32)
    if spec.final_softcap is not None:
        out = jnp.tanh(out / spec.final_softcap) * spec.final_softcap
    return out


def forward(
    spec: Spec,
    params: Tree,
    adapters: Tree | None,
    tokens_BxL: Array,
    positions_BxL: Array,
    segments_BxL: Array,
    options: Options,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Final hidden states ``[B, L, D]`` (after the last norm).

    Args:
      params: as in the module docstring.
      adapters: as made by ``lora.init``; ``None`` or ``{}`` for the base model.
      tokens_BxL: int32 ids, or float ``[B, L, D]`` embeddings already scaled (soft tokens).
      positions_BxL: int32, counted from 0 in each segment.
      segments_BxL: int32, 0 = padding.
      dropout_key: turns adapter dropout on.
    """
    if jnp.issubdtype(tokens_BxL.dtype, jnp.integer):
        x_BxLxD = embed(spec, params, tokens_BxL, options.dtype, options.mesh)
    else:
        x_BxLxD = jnp.asarray(tokens_BxL, options.dtype)
    places, turns = (positions_BxL, segments_BxL), angles(spec.kinds, spec.head_dim, positions_BxL)
    attend = attention.make(
        options.attention, spec.windows, spec.attn_softcap, *places, options.mesh
    )

    def body(x_BxLxD, per_layer):
        x_BxLxD = checkpoint_name(x_BxLxD, "input")
        x_BxLxD, _ = layer(spec, options, attend, turns, None, x_BxLxD, per_layer)
        return sharding.placed(x_BxLxD, options.mesh), None

    adapters = lora.with_gains(adapters, params["layers"], options.lora_scale)
    x_BxLxD = sharding.placed(x_BxLxD, options.mesh)
    remat_body = jax.checkpoint(body, prevent_cse=False, policy=REMAT[options.remat])
    x_BxLxD, _ = jax.lax.scan(remat_body, x_BxLxD, scanned(spec, params, adapters, dropout_key))
    return rms_norm(x_BxLxD, params["final_norm_D"])


def scanned(spec: Spec, params: Tree, adapters: Tree | None, dropout_key: jax.Array | None):
    """What the scan slices for each layer: weights, adapters, kind, dropout key."""
    kind_S = jnp.array([spec.kinds.index(kind) for kind in spec.layers], jnp.int32)
    keys_S = None if dropout_key is None else jax.random.split(dropout_key, spec.num_layers)
    return params["layers"], adapters or {}, kind_S, keys_S


def layer(spec: Spec, options: Options, attend, turns, store, x_BxLxD, per_layer):
    """One block. ``store`` exchanges new keys and values for all that may be seen."""
    w, adapters, kind, key = per_layer
    w, adapters = (sharding.gathered(tree, options.mesh) for tree in (w, adapters))
    sin_BxLxH, cos_BxLxH = (table[kind] for table in turns)

    def project(group: int, x: jax.Array, equation: str) -> list[jax.Array]:
        """``x W + scale * dropout(x) A B`` for the projections of ``lora.GROUPS[group]``."""
        names = lora.GROUPS[group]
        dropped = x
        if key is not None and options.dropout > 0:
            dropped = lora.dropout(x, options.dropout, jax.random.fold_in(key, group))
        low = lora.down_project(dropped, adapters, names)
        outputs = []
        for name in names:
            weight, adapter = w[lora.WEIGHTS[name]].astype(x.dtype), adapters.get(name, {})
            if "m" in adapter:
                update = lora.up_project(low[name], adapter, options.lora_scale)
                y = dora.project(equation, x, dropped, weight, update, adapter["gain"])
                outputs.append(y)
                continue
            y = product(equation, x, weight)
            if name in low:
                update = lora.up_project(low[name], adapter, options.lora_scale)
                if name in ("gate", "up"):  # F wide
                    # To be added as x W is made, which keeps a TPU's matrix unit busy anyway. XLA
                    # would write x W in float32 and add it as the update is made.
                    update = jax.lax.optimization_barrier(update.astype(x.dtype))
                y += update
            outputs.append(checkpoint_name(y.astype(x.dtype), "projection"))
        return outputs

    y_BxLxD = rms_norm(x_BxLxD, w["pre_attention_norm_SxD"])
    q, k, v = project(0, y_BxLxD, "bld,nhd->blnh")
    if spec.qk_norm:
        q, k = rms_norm(q, w["q_norm_SxH"]), rms_norm(k, w["k_norm_SxH"])
    q = rotate(q, sin_BxLxH, cos_BxLxH, spec.query_scale)
    k = rotate(k, sin_BxLxH, cos_BxLxH)
    kv = (k, v) if store is None else store(k, v)
    y_BxLxNxH = checkpoint_name(attend(kind, q, *kv), "projection")
    (y_BxLxD,) = project(1, y_BxLxNxH, "blnh,nhd->bld")
    x_BxLxD += rms_norm(y_BxLxD, w["post_attention_norm_SxD"])

    y_BxLxD = rms_norm(x_BxLxD, w["pre_ffw_norm_SxD"])
    gate_BxLxF, up_BxLxF = project(2, y_BxLxD, "bld,df->blf")
    y_BxLxF = geglu(gate_BxLxF, up_BxLxF)
    (y_BxLxD,) = project(3, y_BxLxF, "blf,fd->bld")
    return x_BxLxD + rms_norm(y_BxLxD, w["post_ffw_norm_SxD"]), kv
