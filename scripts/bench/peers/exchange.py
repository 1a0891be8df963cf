"""What the programs are given: the same tokenised examples and the same bf16 weights, as files.

examples.npz          tokens int32, is_target bool, offsets: every example, in training order
hf/config.json        Gemma 3 as Hugging Face describes it
hf/model.safetensors  the weights in bfloat16
source.json           what they were made from; other sources make them anew
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from sft.model.specs import Spec
from sft.types import Tree

ORDER_SEED = 0


def build(directory: Path, data: Path, spec: Spec, weights: str) -> None:
    """Writes the exchange files, unless the same ones are there."""
    digest = hashlib.sha256(data.read_bytes()).hexdigest()
    source = {"data": digest, "model": spec.name, "weights": weights, "order_seed": ORDER_SEED}
    done = directory / "source.json"
    if done.exists() and json.loads(done.read_text()) == source:
        return
    (directory / "hf").mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    write_examples(directory / "examples.npz", data, spec, weights)
    write_model(directory / "hf", spec, weights)
    done.write_text(json.dumps(source))


def write_examples(path: Path, data: Path, spec: Spec, weights: str) -> None:
    """Tokenises a JSONL file with our own chat format, in a fixed random order."""
    from sft.data import chat, records, tokenizer
    from sft.model.weights import resolve

    vocabulary = tokenizer.from_gguf(str(resolve(weights)))
    conversations = records.read([records.Source("", str(data))]).conversations
    order = np.random.default_rng(ORDER_SEED).permutation(len(conversations))
    examples = [chat.encode(conversations[i], vocabulary, spec.family) for i in order]
    np.savez(
        path,
        tokens=np.concatenate([e.tokens for e in examples]),
        is_target=np.concatenate([e.is_target for e in examples]),
        offsets=np.cumsum([0] + [len(e.tokens) for e in examples]),
    )


def write_model(directory: Path, spec: Spec, weights: str, dtype: str = "bfloat16") -> None:
    """A Hugging Face model directory with the weights in ``dtype``."""
    import jax
    from safetensors.numpy import save_file

    from sft.model.weights import load

    params = jax.device_get(load(spec, weights, dtype=dtype))
    save_file(to_hf(params), directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(hf_config(spec), indent=2))


def to_hf(params: Tree) -> dict[str, np.ndarray]:
    """Our stacked tree under Hugging Face's names and shapes (``[out, in]`` per projection)."""
    layers, tensors = params["layers"], {}
    norms = {
        "input_layernorm": "pre_attention_norm_SxD",
        "post_attention_layernorm": "post_attention_norm_SxD",
        "pre_feedforward_layernorm": "pre_ffw_norm_SxD",
        "post_feedforward_layernorm": "post_ffw_norm_SxD",
        "self_attn.q_norm": "q_norm_SxH",
        "self_attn.k_norm": "k_norm_SxH",
    }
    for i in range(len(layers["gate_SxDxF"])):
        prefix = f"model.layers.{i}."
        for theirs, ours in norms.items():
            tensors[f"{prefix}{theirs}.weight"] = layers[ours][i]
        for letter in "qkv":
            w_DxNxH = layers[f"{letter}_SxDx{'N' if letter == 'q' else 'K'}xH"][i]
            tensors[f"{prefix}self_attn.{letter}_proj.weight"] = w_DxNxH.reshape(len(w_DxNxH), -1).T
        o_NxHxD = layers["o_SxNxHxD"][i]
        tensors[f"{prefix}self_attn.o_proj.weight"] = o_NxHxD.reshape(-1, o_NxHxD.shape[-1]).T
        for theirs, ours in (("gate", "gate_SxDxF"), ("up", "up_SxDxF"), ("down", "down_SxFxD")):
            tensors[f"{prefix}mlp.{theirs}_proj.weight"] = layers[ours][i].T
    tensors["model.embed_tokens.weight"] = params["embed_VxD"]
    tensors["model.norm.weight"] = params["final_norm_D"]
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def hf_config(spec: Spec) -> dict:
    """``config.json`` of a text-only Gemma 3."""
    kinds = [kind.window is not None for kind in spec.layers]
    local = next(kind for kind in spec.layers if kind.window is not None)
    whole = next(kind for kind in spec.layers if kind.window is None)
    scaled = {"rope_type": "default"}
    if whole.rope_scale != 1:
        scaled = {"rope_type": "linear", "factor": whole.rope_scale}
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "dtype": "bfloat16",
        "hidden_size": spec.embed,
        "intermediate_size": spec.hidden,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "vocab_size": spec.vocab,
        "query_pre_attn_scalar": round(spec.query_scale**-2),
        "sliding_window": local.window,
        "layer_types": ["sliding_attention" if k else "full_attention" for k in kinds],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": local.rope_base},
            "full_attention": scaled | {"rope_theta": whole.rope_base},
        },
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "use_cache": False,
    }
