"""``config.json`` of Hugging Face: what it says of the model, in the words of Transformers 4 and 5.

What a file leaves out has the default of Transformers' ``Gemma2Config`` and ``Gemma3TextConfig``,
as the published text models inside image models need.
"""

import json
from pathlib import Path
from typing import Any

from sft.errors import UserError
from sft.model.specs import Spec

FILE = "config.json"
_TEXT, _WITH_IMAGES = {"gemma2": "gemma2", "gemma3_text": "gemma3"}, "gemma3"
_SIZES = {
    "num_hidden_layers": 26,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "use_bidirectional_attention": False,
}
_CAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}  # of Gemma 2
_PERIOD = {"gemma2": 2, "gemma3": 6}  # layers of which the last one sees everything
_FULL, _SLIDING = "full_attention", "sliding_attention"


def read(file: Path) -> dict[str, Any]:
    """What is said of the text model, defaults filled in; nothing where it is not such a file.

    ``layer_types`` is a letter for each layer, f(ull) or s(liding); ``rope_scaling`` is ``None``
    or, as in ``"linear 8"``, its kind and factor.

    Raises:
      UserError: not JSON, of another architecture than Gemma 2 and 3, or of quantised weights.
    """
    raw = _object(file)
    kind = raw.get("model_type")
    if kind is None:
        return {}
    if raw.get("quantization_config"):
        raise UserError(
            f"{file}: quantization_config says that the weights are quantised. Use weights that "
            "are not."
        )
    text = raw.get("text_config") if kind == _WITH_IMAGES else raw
    if not isinstance(text, dict) or kind not in (*_TEXT, _WITH_IMAGES):
        raise UserError(
            f"{file}: model_type is {kind!r:.50}, expected {', '.join(_TEXT)}, or {_WITH_IMAGES} "
            "with a text_config: not a Gemma 2 or 3 model."
        )
    family = _TEXT.get(kind, "gemma3")
    defaults = _SIZES | (_CAPS if family == "gemma2" else {})
    found = {key: text.get(key, default) for key, default in defaults.items()}
    for key in ("use_bidirectional_attention", "hidden_activation"):  # null is the default too
        found[key] = defaults[key] if found[key] is None else found[key]
    return {"model_type": family} | found | _layers(text, family, found) | _rope(text, family)


def expected(spec: Spec) -> dict[str, Any]:
    """What ``read`` finds for a model of the table."""
    whole = next(kind for kind in spec.pattern if kind.window is None)
    local = next(kind for kind in spec.pattern if kind.window)
    return {
        "model_type": spec.family,
        "num_hidden_layers": spec.num_layers,
        "hidden_size": spec.embed,
        "intermediate_size": spec.hidden,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "query_pre_attn_scalar": round(spec.query_scale**-2),
        "sliding_window": local.window,
        "attn_logit_softcapping": spec.attn_softcap,
        "final_logit_softcapping": spec.final_softcap,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "use_bidirectional_attention": False,
        "layer_types": "".join("s" if kind.window else "f" for kind in spec.layers),
        "rope_theta": whole.rope_base,
        "rope_scaling": _scaling("linear", whole.rope_scale),
        "rope_local_base_freq": local.rope_base,
        "local_rope_scaling": _scaling("linear", local.rope_scale),
    }


def _object(file: Path) -> dict[str, Any]:
    try:
        raw = json.loads(file.read_text())
        if isinstance(raw, dict):
            return raw
        reason = f"a {type(raw).__name__}"
    except (OSError, ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:150]
    raise UserError(f"{file}: expected a JSON object ({reason}). Download it again.")


def _layers(text: dict, family: str, found: dict) -> dict[str, Any]:
    kinds, count = text.get("layer_types"), found["num_hidden_layers"]
    if isinstance(kinds, list):
        letters = {_FULL: "f", _SLIDING: "s"}
        return {"layer_types": "".join(letters.get(str(kind), "?") for kind in kinds)}
    period = text.get("sliding_window_pattern", text.get("_sliding_window_pattern"))
    period = _PERIOD[family] if period is None else period
    if type(period) is not int or type(count) is not int or not (period > 0 and 0 < count < 1000):
        return {"layer_types": f"every {period!r:.20}th of {count!r:.20}"}
    return {"layer_types": "".join("s" if (i + 1) % period else "f" for i in range(count))}


def _rope(text: dict, family: str) -> dict[str, Any]:
    """Of Transformers 5, ``rope_parameters``, for all layers or each kind; of 4, three keys."""
    new = text.get("rope_parameters")
    if isinstance(new, dict):
        nested = {kind: new[kind] for kind in (_FULL, _SLIDING) if isinstance(new.get(kind), dict)}
        whole, local = (nested.get(kind, {}) if nested else new for kind in (_FULL, _SLIDING))
    else:
        scaled = text.get("rope_scaling")
        scaled = scaled if isinstance(scaled, dict) else {"type": scaled} if scaled else {}
        whole = {"rope_theta": text.get("rope_theta")} | scaled
        local = {"rope_theta": text.get("rope_local_base_freq")}
        local = whole if family == "gemma2" else local
    theta = 1e6 if family == "gemma3" else 1e4
    return {
        "rope_theta": _given(whole, "rope_theta", theta),
        "rope_scaling": _scaling_of(whole),
        "rope_local_base_freq": _given(local, "rope_theta", 1e4),
        "local_rope_scaling": _scaling_of(local),
    }


def _given(values: dict, key: str, default: Any) -> Any:
    return default if values.get(key) is None else values[key]


def _scaling_of(rope: dict) -> str | None:
    kind = rope.get("rope_type", rope.get("type")) or "default"
    return None if kind == "default" else _scaling(kind, rope.get("factor"))


def _scaling(kind: Any, factor: Any) -> str | None:
    if factor == 1:
        return None
    return f"{kind} {factor:g}" if isinstance(factor, int | float) else f"{kind} {factor!r}"
