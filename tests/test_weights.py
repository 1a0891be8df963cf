"""Weights written in each published layout come back bit for bit; bad ones are named."""

import dataclasses

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import save_file
from weight_layouts import (
    LAYOUTS,
    SPECS,
    flat_gemma,
    hf_tensors,
    make_tree,
    nest,
    write,
    write_gguf,
    write_hf,
    write_hf_shards,
    write_orbax,
)

from sft.errors import UserError
from sft.model import decoder, specs
from sft.model import weights as weights_in
from sft.model.weights import gguf as gguf_in


def assert_equal(found, expected):
    for (path, x), (_, y) in zip(
        jax.tree.leaves_with_path(found), jax.tree.leaves_with_path(expected), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=str(path))


@pytest.mark.parametrize("family", SPECS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_comes_back_bit_for_bit(tmp_path, layout, family):
    spec = SPECS[family]
    tree = make_tree(spec)
    path = str(write(layout, tmp_path, spec, tree))
    found = weights_in.load(spec, path, dtype="float32")
    assert jax.tree.map(lambda x: (x.shape, x.dtype), found) == jax.tree.map(
        lambda x: (x.shape, x.dtype), decoder.abstract_params(spec, jnp.float32)
    )
    assert_equal(found, tree)
    half = weights_in.load(spec, path, dtype=jnp.bfloat16)
    assert_equal(half, jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), tree))


@pytest.mark.parametrize("layout", ["hf model.", "gguf", "orbax-flat", "orbax-stacked"])
def test_shards_hold_their_part_and_nothing_else(tmp_path, layout):
    spec = SPECS["gemma3"]
    tree = make_tree(spec)
    path = str(write(layout, tmp_path, spec, tree))
    mesh = jax.make_mesh((2, 4), ("tensor", "fsdp"), devices=jax.devices()[:8])
    rules = {
        "embed_VxD": PartitionSpec(("tensor", "fsdp")),
        "q_SxNxHxD": PartitionSpec(None, "fsdp", "tensor"),
        "o_SxNxHxD": PartitionSpec("tensor", None, None, "fsdp"),
        "down_SxFxD": PartitionSpec(None, "tensor", "fsdp"),
    }
    shardings = jax.tree_util.tree_map_with_path(
        lambda keys, _: NamedSharding(mesh, rules.get(keys[-1].key, PartitionSpec())), tree
    )
    found = weights_in.load(spec, path, dtype="float32", shardings=shardings)
    assert_equal(found, tree)
    assert found["embed_VxD"].addressable_shards[0].data.shape == (32, 32)
    assert found["layers"]["o_SxNxHxD"].addressable_shards[0].data.shape == (2, 4, 16, 8)
    jax.tree.map(lambda x, sharding: pytest.fail() if x.sharding != sharding else None, found,
                 shardings)  # fmt: skip


def test_replicas_are_read_once(tmp_path, monkeypatch):
    spec = SPECS["gemma3"]
    path = str(write("gguf", tmp_path, spec, make_tree(spec)))
    reads = []
    rows = gguf_in.File.rows
    monkeypatch.setattr(
        gguf_in.File,
        "rows",
        lambda self, name, *part: reads.append(name) or rows(self, name, *part),
    )
    mesh = jax.make_mesh((8,), ("data",), devices=jax.devices()[:8])
    shardings = jax.tree.map(
        lambda _: NamedSharding(mesh, PartitionSpec()), decoder.abstract_params(spec, jnp.float32)
    )
    weights_in.load(spec, path, dtype="float32", shardings=shardings)
    assert sorted(reads) == sorted(gguf_in.read(weights_in.resolve(path)).tensors)


@pytest.mark.parametrize(("family", "vocab", "rows"), [("gemma2", 256_128, 256_000),
                                                       ("gemma3", 262_144, 262_208)])  # fmt: skip
def test_published_vocabularies_of_another_size(tmp_path, family, vocab, rows):
    spec = dataclasses.replace(SPECS[family], vocab=vocab, num_layers=1)
    tree = make_tree(dataclasses.replace(spec, vocab=8))
    tree["embed_VxD"] = np.random.default_rng(0).standard_normal((rows, 32)).astype(np.float32)
    write_hf(tmp_path / "m.safetensors", spec, tree)
    found = np.asarray(
        weights_in.load(spec, str(tmp_path / "m.safetensors"), dtype="float32")["embed_VxD"]
    )
    assert found.shape == (vocab, 32)
    np.testing.assert_array_equal(found[:rows], tree["embed_VxD"][:vocab])
    assert not found[rows:].any()


def test_known_extras_are_ignored_and_said(tmp_path, caplog):
    spec = SPECS["gemma3"]
    tree = make_tree(spec)
    extra = {
        "vision_tower.encoder.weight": np.ones(3, np.float32),
        "multi_modal_projector.weight": np.ones(3, np.float32),
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32),
        "lm_head.weight": tree["embed_VxD"],
    }
    write_hf(tmp_path / "m.safetensors", spec, tree, extra=extra)
    with caplog.at_level("INFO"):
        found = weights_in.load(spec, str(tmp_path / "m.safetensors"), dtype="float32")
    assert_equal(found, tree)
    assert "ignored 4 tensors: lm_head.weight" in caplog.text
    assert "vision_tower.encoder.weight" in caplog.text


def test_quantised_values_are_those_of_the_gguf_package(tmp_path):
    spec = SPECS["gemma3"]
    tree = make_tree(spec)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "gemma3")
    plain = tmp_path / "plain.gguf"
    write_gguf(plain, spec, tree)
    expected = {}
    for tensor in gguf.GGUFReader(plain).tensors:
        kind = gguf.GGMLQuantizationType.F32 if "norm" in tensor.name else (
            gguf.GGMLQuantizationType.Q8_0 if tensor.shape[0] % 32 == 0 else
            gguf.GGMLQuantizationType.BF16)  # fmt: skip
        stored = gguf.quantize(tensor.data, kind)
        expected[tensor.name] = gguf.dequantize(stored, kind)
        writer.add_tensor(tensor.name, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = weights_in.load(spec, str(tmp_path / "m.gguf"), dtype="float32")
    np.testing.assert_array_equal(found["embed_VxD"], expected["token_embd.weight"])
    np.testing.assert_array_equal(
        found["layers"]["gate_SxDxF"][2], expected["blk.2.ffn_gate.weight"].T
    )
    assert np.abs(np.asarray(found["embed_VxD"]) - tree["embed_VxD"]).max() > 0


# Bad input. Every message is one line that names the file and what to do.


def refused(spec, path, **options):
    with pytest.raises(UserError) as error:
        weights_in.load(spec, str(path), dtype="float32", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def hf_case(tmp_path, change, spec=SPECS["gemma3"]):
    tensors = hf_tensors(spec, make_tree(spec))
    change(tensors)
    save_file(tensors, tmp_path / "m.safetensors")
    return refused(spec, tmp_path / "m.safetensors")


def test_wrong_tensors_are_named(tmp_path):
    up = "model.layers.2.mlp.up_proj.weight"
    message = hf_case(tmp_path, lambda t: t.pop(up))
    assert (
        f"m.safetensors: tensor {up} is missing; tiny_gemma3 needs it with shape (48, 32)"
        in message
    )
    message = hf_case(tmp_path, lambda t: t.update({up: np.zeros((40, 32), np.float32)}))
    assert f"tensor {up} has shape (40, 32), expected (48, 32) for tiny_gemma3" in message
    message = hf_case(tmp_path, lambda t: t.update({"model.extra.weight": np.zeros(1)}))
    assert "F64" in message
    message = hf_case(tmp_path, lambda t: t.update({"model.extra.weight": np.zeros(1, np.float32)}))
    assert "tensor model.extra.weight (and 0 more) is not part of tiny_gemma3" in message
    head = {"lm_head.weight": np.zeros((256, 32), np.float32)}
    assert "lm_head.weight differs from the embedding" in hf_case(
        tmp_path, lambda t: t.update(head)
    )
    message = hf_case(tmp_path, lambda t: t.pop("model.embed_tokens.weight"))
    assert "not the weights of a Gemma 2 or 3 model" in message


def test_weights_of_another_model_are_recognised(tmp_path):
    tensors = {"model.embed_tokens.weight": np.zeros((8, 1152), np.float16)}
    save_file(tensors, tmp_path / "m.safetensors")
    message = refused(specs.get("gemma3_270m"), tmp_path / "m.safetensors")
    assert "has shape (8, 1152), expected (262144, 640) for gemma3_270m" in message
    assert "These look like gemma3_1b weights; set config.model.name = 'gemma3_1b'" in message


def test_one_layer_too_many_or_too_few(tmp_path):
    spec = SPECS["gemma3"]
    write_orbax(tmp_path / "o", nest(flat_gemma(spec, make_tree(spec), True)))
    more = dataclasses.replace(spec, num_layers=5)
    assert "layer_4/" in refused(more, tmp_path / "o")
    fewer = dataclasses.replace(spec, num_layers=3)
    assert "layer_3/attn/_key_norm/scale (and " in refused(fewer, tmp_path / "o")


def test_wrong_files_are_named(tmp_path):
    spec = SPECS["gemma3"]
    assert "nowhere: no such file or directory" in refused(spec, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no weights there" in refused(spec, tmp_path / "empty")
    for name, content, expected in (
        ("a.txt", b"hello", "not weights that can be read"),
        ("b.gguf", b"GGML" + bytes(64), "starts with b'GGML', expected b'GGUF'"),
        ("c.gguf", b"GGUF" + bytes(64), "GGUF version 0, expected 2 or 3"),
        ("d.gguf", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("e.safetensors", b"", "not a safetensors file, or cut short"),
        ("f.safetensors", (9).to_bytes(8, "little") + b"not json!", "damaged header"),
    ):
        (tmp_path / name).write_bytes(content)
        message = refused(spec, tmp_path / name)
        assert name in message and expected in message
    write_gguf(tmp_path / "g.gguf", spec, make_tree(spec), family="llama")
    assert "general.architecture is 'llama', expected 'gemma3'" in refused(
        spec, tmp_path / "g.gguf"
    )
    write_gguf(tmp_path / "h.gguf", spec, make_tree(spec), skip=["blk.1.attn_k_norm.weight"])
    assert "tensor blk.1.attn_k_norm.weight is missing" in refused(spec, tmp_path / "h.gguf")
    (tmp_path / "i").mkdir()
    write_hf_shards(tmp_path / "i", spec, make_tree(spec))
    (tmp_path / "i" / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors: missing" in refused(spec, tmp_path / "i")
    (tmp_path / "i" / "model.safetensors.index.json").write_text("[]")
    assert "expected JSON with a 'weight_map'" in refused(spec, tmp_path / "i")
    assert "expected the path of weights" in refused(spec, "")
    assert "expected a local path or gs://" in refused(spec, "s3://bucket/weights")


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    spec = dataclasses.replace(SPECS["gemma3"], num_layers=1)
    write_gguf(directory / "m.gguf", spec, make_tree(spec))
    write_hf(directory / "m.safetensors", spec, make_tree(spec))
    return spec, directory


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(share=st.floats(0, 1, exclude_max=True), in_header=st.booleans(), data=st.data())
def test_a_file_cut_anywhere_is_refused(whole_files, share, in_header, data):
    spec, directory = whole_files
    name = data.draw(st.sampled_from(["m.gguf", "m.safetensors"]))
    content = (directory / name).read_bytes()
    end = int(share * (min(len(content), 1500) if in_header else len(content)))
    (directory / f"cut-{name}").write_bytes(content[:end])
    message = refused(spec, directory / f"cut-{name}")
    assert message.startswith(str(directory / f"cut-{name}"))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(at=st.integers(0, 1500), value=st.integers(0, 255), data=st.data())
def test_a_damaged_header_never_escapes_as_a_bug(whole_files, at, value, data):
    spec, directory = whole_files
    name = data.draw(st.sampled_from(["m.gguf", "m.safetensors"]))
    content = bytearray((directory / name).read_bytes())
    content[at] = value
    (directory / f"bad-{name}").write_bytes(content)
    try:
        weights_in.load(spec, str(directory / f"bad-{name}"), dtype="float32")
    except UserError as error:
        assert "\n" not in str(error)
