"""Merged weights as Hugging Face keeps them: ``.safetensors`` files, their index, two JSON files.

Transformers, vLLM, Keras-Hub, LiteRT and llama.cpp's converter read such a directory.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sft.export.tuned import Tuned
from sft.model.specs import Spec
from sft.model.weights import linear
from sft.model.weights.safetensors import NAMES
from sft.model.weights.source import OTHER_ROWS

SHARD_BYTES = 5_000_000_000  # of a file, as the published ones


def write(tuned: Tuned, folder: Path, dtype: str) -> None:
    """Weights and configuration into ``folder``, which is empty.

    Args:
      dtype: ``float32``, ``bfloat16`` or ``float16``.
    """
    _write_weights(tensors(tuned, dtype), folder)
    described = describe(tuned.spec) | ids(tuned) | {"torch_dtype": dtype, "dtype": dtype}
    _write_json(folder / "config.json", described)
    write_generation(tuned, folder)


def write_generation(tuned: Tuned, folder: Path) -> None:
    """``generation_config.json``: answers are drawn and ended as the scores of the run were."""
    _write_json(folder / "generation_config.json", sampling(tuned.config) | ids(tuned))


def tensors(tuned: Tuned, dtype: str) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor by the name that Hugging Face gives it. The head is the embedding: none."""
    return named(tuned.leaves(dtype), tuned.spec)


def named(
    leaves: Iterable[tuple[str, int | None, np.ndarray]], spec: Spec
) -> Iterator[tuple[str, np.ndarray]]:
    """Our leaves (``layer`` is ``None`` where they are not stacked) by Hugging Face's names."""
    for leaf, layer, values in leaves:
        name = NAMES[leaf] if layer is None else f"layers.{layer}.{NAMES[leaf]}"
        if leaf == "embed_VxD":
            values = values[: rows(spec)]
        yield f"model.{name}", linear.store(leaf, values, spec)


def describe(spec: Spec) -> dict[str, Any]:
    """``config.json`` of a text model of this size, in the words that Transformers 4 and 5 read.

    Source: ``Gemma2Config`` and ``Gemma3TextConfig`` of Transformers.
    """
    names = {None: "full_attention"}
    described = {
        "vocab_size": rows(spec),
        "hidden_size": spec.embed,
        "intermediate_size": spec.hidden,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "query_pre_attn_scalar": round(spec.query_scale**-2),
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": spec.attn_softcap,
        "final_logit_softcapping": spec.final_softcap,
        "sliding_window": next(window for window in spec.windows if window),
        "layer_types": [names.get(kind.window, "sliding_attention") for kind in spec.layers],
        "max_position_embeddings": spec.positions,
        "tie_word_embeddings": True,
        "use_cache": True,
        "initializer_range": 0.02,
    }
    whole = next(kind for kind in spec.pattern if kind.window is None)
    if spec.family == "gemma2":
        more: dict[str, Any] = {
            "model_type": "gemma2",
            "architectures": ["Gemma2ForCausalLM"],
            "rope_theta": whole.rope_base,
        }
    else:
        scaled = {"rope_type": "linear", "factor": whole.rope_scale}
        more = {
            "model_type": "gemma3_text",
            "architectures": ["Gemma3ForCausalLM"],
            "sliding_window_pattern": len(spec.pattern),
            "rope_theta": whole.rope_base,
            "rope_local_base_freq": next(k for k in spec.pattern if k.window).rope_base,
            "rope_scaling": scaled if whole.rope_scale != 1 else None,
        }
    return more | described


def rows(spec: Spec) -> int:
    """Of the embedding, as published for text: without Gemma 2's padding, or rows for images."""
    return min(spec.vocab, OTHER_ROWS.get(spec.vocab, spec.vocab))


def sampling(config: ConfigDict) -> dict[str, Any]:
    """How answers are drawn, in the words of Transformers."""
    if not config.eval.temperature:
        return {"do_sample": False}
    return {
        "do_sample": True,
        "temperature": config.eval.temperature,
        "top_k": config.eval.top_k,  # 0 = all; without it, Transformers takes 50
        "top_p": config.eval.top_p,
    }


def ids(tuned: Tuned) -> dict[str, Any]:
    """What starts, ends and fills a sequence. Any of the ends ends it."""
    tokenizer = tuned.tokenizer
    return {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tuned.stops,
        "pad_token_id": tokenizer.pad_id,
    }


def _write_weights(
    named: Iterator[tuple[str, np.ndarray]], folder: Path, most: int = SHARD_BYTES
) -> None:
    """One file, or several of at most ``most`` bytes with an index, as published."""
    parts: list[Path] = []
    places: dict[str, int] = {}
    held: dict[str, np.ndarray] = {}
    total = 0
    for name, values in named:
        if held and sum(v.nbytes for v in held.values()) + values.nbytes > most:
            parts.append(_write_part(held, folder, len(parts)))
            held = {}
        held[name], places[name] = values, len(parts)
        total += values.nbytes
    parts.append(_write_part(held, folder, len(parts)))
    if len(parts) == 1:
        parts[0].rename(folder / "model.safetensors")
        return
    final = [f"model-{i + 1:05}-of-{len(parts):05}.safetensors" for i in range(len(parts))]
    for part, name in zip(parts, final, strict=True):
        part.rename(folder / name)
    index = {
        "metadata": {"total_size": total},
        "weight_map": {name: final[place] for name, place in places.items()},
    }
    _write_json(folder / "model.safetensors.index.json", index)


def _write_part(held: dict[str, np.ndarray], folder: Path, number: int) -> Path:
    from safetensors.numpy import save_file

    path = folder / f"part-{number}"
    # What is not contiguous would be written in another order than its shape says.
    whole = {name: np.ascontiguousarray(values) for name, values in held.items()}
    save_file(whole, path, {"format": "pt"})
    return path


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
