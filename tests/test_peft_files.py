"""The tensors of a PEFT adapter: under other names, damaged, or not there."""

import shutil

import numpy as np
import pytest
import tiny_run
from peft_folders import LAYER, SPEC, assert_same, change, configure, refused
from peft_folders import folder as folder
from safetensors.numpy import save_file

from sft.model.weights import peft

registered = tiny_run.registered


def test_magnitudes_against_what_is_said_of_them(folder):
    assert "self_attn.q_proj has no magnitude" in refused(configure(folder, use_dora=True))
    layers = {f"base_model.model.model.layers.{i}" for i in range(3)}
    sizes = {"self_attn.q_proj": 64, "mlp.down_proj": 32}
    more = {
        f"{layer}.{module}.lora_magnitude_vector": np.ones(size, np.float32)
        for layer in layers
        for module, size in sizes.items()
    }
    change(folder, **more)
    found, _ = peft.read(folder, SPEC)
    assert set(found["q"]) == set(found["down"]) == {"A", "B", "m"}
    assert "has a magnitude, and adapter_config.json says use_dora = false" in refused(
        configure(folder, use_dora=False)
    )
    configure(folder, use_dora=True)
    gone = {f"{layer}.mlp.down_proj.lora_magnitude_vector": None for layer in layers}
    assert "mlp.down_proj has no magnitude" in refused(change(folder, **gone))


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace(".layers.1.", ".layers.1._checkpoint_wrapped_module."),
        lambda name: name.replace("model.model.", "model._orig_mod.model.", 1),
        lambda name: "module." + name,
        lambda name: name.replace("mlp.", "mlp._fsdp_wrapped_module."),
        lambda name: name.replace(".weight", ".mine.weight"),
        lambda name: name.replace(".weight", ".default.weight"),
        lambda name: name.removesuffix(".weight"),
    ],
)
def test_names_inside_wrappers(folder, rename):
    assert_same(change(folder, rename))


def test_tensors_that_do_not_belong(folder):
    one = np.ones((3, 32), np.float32)
    nan, empty = one * np.nan, np.zeros(0, np.float32)
    a, b = f"{LAYER}.self_attn.q_proj.lora_A.weight", f"{LAYER}.mlp.down_proj.lora_B.weight"
    head = "base_model.model.lm_head.weight"
    for name, values, said in (
        (a, nan, f"tensor {a} holds NaN or infinity"),
        (b, np.full((32, 3), np.inf, np.float32), f"tensor {b} holds NaN or infinity"),
        (a, empty, f"tensor {a} is empty, shape (0,): it was saved without gathering"),
        (head, one, f"tensor {head}: an embedding or head trained beside the adapters"),
        ("base_model.model.model.embed_tokens.weight", one, "cannot be used in any way"),
        (f"{LAYER}.self_attn.q_proj.base_layer.weight", one, "is of the base model"),
        (f"{LAYER}.input_layernorm.weight", one, "is no adapter of a projection"),
        ("base_model.model.vision_tower.layers.0.q_proj.lora_A.weight", one, "image towers"),
        (a.replace(".weight", ".default.weight"), one, "is there under another name too"),
        (a.replace("layers.1.", "layers.01."), one, "is no adapter of a projection"),
        (a.replace("layers.1.", "layers.١."), one, "is no adapter of a projection"),
        (a.replace("layers.1.", f"layers.{'1' * 300}."), one, "is no adapter of a projection"),
        (a.replace("layers.1.", f"layers.{'1' * 5000}."), one, "damaged header"),
        (a.replace("layers.1.", "layers.7."), one, "Adapters must be on every layer"),
        (a, None, "self_attn.q_proj.lora_A is in 2 layers"),
    ):
        copy = folder.with_name("copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        assert said in refused(change(copy, **{name: values})), name


def test_two_adapters_in_one_file(folder):
    def rename(name):
        return name.replace(".weight", f".{'first' if 'q_proj' in name else 'second'}.weight")

    assert "adapters of 2 names (first, second)" in refused(change(folder, rename))


def test_files_that_are_not_there(folder, tmp_path):
    (folder / peft.FILE).rename(folder / "adapter_model.bin")
    message = refused(folder)
    assert "adapter_model.bin is not read" in message and "safe_serialization=True" in message
    (folder / "adapter_model.bin").unlink()
    assert f"{peft.FILE}: no such file" in refused(folder)
    save_file({"x": np.zeros(1, np.float32)}, folder / peft.FILE)
    assert "is no adapter" in refused(folder)
    save_file({}, folder / peft.FILE)
    assert "no adapters in it" in refused(folder)
    for text in ("[]", "{", "[" * 100_000, "\x00", '{"r": 1' + "0" * 5000 + "}"):
        assert "cannot be read" in refused(configure(folder, text))
    (folder / peft.CONFIG).unlink()
    assert "adapter_config.json: cannot be read" in refused(folder)
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / peft.CONFIG).write_text("{}")
    assert f"Did you mean {folder / 'checkpoint-5'}?" in refused(folder)
