"""Weights as Hugging Face publishes them: one ``.safetensors`` file, or several with an index.

Format: 8 bytes little-endian header length, JSON header, data
(https://github.com/huggingface/safetensors#format). The header is checked by the library of the
format: every tensor lies inside the file, has the bytes of its shape and overlaps no other. Values
are read through ``mmap``: slicing a leaf touches only the pages it needs.
"""

import json
import mmap
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

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
PREFIXES = ("model.", "model.language_model.", "language_model.model.", "language_model.", "")
# What PyTorch puts around modules that are compiled, sharded or run again in the backward pass.
WRAPPERS = re.compile(
    r"^module\.|\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
IGNORED = r"(^|\.)(vision_tower|multi_modal_projector)\.|\.inv_freq$"
LFS = b"version https://git-lfs"  # how a file starts that Git has not fetched
_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


class Safetensors:
    """A ``Source`` over the tensors of one or several files.

    Args:
      path: for messages.
      arrays: see ``read_all``.
    """

    ignored = IGNORED
    heads = ("lm_head.weight", "language_model.lm_head.weight")

    def __init__(self, path: Path, arrays: dict[str, np.ndarray], spec: Spec):
        self.path = str(path)
        self.spec = spec
        self.arrays = arrays
        self.shapes = {name: array.shape for name, array in self.arrays.items()}
        prefixes = [p for p in PREFIXES if p + NAMES["embed_VxD"] in self.arrays]
        adapted = next((n for n in arrays if ".lora_" in n or ".base_layer." in n), None)
        if adapted:
            raise UserError(
                f"{path}: {adapted} is of a model with PEFT's adapters inside. Merge them, "
                "`model.merge_and_unload().save_pretrained(DIR)`, and give DIR."
            )
        if not prefixes:
            raise UserError(
                f"{path}: no tensor {NAMES['embed_VxD']} under any of {PREFIXES}; not the weights "
                "of a Gemma 2 or 3 model."
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


def read_all(files: Sequence[Path]) -> dict[str, np.ndarray]:
    """The tensors of all files together, by their names without what PyTorch wraps modules in.

    Raises:
      UserError: see ``read``; or two files, or two wrapped names, have the same tensor.
    """
    found: dict[str, np.ndarray] = {}
    places: dict[str, str] = {}
    for file in files:
        for stored, array in read(file).items():
            name = WRAPPERS.sub("", stored)
            if name in found:
                raise UserError(
                    f"{file}: tensor {stored} is also in {places[name]}: these are two sets of "
                    "tensors. Give the file that is meant, or move the others out of the folder."
                )
            found[name], places[name] = array, file.name
    return found


def read(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of one file as a read-only view of the mapped file.

    Tensors that are not the text model's are left out where their type is not one of weights.

    Raises:
      UserError: not a safetensors file, damaged, or of a type other than F32, F16, BF16.
    """
    length = _check(path)
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    wrong = next((name for name in header if not name.isprintable() or len(name) > 500), None)
    if wrong is not None:
        raise UserError(f"{path}: damaged header (a tensor {wrong!r:.60}). Download it again.")
    return {
        name: _view(path, name, entry, data, 8 + length)
        for name, entry in header.items()
        if entry["dtype"] in _DTYPES or not re.search(IGNORED, name)
    }


def _check(path: Path) -> int:
    """The length of the header, which is whole and fits the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            start, size = file.read(len(LFS)), file.seek(0, 2)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    if start == LFS:
        raise UserError(lfs_pointer(path))
    length = int.from_bytes(start[:8], "little")
    if not 0 < length <= size - 8:
        raise UserError(f"{path}: not a safetensors file, or cut short. Download it again.")
    try:
        with safe_open(path, framework="np"):
            return length
    except SafetensorError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: damaged header, or cut short ({reason}). Download it again."
        ) from None


def lfs_pointer(path: Path) -> str:
    return f"{path}: a Git LFS pointer, not the file. Run `git lfs pull` in its repository."


def _view(path: Path, name: str, entry: dict, data: mmap.mmap, start: int) -> np.ndarray:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise UserError(
            f"{path}: tensor {name} is {entry['dtype']}, expected one of {tuple(_DTYPES)}. Use "
            "weights that are not quantised."
        )
    first, last = entry["data_offsets"]
    count = (last - first) // np.dtype(dtype).itemsize
    return np.frombuffer(data, dtype, count, offset=start + first).reshape(entry["shape"])
