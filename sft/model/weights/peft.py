"""Adapters as PEFT keeps them: ``adapter_model.safetensors`` and ``adapter_config.json``.

Ours are PEFT's already, one pair for each projection with the same scale, so the mapping is exact
and of the same rank: ``lora_A`` is ``A`` with its inputs joined, transposed, and so is ``lora_B``.
Those of Unsloth, Axolotl and TRL are PEFT's.

Where a model is published with an image tower (Gemma 3 from 4B up), the text model lies inside
``language_model``, and the tower has projections of the same names, which are left alone.
"""

import dataclasses
import re
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sft.errors import UserError
from sft.model import lora, weights
from sft.model.specs import Spec
from sft.model.targets import MODULES
from sft.model.weights import peft_config, places, safetensors
from sft.types import Tree

FILE, CONFIG = "adapter_model.safetensors", peft_config.FILE
_PARTS = {"A": "lora_A.weight", "B": "lora_B.weight", "m": "lora_magnitude_vector"}
_NAME = re.compile(
    r"(?P<path>(?:model\.|language_model\.)*layers\.(?P<layer>0|[1-9][0-9]{0,3})\."
    r"(?P<module>self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj))\."
    r"(?P<part>lora_A|lora_B|lora_magnitude_vector)(?:\.(?P<adapter>(?!weight$)[^.]+))?(?:\.weight)?"
)
_PREFIX = re.compile(r"^(base_model\.model\.)+")
_HEAD = re.compile(r"(^|\.)(embed_tokens|lm_head)\.")
Layers = dict[int, np.ndarray]  # one part of one projection


def tensors(adapters: Tree, spec: Spec) -> dict[str, np.ndarray]:
    """Float32, by PEFT's names: ``lora_A`` is ``[R, in]``, ``lora_B`` is ``[out, R]``."""
    inside = "language_model." if spec.has_images else ""
    found = {}
    for name, adapter in adapters.items():
        for part, stacked in adapter.items():
            for layer, values in enumerate(np.asarray(stacked, np.float32)):
                key = f"base_model.model.model.{inside}layers.{layer}.{MODULES[name]}"
                found[f"{key}.{_PARTS[part]}"] = np.ascontiguousarray(flat(part, values))
    return found


def flat(part: str, values: np.ndarray) -> np.ndarray:
    """One layer's part as it is stored: ``A`` as ``[R, in]``, ``B`` as ``[out, R]``, ``m``."""
    if part == "A":
        return values.reshape(-1, values.shape[-1]).T
    return values.reshape(len(values), -1).T if part == "B" else values.reshape(-1)


def read(folder: Path, spec: Spec) -> tuple[Tree, float]:
    """Adapters of PEFT as ours, and their scale.

    All layers must have the same projections adapted at one rank.

    Returns:
      Float32 ``{name: {"A", "B"}}``, with ``"m"`` for DoRA, and what the update is multiplied by.

    Raises:
      UserError: no adapters, damaged ones, those of another model, or of a kind that is not ours.
    """
    found, described = _read(folder, spec)
    return found, lora.scaling(described.rank, described.alpha, described.rslora)


def _read(folder: Path, spec: Spec) -> tuple[Tree, peft_config.Described]:
    """The adapters, and what is said of them, with the rank and alpha that they all have."""
    described = peft_config.read(folder / CONFIG, spec)
    file = folder / FILE
    parts, modules = _parts(file)
    described.check_injected(modules)
    rank, alpha = described.of(modules)
    adapters: Tree = {}
    for (name, part), layers in sorted(parts.items(), key=lambda x: lora.NAMES.index(x[0][0])):
        adapters.setdefault(name, {})[part] = _stacked(file, name, part, layers, spec)
    for name, adapter in adapters.items():
        if not {"A", "B"} <= set(adapter) or {
            adapter["A"].shape[-1],
            adapter["B"].shape[1],
        } != {rank}:
            raise UserError(
                f"{file}: {MODULES[name]} has no lora_A and lora_B of rank {rank}, "
                f"which {CONFIG} says. Save the adapter again."
            )
        if ("m" in adapter) != described.dora:
            has = "has a magnitude" if "m" in adapter else "has no magnitude"
            raise UserError(
                f"{file}: {MODULES[name]} {has}, and {CONFIG} says use_dora = "
                f"{str(described.dora).lower()}. One of the two is of another adapter: save it "
                "again with PEFT's save_pretrained."
            )
    return adapters, dataclasses.replace(described, rank=rank, alpha=alpha)


def _parts(file: Path) -> tuple[dict[tuple[str, str], Layers], list[str]]:
    """The tensors of a file by projection and part, and the modules as PEFT names them."""
    if not file.exists():
        raise UserError(f"{file}: no such file. {_instead(file.parent)}")
    names = {module: name for name, module in MODULES.items()}
    parts: dict[tuple[str, str], Layers] = {}
    modules, called = [], set()
    for key, values in safetensors.read_all([file]).items():
        found = _NAME.fullmatch(_PREFIX.sub("", key))
        if not found:
            raise _unknown(file, key)
        _check_values(file, key, values)
        part = {"lora_A": "A", "lora_B": "B"}.get(found["part"], "m")
        layers = parts.setdefault((names[found["module"]], part), {})
        if int(found["layer"]) in layers:
            raise UserError(f"{file}: tensor {key} is there under another name too. {_SAVE}")
        layers[int(found["layer"])] = values
        modules.append(found["path"])
        called.add(found["adapter"] or "default")
    if len(called) > 1:
        raise UserError(
            f"{file}: adapters of {len(called)} names ({', '.join(sorted(called))}). Save the one "
            "that is meant: `model.save_pretrained(DIR, selected_adapters=[NAME])`."
        )
    if not parts:
        raise UserError(f"{file}: no adapters in it. {_SAVE}")
    return parts, modules


_SAVE = "Save the adapter again with PEFT's save_pretrained."


def _instead(folder: Path) -> str:
    """What to do where the file of an adapter is not in its folder."""
    if (folder / "adapter_model.bin").exists():
        return (
            "adapter_model.bin is not read: save the adapter again as safetensors, "
            "`model.save_pretrained(DIR, safe_serialization=True)` in PEFT."
        )
    return "Expected the directory of a PEFT adapter."


def _unknown(file: Path, key: str) -> UserError:
    """Of a tensor that is not part of an adapter as it is read here."""
    if _HEAD.search(key):
        return peft_config.refuse_head(f"{file}: tensor {key}")
    if ".base_layer." in key:
        return UserError(f"{file}: tensor {key} is of the base model, not of an adapter. {_SAVE}")
    return UserError(
        f"{file}: tensor {key} is no adapter of a projection of Gemma's layers. Adapters of image "
        "towers and other modules cannot be read."
    )


def _check_values(file: Path, key: str, values: np.ndarray) -> None:
    if 0 in values.shape:
        raise UserError(
            f"{file}: tensor {key} is empty, shape {values.shape}: it was saved without gathering "
            "its shards, as under DeepSpeed's ZeRO-3. Save the adapter again from inside "
            "deepspeed.zero.GatheredParameters, or with stage3_gather_16bit_weights_on_model_save."
        )
    if not np.isfinite(values).all():
        raise UserError(
            f"{file}: tensor {key} holds NaN or infinity: the training that made it went wrong, or "
            "the file is damaged. Use an earlier checkpoint."
        )


def start(config: ConfigDict, spec: Spec) -> Tree:
    """The adapters of ``config.lora.start``, which a run goes on with instead of new ones.

    Raises:
      UserError: as ``read``, or the configuration describes others; says what to set.
    """
    folder = weights.resolve(config.lora.start, setting="config.lora.start")
    if places.is_remote(folder):
        raise UserError(
            f"config.lora.start = {folder}: adapters are read from a local disk. Copy them: "
            f"`gcloud storage cp -r {folder} .`"
        )
    adapters, described = _read(folder, spec)
    scale = lora.scaling(described.rank, described.alpha, described.rslora)
    wanted = lora.match(config.lora.targets)
    if set(adapters) != set(wanted):
        raise UserError(
            f"config.lora.start = {folder}: it has adapters of {', '.join(adapters)}, and "
            f"config.lora.targets matches {', '.join(wanted)}. Set it to {'|'.join(adapters)!r}."
        )
    one = next(iter(adapters.values()))
    for key, there in (("rank", one["A"].shape[-1]), ("dora", "m" in one)):
        if config.lora[key] != there:
            raise UserError(
                f"config.lora.start = {folder}: set config.lora.{key} = {there}, as it is there."
            )
    ours = lora.scaling(config.lora.rank, config.lora.alpha, config.lora.rslora)
    if abs(ours - scale) > 1e-6 * scale:
        raise UserError(
            f"config.lora.start = {folder}: its update is multiplied by {scale:g}, ours by "
            f"{ours:g}. Set config.lora.alpha = {_exact(described.alpha)} and config.lora.rslora = "
            f"{described.rslora}."
        )
    return adapters


def _exact(value: float) -> str:
    """As short as it can be read back from."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _stacked(
    file: Path, name: str, part: str, layers: dict[int, np.ndarray], spec: Spec
) -> np.ndarray:
    """All layers of one part, in our shape."""
    what = f"{MODULES[name]}.{_PARTS[part].removesuffix('.weight')}"
    if sorted(layers) != list(range(spec.num_layers)):
        raise UserError(
            f"{file}: {what} is in {len(layers)} layers, up to {max(layers)}; {spec.name} has "
            f"{spec.num_layers}. Adapters must be on every layer: where they are of another "
            "model, set config.model.name; where they are on some layers alone, merge them in PEFT "
            "(merge_and_unload)."
        )
    sizes = sorted({values.shape for values in layers.values()})
    if len(sizes) > 1:
        raise UserError(
            f"{file}: {what} has other shapes in other layers: {', '.join(map(str, sizes))}. Only "
            "adapters of one rank can be read."
        )
    inputs, outputs = lora.shapes(spec)[name]
    stacked = np.stack([layers[layer] for layer in range(spec.num_layers)]).astype(np.float32)
    width = int(np.prod(inputs if part == "A" else outputs))
    axis = 2 if part == "A" else 1
    if stacked.ndim != (2 if part == "m" else 3) or stacked.shape[axis] != width:
        raise UserError(
            f"{file}: {what} has shape {stacked.shape[1:]}, and {spec.name} needs {width} "
            f"{'inputs' if part == 'A' else 'outputs'}: an adapter of another model. Set "
            "config.model.name to its base model's."
        )
    if part == "m":
        return stacked.reshape(-1, *outputs)
    turned = stacked.transpose(0, 2, 1)
    return turned.reshape(
        (len(turned), *inputs, turned.shape[-1]) if part == "A" else (*turned.shape[:2], *outputs)
    )
