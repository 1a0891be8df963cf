"""The layouts of exports, both families: read by the readers of other tests' files, exactly."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny
from etils import epath
from safetensors.numpy import load_file, save_file
from test_tokenizer import tiny as tiny_tokenizer

from sft.config import default
from sft.errors import UserError
from sft.eval.arms import Arm
from sft.export import gguf, hub, official
from sft.export import peft as writer
from sft.export.tuned import Tuned
from sft.model import lora, specs, weights
from sft.model.weights import gguf as reader
from sft.model.weights import peft

FAMILIES = ("gemma2", "gemma3")


def make(tmp_path, family="gemma3", names=lora.NAMES, dtype="float32", spec=None, **values):
    """A tuned model without a run; its tokenizer has as many pieces as the model has rows."""
    tokenizer = tiny_tokenizer(family)
    spec = dataclasses.replace(spec or specs.tiny(family), vocab=tokenizer.vocab_size)
    config = default()
    config.update_from_flattened_dict({"lora.rank": 3, "lora.alpha": 6.0} | values)
    params = tiny.make_params(spec, dtype=dtype)
    adapters = tiny.make_adapters(spec, names)
    if config.lora.dora:
        adapters = lora.with_magnitudes(adapters, params["layers"])
    scale = lora.scaling(3, config.lora.alpha, config.lora.rslora)
    options = dataclasses.replace(tiny.FLOAT32, lora_scale=scale)
    arm = Arm("best", 8)
    return Tuned(config, tmp_path, arm, spec, tokenizer, params, adapters, options, lambda: params)


def make_published(tmp_path, family):
    """With the published pattern of layers: llama.cpp and Keras-Hub know no other."""
    spec = specs.tiny(family)
    if family == "gemma3":
        local, whole = spec.pattern[0], spec.pattern[-1]
        spec = dataclasses.replace(spec, num_layers=7, pattern=(*[local] * 5, whole))
    return make(tmp_path, family, spec=spec)


def merged(tuned, dtype):
    """What ``leaves`` gives, as a tree of the decoder."""
    tree = {"layers": {leaf: [] for leaf in tuned.params["layers"]}}
    for leaf, layer, values in tuned.leaves(dtype):
        if layer is None:
            tree[leaf] = values
        else:
            tree["layers"][leaf].append(values)
    return tree | {"layers": {leaf: np.stack(rows) for leaf, rows in tree["layers"].items()}}


def check_same(found, expected, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), **tolerance)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_safetensors(tmp_path, family, dtype):
    tuned = make(tmp_path, family)
    hub.write(tuned, tmp_path, dtype)
    found = weights.load(tuned.spec, str(tmp_path), dtype=dtype)
    check_same(found, merged(tuned, dtype), rtol=0, atol=0)
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["num_key_value_heads"] == 2 and described["head_dim"] == 16
    kinds = described["layer_types"]
    assert (
        kinds
        == {
            "gemma2": ["sliding_attention", "full_attention"] * 2,
            "gemma3": [
                "sliding_attention",
                "sliding_attention",
                "full_attention",
                "sliding_attention",
            ],
        }[family]
    )


def test_merging_changes_what_is_adapted_and_nothing_else(tmp_path):
    tuned = make(tmp_path, names=("q", "down"))
    ours = merged(tuned, "float32")
    changed = {
        leaf
        for leaf, values in tuned.params["layers"].items()
        if not np.array_equal(values, ours["layers"][leaf])
    }
    assert changed == {"q_SxNxHxD", "down_SxFxD"}


def test_bfloat16_is_rounded_once(tmp_path):
    """Merged in float32: added in bfloat16, small updates would be lost."""
    tuned = make(tmp_path, dtype="bfloat16")
    once = lora.merge(
        {"layers": {"q_SxNxHxD": tuned.params["layers"]["q_SxNxHxD"].astype("float32")}},
        {"q": tuned.adapters["q"]},
        tuned.scale,
    )["layers"]["q_SxNxHxD"]
    assert np.array_equal(merged(tuned, "float32")["layers"]["q_SxNxHxD"], once)
    assert merged(tuned, "bfloat16")["layers"]["q_SxNxHxD"].dtype == "bfloat16"


def test_several_files_have_an_index(tmp_path):
    tuned = make(tmp_path)
    hub._write_weights(hub.tensors(tuned, "float32"), tmp_path, most=20_000)
    files = sorted(path.name for path in tmp_path.iterdir())
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(files) > 3 and set(index["weight_map"].values()) == set(files) - {
        "model.safetensors.index.json"
    }
    found = weights.load(tuned.spec, str(tmp_path), dtype="float32")
    check_same(found, merged(tuned, "float32"), rtol=0, atol=0)


@pytest.mark.parametrize(("spec", "rows"), [("gemma2_2b", 256_000), ("gemma3_4b", 262_144)])
def test_published_sizes(spec, rows):
    described = hub.describe(specs.get(spec))
    assert described["vocab_size"] == rows
    if spec == "gemma3_4b":
        assert described["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
        assert described["max_position_embeddings"] == 131_072
        assert hub.describe(specs.get("gemma3_27b"))["query_pre_attn_scalar"] == 168


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gguf(tmp_path, family, kind):
    tuned = make(tmp_path, family)
    gguf.write(tuned, tmp_path, kind)
    found = weights.load(tuned.spec, str(tmp_path / gguf.MODEL), dtype="float32")
    loose = {"float32": 2e-7, "float16": 1e-3, "bfloat16": 1e-2}[kind]  # norms: 1 + w - 1
    check_same(found, merged(tuned, "float32"), rtol=loose, atol=loose)
    told = reader.read(epath.Path(tmp_path / gguf.MODEL)).metadata
    assert told["general.architecture"] == family and told["tokenizer.ggml.eot_token_id"]
    assert told[f"{family}.attention.sliding_window"] == 8
    caps = [told.get(f"{family}.{name}_logit_softcapping") for name in ("attn", "final")]
    assert caps == ([50.0, 30.0] if family == "gemma2" else [None, None])


def test_gguf_adapters(tmp_path):
    tuned = make(tmp_path, **{"lora.rslora": True})
    gguf.write(tuned, tmp_path, "float32")
    file = reader.read(epath.Path(tmp_path / gguf.ADAPTER))
    # llama.cpp: alpha / rank times B A.
    scale = file.metadata["adapter.lora.alpha"] / 3
    a, b = (file.rows(f"blk.2.attn_output.weight.lora_{x}") for x in "ab")
    weight = np.asarray(tuned.params["layers"]["o_SxNxHxD"][2]).transpose(2, 0, 1).reshape(32, -1)
    ours = np.asarray(merged(tuned, "float32")["layers"]["o_SxNxHxD"][2])
    np.testing.assert_allclose(
        weight + scale * b @ a, ours.transpose(2, 0, 1).reshape(32, -1), rtol=1e-5, atol=1e-6
    )


def test_gguf_has_no_adapters_of_dora(tmp_path):
    gguf.write(make(tmp_path, **{"lora.dora": True}), tmp_path, "float32")
    assert not (tmp_path / gguf.ADAPTER).exists() and (tmp_path / gguf.MODEL).exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_orbax(tmp_path, family):
    tuned = make(tmp_path, family)
    official.write(tuned, tmp_path, "bfloat16")
    found = weights.load(tuned.spec, str(tmp_path / official.MERGED), dtype="bfloat16")
    check_same(found, merged(tuned, "bfloat16"), rtol=0, atol=0)


@pytest.mark.parametrize("names", [lora.NAMES, ("q", "v", "down"), ("gate", "up")], ids=len)
def test_orbax_adapters(tmp_path, names):
    """In the sums of ``gm.nn.LoRA``: one A for keys and values, and for gate and up."""
    tuned = make(tmp_path, names=names)
    made = official.adapters(tuned.adapters, tuned.spec, tuned.scale)
    rank = official.rank(tuned.adapters)
    assert rank == (6 if len(names) != 3 else 3) and len(made) == 4
    ours, base = merged(tuned, "float32")["layers"], tuned.params["layers"]
    update = {leaf: np.asarray(ours[leaf] - base[leaf])[2] for leaf in base}
    attn, mlp = made["layer_2"]["attn"], made["layer_2"]["mlp"]
    sums = {
        "q_SxNxHxD": ("Dr,rNH->NHD", attn["q_einsum"]["_LoRAEinsum_0"]),
        "o_SxNxHxD": ("NHr,rD->NHD", attn["attn_vec_einsum"]["_LoRAEinsum_0"]),
        "down_SxFxD": ("Fr,rD->FD", mlp["_LoRAEinsum_linear"]),
        "k_SxKxHxD": ("Dr,rCKH->CKHD", attn["kv_einsum"]["_LoRAEinsum_0"]),
        "gate_SxDxF": ("Dr,rCF->CDF", mlp["_LoRAEinsum_gating_einsum"]),
    }
    for leaf, (equation, place) in sums.items():
        assert place["lora"]["a"].shape[-1] == rank
        found = np.einsum(equation, place["lora"]["a"], place["lora"]["b"])
        other = {"k_SxKxHxD": "v_SxKxHxD", "gate_SxDxF": "up_SxDxF"}.get(leaf)
        wanted = np.stack([update[leaf], update[other]]) if other else update[leaf]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


CASES = [
    {},
    {"lora.rslora": True},
    {"lora.dora": True},
    {"lora.alpha": 7.5},
]


@pytest.mark.parametrize("values", CASES, ids=str)
@pytest.mark.parametrize("names", [lora.NAMES, ("q", "o", "up")], ids=len)
def test_peft_both_ways(tmp_path, names, values):
    tuned = make(tmp_path, names=names, **values)
    writer.write(tuned, tmp_path, "google/gemma-3-270m")
    found, scale = peft.read(tmp_path, tuned.spec)
    check_same(found, dict(tuned.adapters), rtol=0, atol=0)
    assert scale == pytest.approx(tuned.scale)
    told = json.loads((tmp_path / peft.CONFIG).read_text())
    assert told["use_dora"] == bool(values.get("lora.dora"))
    assert len(told["target_modules"]) == len(names)
    named = load_file(tmp_path / peft.FILE)
    assert named["base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"].shape == (3, 32)
    assert named["base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"].shape == (64, 3)


def test_peft_of_a_model_with_images(tmp_path):
    tuned = make(tmp_path)
    tuned = dataclasses.replace(tuned, spec=dataclasses.replace(tuned.spec, has_images=True))
    writer.write(tuned, tmp_path, "google/gemma-3-4b-it")
    names = load_file(tmp_path / peft.FILE)
    assert all(name.startswith("base_model.model.model.language_model.layers.") for name in names)
    told = json.loads((tmp_path / peft.CONFIG).read_text())
    assert told["target_modules"].startswith(r".*language_model.*\.(q_proj|")
    found, _ = peft.read(tmp_path, tuned.spec)
    check_same(found, dict(tuned.adapters), rtol=0, atol=0)


def broken(change):
    """What ``change(tensors, config)`` makes of a sound adapter, in words."""

    def said(tmp_path):
        tuned = make(tmp_path)
        writer.write(tuned, tmp_path, "base")
        named = load_file(tmp_path / peft.FILE)
        told = json.loads((tmp_path / peft.CONFIG).read_text())
        change(named, told)
        save_file(named, tmp_path / peft.FILE)
        (tmp_path / peft.CONFIG).write_text(json.dumps(told))
        with pytest.raises(UserError) as error:
            peft.read(tmp_path, tuned.spec)
        return str(error.value)

    return said


def zeros(*shape):
    return np.zeros(shape, np.float32)


LAYER = "base_model.model.model.layers.3"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t, c: t.pop(f"{LAYER}.mlp.up_proj.lora_A.weight"), "mlp.up_proj.lora_A is in 3"),
        (
            lambda t, c: t.update({f"{LAYER}.self_attn.q_proj.lora_A.weight": zeros(2, 32)}),
            "self_attn.q_proj.lora_A has other shapes in other layers: (2, 32), (3, 32)",
        ),
        (
            lambda t, c: t.update({"model.embed_tokens.lora_embedding_A": zeros(2)}),
            "tensor model.embed_tokens.lora_embedding_A: an embedding or head trained beside",
        ),
        (lambda t, c: c.update(r=4), "no lora_A and lora_B of rank 4"),
        (lambda t, c: c.update(peft_type="IA3"), 'peft_type = "IA3"'),
        (lambda t, c: c.update(rank_pattern={"q_proj": 8}), "rank_pattern"),
        (lambda t, c: c.update(modules_to_save=["lm_head"]), "modules_to_save"),
        (lambda t, c: c.pop("r"), "r = null: expected a whole number above 0"),
    ],
)
def test_adapters_that_cannot_be_read_are_refused_by_name(tmp_path, change, said):
    assert said in broken(change)(tmp_path)


def test_an_adapter_of_another_model_is_refused(tmp_path):
    tuned = make(tmp_path)
    writer.write(tuned, tmp_path, "base")
    wider = dataclasses.replace(tuned.spec, embed=48)
    with pytest.raises(UserError, match="needs 48 inputs: an adapter of another model"):
        peft.read(tmp_path, wider)
    (tmp_path / peft.FILE).unlink()
    with pytest.raises(UserError, match=r"no such file.* directory of a PEFT adapter"):
        peft.read(tmp_path, tuned.spec)
