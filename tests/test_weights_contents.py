"""The tensors of weights: in other types and names, damaged, or of a changed vocabulary."""

import shutil

import hf_folders
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from safetensors.numpy import load_file, save_file
from test_weights_folders import FIRST, NEW, OLD, SECOND, SPEC, put, put_shards, read, refused
from weight_layouts import flat_gemma, hf_tensors, nest, write_gguf, write_orbax

from sft.errors import UserError
from sft.model import weights
from sft.model.weights import safetensors

registered = tiny_run.registered


def test_mixed_types_and_values_stored_with_less(tmp_path):
    put_shards(tmp_path / "w", NEW)
    half = {n: x.astype(np.float16) for n, x in load_file(tmp_path / "w" / SECOND).items()}
    save_file(half, tmp_path / "w" / SECOND)
    found = weights.load(SPEC, str(tmp_path / "w"), dtype="float32")
    name = "model.layers.0.mlp.down_proj.weight"
    expected = load_file(tmp_path / "w" / (SECOND if name in half else FIRST))[name]
    np.testing.assert_array_equal(found["layers"]["down_SxFxD"][0], expected.T)


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module.", "_fsdp_wrapped_module."])
def test_what_pytorch_wraps_modules_in(tmp_path, wrapper):
    tensors = {wrapper + name: x for name, x in hf_tensors(SPEC, NEW).items()}
    inner = {n.replace(".mlp.", "._checkpoint_wrapped_module.mlp."): x for n, x in tensors.items()}
    save_file(inner, tmp_path / "model.safetensors")
    assert read(tmp_path) == "NEW"
    save_file(inner | hf_tensors(SPEC, OLD), tmp_path / "model.safetensors")
    assert "is also in model.safetensors" in refused(tmp_path)


@pytest.mark.parametrize("prefix", ["", "language_model."])
def test_the_inner_model_alone(tmp_path, prefix):
    save_file(hf_tensors(SPEC, NEW, prefix), tmp_path / "model.safetensors")
    assert read(tmp_path) == "NEW"


def test_tensors_of_the_image_tower_may_be_of_any_type(tmp_path):
    ids = np.arange(4)[None]
    put(tmp_path / "w", "model.safetensors", NEW, **{"vision_tower.position_ids": ids})
    assert read(tmp_path / "w") == "NEW"
    put(tmp_path / "w", "model.safetensors", NEW, **{"model.position_ids": ids})
    assert "tensor model.position_ids is I64" in refused(tmp_path / "w")


@pytest.mark.parametrize("kind", ["safetensors", "gguf", "orbax"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_named(tmp_path, kind, value):
    bad = hf_folders.tree() | {"layers": dict(hf_folders.tree()["layers"])}
    bad["layers"]["down_SxFxD"] = np.array(bad["layers"]["down_SxFxD"])
    bad["layers"]["down_SxFxD"][1, 2, 3] = value
    if kind == "safetensors":
        put(tmp_path / "w", "model.safetensors", bad)
        path, name = tmp_path / "w", "model.layers.1.mlp.down_proj.weight"
    elif kind == "gguf":
        path, name = tmp_path / "w.gguf", "blk.1.ffn_down.weight"
        write_gguf(path, SPEC, bad)
    else:
        path, name = tmp_path / "w", "layer_1/mlp/linear"
        write_orbax(path, nest(flat_gemma(SPEC, bad, True)))
    assert f"tensor {name} holds NaN or infinity" in refused(path)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_in_every_type(tmp_path, dtype, value):
    tensors = {name: x.astype(jnp.dtype(dtype)) for name, x in hf_tensors(SPEC, NEW).items()}
    largest = float(jnp.finfo(dtype).max)
    tensors["model.norm.weight"] = np.full(32, largest, jnp.dtype(dtype))  # is a number
    save_file(tensors, tmp_path / "model.safetensors")
    read(tmp_path)
    tensors["model.norm.weight"][7] = value
    save_file(tensors, tmp_path / "model.safetensors")
    assert "tensor model.norm.weight holds NaN or infinity" in refused(tmp_path)


def test_shards_that_were_not_gathered(tmp_path):
    tensors = {name: np.zeros(0, np.float32) for name in hf_tensors(SPEC, NEW)}
    save_file(tensors, tmp_path / "model.safetensors")
    message = refused(tmp_path)
    assert "embed_tokens.weight is empty, shape (0,): saved without gathering" in message
    assert "ZeRO-3" in message


def test_rows_beyond_the_vocabulary(tmp_path, capsys):
    padded = NEW | {"embed_VxD": np.concatenate([NEW["embed_VxD"], np.ones((64, 32), np.float32)])}
    put(tmp_path / "w", "model.safetensors", padded)
    message = refused(tmp_path / "w")
    assert (
        "has 576 rows, 64 more than tiny_run has tokens" in message and "tokenizer.json" in message
    )
    assert read(tmp_path / "w", added=list) == "NEW"
    assert "64 rows of the embedding are left out" in capsys.readouterr().err
    message = refused(tmp_path / "w", added=lambda: ["<tool>", "<a>", "<b>", "<c>", "<d>"])
    assert "extended by 5 tokens ('<tool>', '<a>', '<b>', '<c>', …)" in message
    cut = NEW | {"embed_VxD": NEW["embed_VxD"][:500]}
    put(tmp_path / "w", "model.safetensors", cut)
    assert "has 500 rows, expected 512 for tiny_run: the vocabulary was cut" in refused(
        tmp_path / "w", added=list
    )


def test_a_head_of_its_own(tmp_path):
    head = {"lm_head.weight": NEW["embed_VxD"] * 2}
    put(tmp_path / "w", "model.safetensors", NEW, **head)
    message = refused(tmp_path / "w")
    assert "lm_head.weight differs from the embedding: a head trained apart" in message
    assert "cannot be used here in any way" in message
    put(tmp_path / "w", "model.safetensors", NEW, **{"lm_head.weight": NEW["embed_VxD"]})
    assert read(tmp_path / "w") == "NEW"


def test_parts_of_gguf_and_wrong_order(tmp_path):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "a-00001-of-00002.gguf", "gemma3")
    writer.add_uint16("split.count", 2)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "one of 2 parts. Join them: `llama-gguf-split" in refused(
        tmp_path / "a-00001-of-00002.gguf"
    )


def test_the_library_of_the_format_is_asked_first(tmp_path):
    """What it refuses is refused, a hole between tensors for one."""
    put(tmp_path, "m.safetensors", NEW)
    shutil.copy(tmp_path / "m.safetensors", tmp_path / "longer.safetensors")
    with open(tmp_path / "longer.safetensors", "ab") as file:
        file.write(b"\0" * 8)
    with pytest.raises(UserError, match="damaged header, or cut short"):
        safetensors.read(tmp_path / "longer.safetensors")
