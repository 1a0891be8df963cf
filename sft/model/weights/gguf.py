"""Weights as llama.cpp keeps them. Norms are stored as ``1 + w``; matrices may be quantised.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The header is read here because
``gguf.GGUFReader`` takes seconds over a Gemma vocabulary; values are dequantised by ``gguf``. As in
llama.cpp, tensors must lie one after the other in the order of the header, each on the alignment,
so that no damaged header can make one tensor of another's bytes.
"""

import dataclasses
import functools
import math
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np

from sft.errors import UserError
from sft.model.specs import Spec
from sft.model.weights import linear

MAGIC = b"GGUF"
NAMES = {
    "embed_VxD": "token_embd.weight",
    "final_norm_D": "output_norm.weight",
    "pre_attention_norm_SxD": "attn_norm.weight",
    "post_attention_norm_SxD": "post_attention_norm.weight",
    "pre_ffw_norm_SxD": "ffn_norm.weight",
    "post_ffw_norm_SxD": "post_ffw_norm.weight",
    "q_norm_SxH": "attn_q_norm.weight",
    "k_norm_SxH": "attn_k_norm.weight",
    "q_SxNxHxD": "attn_q.weight",
    "k_SxKxHxD": "attn_k.weight",
    "v_SxKxHxD": "attn_v.weight",
    "o_SxNxHxD": "attn_output.weight",
    "gate_SxDxF": "ffn_gate.weight",
    "up_SxDxF": "ffn_up.weight",
    "down_SxFxD": "ffn_down.weight",
}
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
            12: "d"}  # fmt: skip
_STRING, _ARRAY = 8, 9
_DEEPEST = 8  # arrays in arrays; no file of a model has any


@dataclasses.dataclass(frozen=True)
class Stored:
    """One tensor: shape (rows first), ggml type number and offset into the data."""

    shape: tuple[int, ...]
    type: int
    offset: int


@dataclasses.dataclass(frozen=True)
class File:
    """A mapped file: metadata by key, tensors by name, and where the data starts."""

    path: str
    metadata: dict[str, Any]
    tensors: dict[str, Stored]
    data: mmap.mmap
    start: int

    def bytes_of(self, name: str) -> np.ndarray:
        """The stored rows of a tensor: uint8, ``[rows, bytes of a row]``."""
        stored = self.tensors[name]
        rows, width = _rows(self.path, name, stored)
        start = self.start + stored.offset
        return np.frombuffer(self.data, np.uint8, rows * width, start).reshape(rows, width)

    def rows(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """Float32 values of some rows of a tensor."""
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize

        kind = GGMLQuantizationType(self.tensors[name].type)
        try:
            return dequantize(self.bytes_of(name)[rows], kind)
        except NotImplementedError:
            raise UserError(
                f"{self.path}: tensor {name} is quantised as {kind.name}, which cannot be read. "
                "Use a file of type F32, F16, BF16, Q8_0 or Q4_K_M."
            ) from None


class _Table:
    """A matrix whose rows are dequantised as they are sliced."""

    def __init__(self, file: File, name: str):
        self.file, self.name = file, name
        self.shape = file.tensors[name].shape

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        return self.file.rows(self.name, index[0])[:, index[1]]


class _Whole:
    """One layer's tensor, dequantised once, in our orientation."""

    def __init__(self, file: File, name: str, leaf: str, spec: Spec):
        self.file, self.name, self.leaf, self.spec = file, name, leaf, spec
        empty = np.broadcast_to(np.int8(0), file.tensors[name].shape)
        self.shape = linear.orient(leaf, empty, spec).shape

    @functools.cached_property
    def values(self) -> np.ndarray:
        stored = self.file.rows(self.name).reshape(self.file.tensors[self.name].shape)
        return linear.orient(self.leaf, stored - 1 if "norm" in self.leaf else stored, self.spec)

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        return self.values[index]


class Gguf:
    """A ``Source`` over one file."""

    ignored = r"^rope_freqs\.weight$"
    heads = ("output.weight",)

    def __init__(self, path: Path, file: File, spec: Spec):
        self.path = str(path)
        self.spec = spec
        self.file = file
        family, parts = (file.metadata.get(k) for k in ("general.architecture", "split.count"))
        if family != spec.family:
            raise UserError(
                f"{path}: general.architecture is {family!r:.50}, expected {spec.family!r} for "
                f"{spec.name}. Set config.model.name to the model these weights are of."
            )
        if type(parts) is int and parts > 1:
            raise UserError(
                f"{path}: one of {parts} parts. Join them: `llama-gguf-split --merge {path} "
                "WHOLE.gguf`."
            )
        self.shapes = {name: stored.shape for name, stored in self.file.tensors.items()}

    @property
    def stored(self) -> str:
        """The format, and the type of most weights, as llama.cpp calls it."""
        from gguf import GGMLQuantizationType, LlamaFileType

        try:
            name = LlamaFileType(self.file.metadata["general.file_type"]).name
        except (KeyError, ValueError):
            kinds = [stored.type for stored in self.file.tensors.values() if len(stored.shape) > 1]
            name = GGMLQuantizationType(max(kinds, key=kinds.count)).name
        return f"GGUF, {name.removeprefix('MOSTLY_').removeprefix('ALL_')}"

    def entry(self, leaf: str, layer: int | None) -> tuple[str, tuple[int, ...]]:
        prefix = "" if layer is None else f"blk.{layer}."
        return prefix + NAMES[leaf], linear.shape(leaf, self.spec)

    def tensor(self, leaf: str, layer: int | None) -> "_Table | _Whole":
        name = self.entry(leaf, layer)[0]
        if leaf == "embed_VxD":
            return self.table(name)
        return _Whole(self.file, name, leaf, self.spec)

    def table(self, name: str) -> _Table:
        return _Table(self.file, name)


def read(path: Path) -> File:
    """Header of a GGUF file, version 2 or 3.

    Raises:
      UserError: wrong magic, unknown version, damaged, or cut short.
    """
    with path.open("rb") as file:
        start = file.read(8)
        if start[:4] != MAGIC:
            raise UserError(f"{path}: starts with {start[:4]!r}, expected {MAGIC!r}: not GGUF.")
        version = int.from_bytes(start[4:], "little")
        if version not in (2, 3):
            raise UserError(f"{path}: GGUF version {version}, expected 2 or 3 (little-endian).")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        found = _read(str(path), data)
    except (struct.error, ArithmeticError, ValueError, TypeError, MemoryError) as error:
        raise UserError(
            f"{path}: damaged or cut short in its header ({str(error)[:200]}). Download it again."
        ) from None
    _check_places(found)
    return found


def _read(path: str, data: mmap.mmap) -> File:
    (tensor_count, key_count), at = struct.unpack_from("<2Q", data, 8), 24
    metadata = {}
    for _ in range(key_count):
        key, at = _string(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        metadata[key], at = _value(data, at + 4, kind)
    tensors = {}
    for _ in range(tensor_count):
        name, at = _string(data, at)
        (rank,) = struct.unpack_from("<I", data, at)
        if not 0 < rank <= 4 or name in tensors or not name.isprintable() or len(name) > 200:
            raise ValueError(f"tensor {name!r:.60} has {rank} dimensions, or is there twice")
        *shape, kind, offset = struct.unpack_from(f"<{rank}QIQ", data, at + 4)
        tensors[name] = Stored(tuple(reversed(shape)), kind, offset)
        at += 4 + 8 * rank + 12
    alignment = _alignment(metadata)
    return File(path, metadata, tensors, data, -(-at // alignment) * alignment)


def _alignment(metadata: dict[str, Any]) -> int:
    found = metadata.get("general.alignment", 32)
    if type(found) is not int or found < 1 or found & (found - 1):
        raise ValueError(f"general.alignment is {found!r:.50}, expected a power of two")
    return found


def _rows(path: str, name: str, stored: Stored) -> tuple[int, int]:
    """Number of rows of a tensor, and bytes of one."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(stored.type)]
    except (ValueError, KeyError):
        raise UserError(
            f"{path}: tensor {name} is of type {stored.type}, which gguf does not know. "
            "Use a file of type F32, F16, BF16, Q8_0 or Q4_K_M, or download it again."
        ) from None
    if stored.shape[-1] % block:
        raise UserError(
            f"{path}: tensor {name} has rows of {stored.shape[-1]}, not whole blocks of {block}: "
            "damaged. Download it again."
        )
    return math.prod(stored.shape[:-1]), stored.shape[-1] // block * size


def _check_places(file: File) -> None:
    """Every tensor begins where the one before it ends, and the last one ends in the file."""
    alignment, end = _alignment(file.metadata), 0
    for name, stored in file.tensors.items():
        if stored.offset != end:
            raise UserError(
                f"{file.path}: tensor {name} begins at byte {stored.offset} of the data, expected "
                f"{end}: damaged. Download it again."
            )
        last = stored.offset + math.prod(_rows(file.path, name, stored))
        if file.start + last > len(file.data):
            raise UserError(
                f"{file.path}: tensor {name} ends at byte {file.start + last}, the file at "
                f"{len(file.data)}: cut short. Download it again."
            )
        end = -(-last // alignment) * alignment


def _string(data: mmap.mmap, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    end = at + 8 + length
    if end > len(data):
        raise ValueError(f"a string ends at byte {end} of {len(data)}")
    return data[at + 8 : end].decode(), end


def _value(data: mmap.mmap, at: int, kind: int, depth: int = 0) -> tuple[Any, int]:
    if kind == _STRING:
        return _string(data, at)
    if depth > _DEEPEST:
        raise ValueError(f"arrays in arrays, {depth} deep")
    if kind == _ARRAY:
        kind, count = struct.unpack_from("<IQ", data, at)
        at += 12
        if kind in _SCALARS:
            layout = f"<{count}{_SCALARS[kind]}"
            return list(struct.unpack_from(layout, data, at)), at + struct.calcsize(layout)
        values = []
        for _ in range(count):
            value, at = _value(data, at, kind, depth + 1)
            values.append(value)
        return values, at
    if kind not in _SCALARS:
        raise ValueError(f"unknown value type {kind}")
    layout = "<" + _SCALARS[kind]
    return struct.unpack_from(layout, data, at)[0], at + struct.calcsize(layout)
