"""On which modules PEFT puts adapters, by its own rules and what ``adapter_config.json`` says.

Tensors of other modules are left out when it loads an adapter.

The rules are those of ``check_target_module_exists`` in PEFT 0.21.2.
"""

import re
from collections.abc import Mapping
from typing import Any

KEYS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
_EVERY = "all-linear"
# What stands before ``layers`` in the versions of transformers, which rename on loading.
_BEFORE = ("", "model.", "model.language_model.", "language_model.model.", "language_model.")


def left_out(name: str, config: Mapping[str, Any]) -> str:
    """The key by which PEFT puts no adapter on the module, or ``""``.

    Args:
      name: as in ``model.layers.0.self_attn.q_proj``.
      config: of ``KEYS`` those that are set.
    """
    if _named(name, config.get("exclude_modules") or ()):
        return "exclude_modules"
    targets = config.get("target_modules") or _EVERY
    if targets != _EVERY and not _named(name, targets):
        return "target_modules"
    layers = config.get("layers_to_transform")
    if not layers or isinstance(targets, str) or name in targets:
        return ""
    wanted = layers if isinstance(layers, list) else [layers]
    return "" if _layer(name, config.get("layers_pattern")) in wanted else "layers_to_transform"


def _named(name: str, names: Any) -> bool:
    """By an expression that matches it whole, or a list of its last parts."""
    if isinstance(names, str):
        tail = name[name.index("layers.") :] if "layers." in name else name
        return any(_fits(names, one) for one in (name, *(before + tail for before in _BEFORE)))
    return any(name == one or name.endswith(f".{one}") for one in _listed(names))


def _layer(name: str, pattern: Any) -> int | None:
    patterns = [pattern] if isinstance(pattern, str) else _listed(pattern) or [r"[^.]*"]
    for one in patterns:
        for found in re.finditer(r"(?<=\.)(\d+)\.", name):
            if _fits(rf".*\.{one}\.", name[: found.start()]):
                return int(found[1])
    return None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _fits(expression: str, text: str) -> bool:
    try:
        return re.fullmatch(expression, text) is not None
    except re.error:
        return False
