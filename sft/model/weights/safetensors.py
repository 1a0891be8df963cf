"""Weights as Hugging Face publishes them: one ``.safetensors`` file, or several with an index.

Format: 8 bytes little-endian header length, JSON header, data
(https://github.com/huggingface/safetensors#format). Read through ``mmap``: slicing a leaf touches
only the pages it needs.
"""

import json
import mmap
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from sft.errors import UserError
from sft.model.specs import Spec
from sft.model.weights import linear

NAMES = {
    "embed_VxD": "embed_tokens.weight",
    "final_norm_D": "norm.weight",
    "pre_attention_norm_SxD": "input_layernorm.weight",
    "post_attention_norm_SxD": "post_attention_layernorm.weight",
    "pre_ffw_norm_SxD": "pre_feedforward_layernorm.weight",
    "post_ffw_norm_SxD": "post_feedforward_layernorm.weight",
    "q_norm_SxH": "self_attn.q_norm.weight",
    "k_norm_SxH": "self_attn.k_norm.weight",
    "q_SxNxHxD": "self_attn.q_proj.weight",
    "k_SxKxHxD": "self_attn.k_proj.weight",
    "v_SxKxHxD": "self_attn.v_proj.weight",
    "o_SxNxHxD": "self_attn.o_proj.weight",
    "gate_SxDxF": "mlp.gate_proj.weight",
    "up_SxDxF": "mlp.up_proj.weight",
    "down_SxFxD": "mlp.down_proj.weight",
}
PREFIXES = ("model.", "model.language_model.", "language_model.model.")
_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


class Safetensors:
    """A ``Source`` over one file or a directory of files."""

    ignored = r"(^|\.)(vision_tower|multi_modal_projector)\.|\.inv_freq$"
    heads = ("lm_head.weight", "language_model.lm_head.weight")

    def __init__(self, path: epath.Path, spec: Spec):
        self.path = str(path)
        self.spec = spec
        self.arrays: dict[str, np.ndarray] = {}
        for file in _files(path):
            self.arrays |= read(file)
        self.shapes = {name: array.shape for name, array in self.arrays.items()}
        prefixes = [p for p in PREFIXES if p + NAMES["embed_VxD"] in self.arrays]
        if not prefixes:
            raise UserError(
                f"{path}: no tensor {NAMES['embed_VxD']} under any of {PREFIXES}; not the weights "
                "of a Gemma 2 or 3 model. Adapters alone are not weights: name the base model's."
            )
        self.prefix = prefixes[0]

    @property
    def stored(self) -> str:
        """The format and the types of the weights."""
        return f"safetensors, {' and '.join(sorted({a.dtype.name for a in self.arrays.values()}))}"

    def entry(self, leaf: str, layer: int | None) -> tuple[str, tuple[int, ...]]:
        middle = "" if layer is None else f"layers.{layer}."
        return f"{self.prefix}{middle}{NAMES[leaf]}", linear.shape(leaf, self.spec)

    def tensor(self, leaf: str, layer: int | None) -> np.ndarray:
        return linear.orient(leaf, self.arrays[self.entry(leaf, layer)[0]], self.spec)

    def table(self, name: str) -> np.ndarray:
        return self.arrays[name]


def _files(path: epath.Path) -> list[epath.Path]:
    """The files of a checkpoint, by its index where it has one."""
    if not path.is_dir():
        return [path]
    index = path / "model.safetensors.index.json"
    if not index.exists():
        return sorted(path.glob("*.safetensors"))
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{index}: expected JSON with a 'weight_map' ({error!r}). Download it again."
        ) from None
    for name in names:
        if not (path / name).exists():
            raise UserError(f"{path / name}: missing, and {index.name} needs it. Download it.")
    return [path / name for name in names]


def read(path: epath.Path) -> dict[str, np.ndarray]:
    """Every tensor of one file as a read-only view of the mapped file.

    Raises:
      UserError: not a safetensors file, cut short, or of a type other than F32, F16, BF16.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= size - 8:
            raise UserError(f"{path}: not a safetensors file, or cut short. Download it again.")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        header: dict[str, Any] = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if end > size:
            raise UserError(f"{path}: {size} bytes, expected {end}: cut short. Download it again.")
        return {n: _view(path, n, entry, data, 8 + length) for n, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: damaged header ({reason}). Download it again.") from None


def _view(path: epath.Path, name: str, entry: dict, data: mmap.mmap, start: int) -> np.ndarray:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise UserError(
            f"{path}: tensor {name} is {entry['dtype']}, expected one of {tuple(_DTYPES)}. Use "
            "weights that are not quantised."
        )
    first, last = entry["data_offsets"]
    count = (last - first) // np.dtype(dtype).itemsize
    return np.frombuffer(data, dtype, count, offset=start + first).reshape(entry["shape"])
