"""Weights as the ``gemma`` package publishes and saves them: Orbax directories.

Three layouts exist, told apart by their names (``gemma.gm.ckpts._checkpoint`` 4.0.1)::

    nested   layer_0.attn.q_einsum.w                                 gm.ckpts.save_params
    flat     transformer/layer_0/attn/q_einsum.w                     official checkpoints
    stacked  transformer/stacked_layers/attention_type_0/attn/q_einsum.w    [layers of that kind, …]

and each may lie under ``default`` and ``params`` (a Kauldron training checkpoint). All names are
brought to the nested form with slashes. The arrays are zarr, in OCDBT or in plain files, and are
read with ``tensorstore`` directly, so that only the slices asked for are fetched.
"""

import re
from pathlib import Path
from typing import Any

from sft.errors import UserError
from sft.model.specs import Spec

NAMES = {
    "embed_VxD": "embedder/input_embedding",
    "final_norm_D": "final_norm/scale",
    "pre_attention_norm_SxD": "pre_attention_norm/scale",
    "post_attention_norm_SxD": "post_attention_norm/scale",
    "pre_ffw_norm_SxD": "pre_ffw_norm/scale",
    "post_ffw_norm_SxD": "post_ffw_norm/scale",
    "q_norm_SxH": "attn/_query_norm/scale",
    "k_norm_SxH": "attn/_key_norm/scale",
    "q_SxNxHxD": "attn/q_einsum/w",
    "k_SxKxHxD": "attn/kv_einsum/w",
    "v_SxKxHxD": "attn/kv_einsum/w",
    "o_SxNxHxD": "attn/attn_vec_einsum/w",
    "gate_SxDxF": "mlp/gating_einsum",
    "up_SxDxF": "mlp/gating_einsum",
    "down_SxFxD": "mlp/linear",
}
_HALF = {"k_SxKxHxD": 0, "v_SxKxHxD": 1, "gate_SxDxF": 0, "up_SxDxF": 1}
_CACHE_BYTES = 1 << 30  # decoded chunks kept, because two leaves may share one stored array
_RETRIES = 4  # of a failed request; the library's default waits for many minutes


class Orbax:
    """A ``Source`` over one checkpoint directory, local or remote."""

    ignored = r"^(vision_encoder|SigLiPFromPatches_0)/|^embedder/mm_"
    heads: tuple[str, ...] = ()

    def __init__(self, path: Path, arrays: dict[str, Any], spec: Spec):
        self.path = str(path)
        self.spec = spec
        self.arrays = arrays
        self.shapes = {name: tuple(array.shape) for name, array in self.arrays.items()}

    @property
    def stored(self) -> str:
        """The format and the types of the weights."""
        return f"Orbax, {' and '.join(sorted({a.dtype.name for a in self.arrays.values()}))}"

    def entry(self, leaf: str, layer: int | None) -> tuple[str, tuple[int, ...]]:
        name = NAMES[leaf] if layer is None else f"layer_{layer}/{NAMES[leaf]}"
        D, F, H = self.spec.embed, self.spec.hidden, self.spec.head_dim
        N, K = self.spec.heads, self.spec.kv_heads
        if leaf.endswith("norm_SxH"):
            return name, (H,)
        if "norm" in leaf:
            return name, (D,)
        gating = (2, F, D)
        if self.shapes.get(name) == (2, D, F):  # Gemma 2 2B alone stores it untransposed
            gating = (2, D, F)
        return name, {
            "embed_VxD": (self.spec.vocab, D),
            "q_SxNxHxD": (N, D, H),
            "k_SxKxHxD": (2, K, D, H),
            "v_SxKxHxD": (2, K, D, H),
            "o_SxNxHxD": (N, H, D),
            "gate_SxDxF": gating,
            "up_SxDxF": gating,
            "down_SxFxD": (F, D),
        }[leaf]

    def tensor(self, leaf: str, layer: int | None) -> Any:
        name, shape = self.entry(leaf, layer)
        array = self.arrays[name]
        if leaf in _HALF:
            array = array[_HALF[leaf]]
        if leaf in ("q_SxNxHxD", "k_SxKxHxD", "v_SxKxHxD"):
            return array.transpose([0, 2, 1])
        if leaf in ("gate_SxDxF", "up_SxDxF") and shape[1] == self.spec.hidden:
            return array.transpose([1, 0])
        return array

    def table(self, name: str) -> Any:
        return self.arrays[name]


def read(path: Path) -> dict[str, Any]:
    """Every array below ``path`` by its nested name, opened but not read.

    Raises:
      UserError: no checkpoint there, a damaged one, or a bucket that refuses.
    """
    return _nested(_open_arrays(str(path)))


def _open_arrays(path: str) -> dict[str, Any]:
    """Every array below ``path`` by its stored name, opened but not read."""
    import tensorstore as ts

    context = ts.Context(
        {
            "cache_pool": {"total_bytes_limit": _CACHE_BYTES},
            "gcs_request_retries": {"max_retries": _RETRIES},
        }
    )
    try:
        for base in (path, path.rstrip("/") + "/default"):
            store = _store(base, context)
            found = {m[1]: m[2] for key in _list(store, context) if (m := _ARRAY.match(key))}
            if found:
                opening = {
                    name: ts.open(
                        {
                            "driver": "zarr3" if kind == "zarr.json" else "zarr",
                            "kvstore": {**store, "path": store.get("path", "") + name + "/"},
                        },
                        open=True,
                        read=True,
                        context=context,
                    )
                    for name, kind in found.items()
                }
                return {name: future.result() for name, future in opening.items()}
    except ValueError as error:  # how tensorstore reports everything
        raise UserError(
            f"{path}: cannot be read ({str(error).splitlines()[0]:.200}). Check the path, the "
            "network and your credentials, or copy the directory to a local disk."
        ) from None
    if "://" in path:
        raise UserError(
            f"{path}: no Orbax checkpoint there; weights of other formats are read from a local "
            f"disk. Copy them: `gcloud storage cp -r {path} .`"
        )
    raise UserError(f"{path}: no Orbax checkpoint there (manifest.ocdbt, or a .zarray per tensor).")


_ARRAY = re.compile(r"(.+)/(\.zarray|zarr\.json)$")


def _store(base: str, context: Any) -> dict[str, Any]:
    """The key-value store that holds the arrays of a checkpoint."""
    import tensorstore as ts

    if "://" in base:
        scheme, _, rest = base.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme != "gs":
            raise UserError(f"{base}: expected a local path or gs://bucket/path.")
        directory = {"driver": "gcs", "bucket": bucket, "path": key.rstrip("/") + "/"}
    else:
        directory = {"driver": "file", "path": base.rstrip("/") + "/"}
    manifest = ts.KvStore.open(directory, context=context).result().read("manifest.ocdbt")
    if manifest.result().state == "value":
        return {"driver": "ocdbt", "base": directory}
    return directory


def _list(store: dict[str, Any], context: Any) -> list[str]:
    import tensorstore as ts

    keys = ts.KvStore.open(store, context=context).result().list().result()
    return [key.decode() for key in keys]


def _nested(stored: dict[str, Any]) -> dict[str, Any]:
    """The same arrays under their nested names; stacked ones cut into layers."""
    names = {name.replace(".", "/"): array for name, array in stored.items()}
    if any(name.startswith("params/") for name in names):
        names = {n[7:]: array for n, array in names.items() if n.startswith("params/")}
    names = {n.removeprefix("transformer/"): array for n, array in names.items()}
    names = {re.sub(r"(/mlp/\w+)/w$", r"\1", n): array for n, array in names.items()}
    pattern = re.compile(r"stacked_layers/attention_type_(\d+)/(.+)")
    period = 1 + max((int(m[1]) for n in names if (m := pattern.match(n))), default=0)
    arrays = {}
    for name, array in names.items():
        match = pattern.match(name)
        if match is None:
            arrays[name] = array
            continue
        for i in range(array.shape[0]):
            arrays[f"layer_{i * period + int(match[1])}/{match[2]}"] = array[i]
    return arrays
