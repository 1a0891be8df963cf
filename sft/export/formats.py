"""The formats of ``sft export``, one entry each: how it is written, and how it is read back."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from sft.data.tokenizer.sentencepiece import from_gguf, gguf_metadata
from sft.errors import UserError
from sft.export import gguf, hub, official, peft, tokenizer, use, verify
from sft.export.tuned import Tuned
from sft.export.verify import Difference
from sft.model import weights
from sft.model.weights import gguf as reader
from sft.model.weights.peft import read as read_peft
from sft.types import Tree


@dataclasses.dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
      text: for messages and the card: what it is.
      write: ``(tuned, folder, dtype, base)`` fills an empty folder; ``base`` is the base model's
        name.
      check: ``(tuned, folder, dtype)`` reads it back: what was compared → how far it is apart.
      dtypes: of the weights, the first if none is asked for.
      library: that loads it, by its name on Hugging Face.
      use: how the card says it is used.
      carrier: what in it writes prompts as training did; ``""`` = nothing.
      needs_adapters: a run of full tuning has nothing for it.
      knows_dora: where it has adapters beside merged weights, DoRA's are among them.
    """

    text: str
    write: Callable[[Tuned, Path, str, str], None]
    check: Callable[[Tuned, Path, str], Mapping[str, Difference]]
    dtypes: tuple[str, ...]
    library: str
    use: use.Use
    carrier: str = ""
    needs_adapters: bool = False
    knows_dora: bool = True


def _write_peft(tuned: Tuned, folder: Path, dtype: str, base: str) -> None:
    del dtype
    peft.write(tuned, folder, base)
    hub.write_generation(tuned, folder)
    tokenizer.write(tuned.tokenizer, folder, tuned.spec.positions, tuned.chat_template)


def _check_peft(tuned: Tuned, folder: Path, dtype: str) -> dict[str, Difference]:
    verify.check_tokenizer(tuned.tokenizer, folder / "tokenizer.json")
    verify.check_chat(tuned, folder / "tokenizer.json")
    adapters, scale = read_peft(folder, tuned.spec)
    found = verify.differences(tuned, tuned.params, adapters, scale)
    verify.check(tuned, found, dtype, str(folder))
    return {"the adapters as read back, float32": found}


def _write_safetensors(tuned: Tuned, folder: Path, dtype: str, base: str) -> None:
    del base
    hub.write(tuned, folder, dtype)
    tokenizer.write(tuned.tokenizer, folder, tuned.spec.positions, tuned.chat_template)


def _check_safetensors(tuned: Tuned, folder: Path, dtype: str) -> dict[str, Difference]:
    verify.check_tokenizer(tuned.tokenizer, folder / "tokenizer.json")
    verify.check_chat(tuned, folder / "tokenizer.json")
    return _check_weights(tuned, folder, dtype)


def _check_weights(tuned: Tuned, path: Path, dtype: str) -> dict[str, Difference]:
    """Reads merged weights back: every one as it was written, and the logits of the whole."""
    params = weights.load(tuned.spec, str(path), dtype=dtype, shardings=tuned.shardings)
    for leaf, layer, values in tuned.leaves(dtype):
        found = params[leaf] if layer is None else params["layers"][leaf][layer]
        if not np.array_equal(np.asarray(found), values):
            where = leaf if layer is None else f"{leaf} of layer {layer}"
            raise UserError(f"{path}: {where}, read back, is not what was written. This is a bug.")
    return {f"the merged weights as read back, {dtype}": _apart(tuned, params, dtype, path)}


def _write_gguf(tuned: Tuned, folder: Path, dtype: str, base: str) -> None:
    del base
    gguf.write(tuned, folder, dtype)


def _check_gguf(tuned: Tuned, folder: Path, dtype: str) -> dict[str, Difference]:
    file = folder / gguf.MODEL
    params = weights.load(tuned.spec, str(file), dtype="float32", shardings=tuned.shardings)
    found = {f"the merged weights as read back, {dtype}": _apart(tuned, params, dtype, file)}
    again = from_gguf(str(file), tuned.spec.vocab)
    if any(again.encode(text) != tuned.tokenizer.encode(text) for text in verify.TEXTS):
        raise UserError(f"{file}: the tokenizer, read back, is another one. This is a bug.")
    if gguf_metadata(str(file)).get("tokenizer.chat_template") != tuned.chat_template:
        raise UserError(f"{file}: the chat template, read back, is another one. This is a bug.")
    if (adapter := folder / gguf.ADAPTER).exists():
        read = reader.read(adapter)
        for name, values in gguf.adapter_tensors(tuned.adapters).items():
            if not np.array_equal(read.rows(name), values):
                raise UserError(f"{adapter}: {name}, read back, is not what was written.")
    return found


def _write_orbax(tuned: Tuned, folder: Path, dtype: str, base: str) -> None:
    del base
    official.write(tuned, folder, dtype)


def _check_orbax(tuned: Tuned, folder: Path, dtype: str) -> dict[str, Difference]:
    if (place := folder / official.ADAPTERS).exists():
        wanted = official.adapters(tuned.adapters, tuned.spec, tuned.scale)
        with ocp.StandardCheckpointer() as checkpointer:
            found = checkpointer.restore(place.absolute(), wanted)
        if not jax.tree.all(jax.tree.map(np.array_equal, found, wanted)):
            raise UserError(f"{place}: read back, it is not what was written. This is a bug.")
    return _check_weights(tuned, folder / official.MERGED, dtype)


def _apart(tuned: Tuned, params: Tree, dtype: str, path: Path) -> Difference:
    found = verify.differences(tuned, params, {}, 1.0)
    verify.check(tuned, found, dtype, str(path))
    return found


FORMATS = {
    "peft": Format(
        "adapters for PEFT",
        _write_peft,
        _check_peft,
        ("float32",),
        "peft",
        use.of_peft,
        "The chat template of the tokenizer",
        needs_adapters=True,
    ),
    "safetensors": Format(
        "merged weights for Transformers, vLLM, Keras-Hub, LiteRT",
        _write_safetensors,
        _check_safetensors,
        ("bfloat16", "float32", "float16"),
        "transformers",
        use.of_safetensors,
        "The chat template of the tokenizer",
    ),
    "keras": Format(
        "merged weights for Keras-Hub, and through LiteRT's converter for devices",
        _write_safetensors,
        _check_safetensors,
        ("bfloat16", "float32"),
        "keras-hub",
        use.of_keras,
    ),
    "orbax": Format(
        "a checkpoint and adapters for the gemma package",
        _write_orbax,
        _check_orbax,
        ("bfloat16", "float32"),
        "gemma",
        use.of_orbax,
        knows_dora=False,
    ),
    "gguf": Format(
        "a model, adapters and a Modelfile for llama.cpp and Ollama",
        _write_gguf,
        _check_gguf,
        ("float16", "float32", "bfloat16", "q8_0"),
        "gguf",
        use.of_gguf,
        "The chat template in `model.gguf` (llama.cpp with `--jinja`) or the `Modelfile` (Ollama)",
        knows_dora=False,
    ),
}


def get(name: str) -> Format:
    """The format called ``name``.

    Raises:
      UserError: there is none; names those there are.
    """
    if name not in FORMATS:
        raise UserError(f"--format={name}: expected {', '.join(FORMATS)}, or several with commas.")
    return FORMATS[name]
