"""One file for llama.cpp, another with the adapters alone, and Ollama's ``Modelfile``.

Keys and tensor names as llama.cpp's ``convert_hf_to_gguf.py`` and ``convert_lora_to_gguf.py`` write
them. Norms are stored as ``1 + w`` and always in float32. Smaller types than q8_0 are made of these
files by llama.cpp itself: ``llama-quantize model.gguf model-Q4_K_M.gguf Q4_K_M``.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sft.data.tokenizer.sentencepiece import CONTROL, UNUSED, USER_DEFINED, Tokenizer
from sft.errors import UserError
from sft.export import hub, modelfile
from sft.export.tokenizer import SPACE
from sft.export.tuned import Tuned, check_held
from sft.model import lora
from sft.model.specs import Spec
from sft.model.weights import linear, peft
from sft.model.weights.gguf import NAMES
from sft.types import Tree

if TYPE_CHECKING:
    from gguf import GGUFWriter

MODEL, ADAPTER, MODELFILE = "model.gguf", "adapter.gguf", "Modelfile"
_KINDS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}
_FILE_TYPES = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16", "Q8_0": "MOSTLY_Q8_0"}


def write(tuned: Tuned, folder: Path, dtype: str) -> None:
    """The files of the model, and of its adapters where llama.cpp knows their kind.

    Args:
      dtype: of matrices: ``float32``, ``float16``, ``bfloat16`` or ``q8_0``.
    """
    _write_model(tuned, folder / MODEL, _KINDS[dtype])
    if tuned.has_plain_adapters:
        _write_adapter(tuned, folder / ADAPTER)
        # For the adapters on the base model, which has a template of its own or none.
        (folder / "chat_template.jinja").write_text(tuned.chat_template)
    (folder / MODELFILE).write_text(modelfile.text(tuned, MODEL))


def _write_model(tuned: Tuned, path: Path, kind: str) -> None:
    from gguf import LlamaFileType

    writer = _writer(path, tuned)
    writer.add_type("model")
    writer.add_file_type(LlamaFileType[_FILE_TYPES[kind]])
    describe(writer, tuned.spec)
    put_tokenizer(writer, tuned.tokenizer, hub.rows(tuned.spec))
    writer.add_chat_template(tuned.chat_template)
    places = [(leaf, None) for leaf in ("embed_VxD", "final_norm_D")]
    places += [(x, i) for x in tuned.params["layers"] for i in range(tuned.spec.num_layers)]
    for leaf, layer in places:
        shape = linear.shape(leaf, tuned.spec)
        if leaf == "embed_VxD":
            shape = (hub.rows(tuned.spec), *shape[1:])
        name = NAMES[leaf] if layer is None else f"blk.{layer}.{NAMES[leaf]}"
        _announce(writer, name, shape, "F32" if len(shape) == 1 else kind)
    _begin(writer)
    for leaf, layer, values in tuned.leaves("float32"):
        del layer
        if leaf == "embed_VxD":
            values = values[: hub.rows(tuned.spec)]
        stored = 1 + values if "norm" in leaf else linear.store(leaf, values, tuned.spec)
        encoded = _encoded(stored, kind)
        check_held(leaf, encoded)
        writer.write_tensor_data(encoded)
    writer.close()


def _write_adapter(tuned: Tuned, path: Path) -> None:
    writer = _writer(path, tuned)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    # llama.cpp multiplies by alpha / rank; so it is right for rank-stabilised ones too.
    writer.add_float32("adapter.lora.alpha", tuned.scale * tuned.config.lora.rank)
    named = adapter_tensors(tuned.adapters)
    for name, values in named.items():
        _announce(writer, name, values.shape, "F32")
    _begin(writer)
    for values in named.values():
        writer.write_tensor_data(values)
    writer.close()


def adapter_tensors(adapters: Tree) -> dict[str, np.ndarray]:
    """Float32 by llama.cpp's names: ``lora_a`` is ``[R, in]``, ``lora_b`` is ``[out, R]``."""
    found = {}
    for name, adapter in adapters.items():
        for part in "AB":
            for layer, values in enumerate(np.asarray(adapter[part], np.float32)):
                key = f"blk.{layer}.{NAMES[lora.WEIGHTS[name]]}.lora_{part.lower()}"
                found[key] = np.ascontiguousarray(peft.flat(part, values))
    return found


def describe(writer: "GGUFWriter", spec: Spec) -> None:
    """The sizes and the attention of the model."""
    from gguf import RopeScalingType

    whole = next(kind for kind in spec.pattern if kind.window is None)
    writer.add_context_length(spec.positions)
    writer.add_embedding_length(spec.embed)
    writer.add_block_count(spec.num_layers)
    writer.add_feed_forward_length(spec.hidden)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_key_length(spec.head_dim)
    writer.add_value_length(spec.head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_sliding_window(next(window for window in spec.windows if window))
    writer.add_rope_freq_base(whole.rope_base)
    if whole.rope_scale != 1:
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(whole.rope_scale)
    if spec.attn_softcap:
        writer.add_attn_logit_softcapping(spec.attn_softcap)
    if spec.final_softcap:
        writer.add_final_logit_softcapping(spec.final_softcap)


def put_tokenizer(writer: "GGUFWriter", tokenizer: Tokenizer, rows: int) -> None:
    """The pieces, one for each row of the embedding; rows without a piece get one nobody writes.

    Pieces that steer are CONTROL. llama.cpp looks for the others that are taken whole, such as runs
    of spaces, as they are written, so these have real spaces.
    """
    pieces, scores, kinds = [], [], []
    for piece, score, kind in tokenizer.pieces():
        if kind == USER_DEFINED and tokenizer.has_control(piece):
            kind = CONTROL
        pieces.append(piece.replace(SPACE, " ") if kind == USER_DEFINED else piece)
        scores.append(score)
        kinds.append(kind)
    for index in range(len(pieces), rows):
        pieces.append(f"[PAD{index}]")
        scores.append(-1000.0)
        kinds.append(UNUSED)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_eot_token_id(tokenizer.end_of_turn_id)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(tokenizer.pad_id)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def _writer(path: Path, tuned: Tuned) -> "GGUFWriter":
    from gguf import GGUFWriter

    writer = GGUFWriter(path, tuned.spec.family)
    writer.add_name(tuned.path.resolve().name)
    return writer


def _announce(writer: "GGUFWriter", name: str, shape: tuple[int, ...], kind: str) -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quant_shape_to_byte_shape

    raw = GGMLQuantizationType[kind]
    if shape[-1] % GGML_QUANT_SIZES[raw][0]:
        raise UserError(
            f"--dtype={kind.lower()}: {name} has rows of {shape[-1]}, which are no whole blocks of "
            f"{GGML_QUANT_SIZES[raw][0]}. Choose float16."
        )
    if kind == "Q8_0":
        stored = quant_shape_to_byte_shape(shape, raw)
        size, dtype = int(np.prod(stored, dtype=np.int64)), np.dtype(np.uint8)
    else:
        stored, dtype = shape, np.dtype(np.float32 if kind == "F32" else np.float16)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    writer.add_tensor_info(name, stored, dtype, size, raw_dtype=raw)


def _begin(writer: "GGUFWriter") -> None:
    """Everything but the tensors, which then go to the file one by one."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


def _encoded(values: np.ndarray, kind: str) -> np.ndarray:
    from gguf import GGMLQuantizationType, quants

    values = np.ascontiguousarray(values, np.float32)
    if values.ndim == 1:
        return values
    with np.errstate(over="ignore"):  # checked
        return quants.quantize(values, GGMLQuantizationType[kind])
