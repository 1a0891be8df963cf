"""Adapters as PEFT keeps them: ``adapter_model.safetensors`` and ``adapter_config.json``.

Ours are PEFT's already, one pair for each projection with the same scale, so the mapping is exact
and of the same rank: ``lora_A`` is ``A`` with its inputs joined, transposed, and so is ``lora_B``.
Those of Unsloth, Axolotl and TRL are PEFT's.

Where a model is published with an image tower (Gemma 3 from 4B up), the text model lies inside
``language_model``, and the tower has projections of the same names, which are left alone.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from sft.errors import UserError
from sft.model import lora
from sft.model.specs import Spec
from sft.model.weights import safetensors
from sft.types import Tree

FILE, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MODULES = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_PARTS = {"A": "lora_A.weight", "B": "lora_B.weight", "m": "lora_magnitude_vector"}
_NAME = re.compile(
    r"(?:base_model\.model\.)?(?:model\.|language_model\.)*layers\.(?P<layer>\d+)\."
    r"(?P<module>self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)\."
    r"(?P<part>lora_A|lora_B|lora_magnitude_vector)(?:\.default)?(?:\.weight)?"
)


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

    All layers must have the same projections adapted
    at one rank.

    Returns:
      Float32 ``{name: {"A", "B"}}``, with ``"m"`` for DoRA, and what the update is multiplied by.

    Raises:
      UserError: no adapters, damaged ones, those of another model, or of a kind that is not ours.
    """
    described = _read_config(folder / CONFIG)
    file = folder / FILE
    if not file.exists():
        raise UserError(f"{file}: no such file. Expected the directory of a PEFT adapter.")
    parts: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    names = {module: name for name, module in MODULES.items()}
    for key, values in safetensors.read(epath.Path(file)).items():
        found = _NAME.fullmatch(key)
        if not found:
            raise UserError(
                f"{file}: tensor {key} is no adapter of a projection of Gemma's layers. Adapters "
                "of embeddings, heads and image towers cannot be read."
            )
        part = {"lora_A": "A", "lora_B": "B"}.get(found["part"], "m")
        parts.setdefault((names[found["module"]], part), {})[int(found["layer"])] = values
    adapters: Tree = {}
    for (name, part), layers in sorted(parts.items(), key=lambda x: lora.NAMES.index(x[0][0])):
        adapters.setdefault(name, {})[part] = _stacked(file, name, part, layers, spec)
    for name, adapter in adapters.items():
        if not {"A", "B"} <= set(adapter) or adapter["A"].shape[-1] != described["r"]:
            raise UserError(
                f"{file}: {MODULES[name]} has no lora_A and lora_B of rank {described['r']}, "
                f"which {CONFIG} says. Save the adapter again."
            )
    scale = lora.scaling(described["r"], described["lora_alpha"], described["use_rslora"])
    return adapters, scale


def start(config: ConfigDict, spec: Spec) -> Tree:
    """The adapters of ``config.lora.start``, which a run goes on with instead of new ones.

    Raises:
      UserError: as ``read``, or the configuration describes others; says what to set.
    """
    folder = Path(config.lora.start).expanduser()
    adapters, scale = read(folder, spec)
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
        told = _read_config(folder / CONFIG)
        raise UserError(
            f"config.lora.start = {folder}: its update is multiplied by {scale:g}, ours by "
            f"{ours:g}. Set config.lora.alpha = {told['lora_alpha']:g} and config.lora.rslora = "
            f"{told['use_rslora']}."
        )
    return adapters


def _stacked(
    file: Path, name: str, part: str, layers: dict[int, np.ndarray], spec: Spec
) -> np.ndarray:
    """All layers of one part, in our shape."""
    what = f"{MODULES[name]}.{_PARTS[part].removesuffix('.weight')}"
    if sorted(layers) != list(range(spec.num_layers)):
        raise UserError(
            f"{file}: {what} is in {len(layers)} layers, up to {max(layers)}; {spec.name} has "
            f"{spec.num_layers}. Adapters must be on every layer, and config.model.name right."
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


def _read_config(path: Path) -> dict[str, Any]:
    """What matters of ``adapter_config.json``, refused where it says what we do not do."""
    try:
        found = json.loads(path.read_text())
        rank, alpha = int(found["r"]), float(found["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error!r}). Expected the directory of a PEFT adapter."
        ) from None
    for key, wanted in (
        ("peft_type", "LORA"),
        ("bias", "none"),
        ("rank_pattern", {}),
        ("alpha_pattern", {}),
        ("modules_to_save", None),
        ("fan_in_fan_out", False),
    ):
        value = found.get(key, wanted)
        if value != wanted and value:
            raise UserError(
                f"{path}: {key} = {json.dumps(value)}: not read here, only "
                f"{json.dumps(wanted)}. Merge that adapter into its base model, and use the result."
            )
    return {"r": rank, "lora_alpha": alpha, "use_rslora": bool(found.get("use_rslora"))}
