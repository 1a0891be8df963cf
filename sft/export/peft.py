"""Adapters for PEFT; how they are laid out is in ``sft.model.weights.peft``."""

import json
from pathlib import Path
from typing import Any

from sft.export.tuned import Tuned
from sft.model.weights.peft import CONFIG, FILE, MODULES, tensors


def write(tuned: Tuned, folder: Path, base: str) -> None:
    """Both files into ``folder``.

    Args:
      base: what the base model is called, on Hugging Face or on disk.
    """
    from safetensors.numpy import save_file

    save_file(tensors(tuned.adapters, tuned.spec), folder / FILE, {"format": "pt"})
    text = json.dumps(describe(tuned, base), indent=2)
    (folder / CONFIG).write_text(text + "\n")


def describe(tuned: Tuned, base: str) -> dict[str, Any]:
    """``adapter_config.json``."""
    config, names = tuned.config.lora, list(tuned.adapters)
    modules: Any = [MODULES[name].rpartition(".")[2] for name in names]
    if tuned.spec.has_images:
        modules = rf".*language_model.*\.({'|'.join(modules)})"
    alpha = int(config.alpha) if config.alpha == int(config.alpha) else config.alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": alpha,
        "use_rslora": config.rslora,
        "use_dora": tuned.has_magnitudes,
        "lora_dropout": config.dropout,
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": None,
    }
