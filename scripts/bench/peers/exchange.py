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
    from sft.data.chat import encoding
    from sft.data.read import records
    from sft.data.tokenizer import sentencepiece
    from sft.model.weights import resolve

    vocabulary = sentencepiece.from_gguf(str(resolve(weights)))
    conversations = records.read([records.Source("", str(data))]).conversations
    order = np.random.default_rng(ORDER_SEED).permutation(len(conversations))
    examples = [encoding.encode(conversations[i], vocabulary, spec.family) for i in order]
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
    save_file(to_hf(params, spec), directory / "model.safetensors", metadata={"format": "pt"})
    write_config(directory, spec, dtype)


def write_config(directory: Path, spec: Spec, dtype: str = "bfloat16") -> None:
    """``config.json``, of a model to be trained."""
    from sft.export import hub

    described = hub.describe(spec) | {"dtype": dtype, "use_cache": False}
    (directory / "config.json").write_text(json.dumps(described, indent=2))


def to_hf(params: Tree, spec: Spec) -> dict[str, np.ndarray]:
    """Our stacked tree under Hugging Face's names and shapes (``[out, in]`` per projection)."""
    from sft.export import hub

    leaves = [(leaf, None, params[leaf]) for leaf in ("embed_VxD", "final_norm_D")]
    for leaf, stacked in params["layers"].items():
        leaves += [(leaf, layer, values) for layer, values in enumerate(stacked)]
    return {name: np.ascontiguousarray(values) for name, values in hub.named(leaves, spec)}
