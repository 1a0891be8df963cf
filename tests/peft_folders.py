"""PEFT adapters of ``tiny_run``'s model, sound ones, and what changes them."""

import json

import jax
import numpy as np
import pytest
import tiny_run
from safetensors.numpy import load_file, save_file
from tiny import make_adapters

from sft.errors import UserError
from sft.model.weights import peft

SPEC = tiny_run.SPEC
LAYER = "base_model.model.model.layers.1"
# As PEFT 0.21.2 writes it.
CONFIG = {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "arrow_config": None,
    "auto_mapping": None,
    "base_model_name_or_path": "tiny-base",
    "bias": "none",
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "kasa_config": None,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 8,
    "lora_bias": False,
    "lora_dropout": 0.0,
    "lora_ga_config": None,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "monteclora_config": None,
    "peft_type": "LORA",
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "r": 3,
    "rank_pattern": {},
    "revision": None,
    "target_modules": ["q_proj", "down_proj"],
    "target_parameters": None,
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
    "use_bdlora": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
    "velora_config": None,
}
ADAPTERS = jax.tree.map(np.asarray, make_adapters(SPEC, ("q", "down")))


@pytest.fixture
def folder(tmp_path):
    """A sound adapter."""
    path = tmp_path / "adapter"
    path.mkdir()
    save_file(peft.tensors(ADAPTERS, SPEC), path / peft.FILE)
    (path / peft.CONFIG).write_text(json.dumps(CONFIG))
    return path


def configure(folder, text="", **values):
    (folder / peft.CONFIG).write_text(text or json.dumps(CONFIG | values))
    return folder


def change(folder, rename=None, **tensors):
    """Renames tensors, replaces some, and takes those away that are ``None``."""
    named = load_file(folder / peft.FILE)
    named = {(rename(name) if rename else name): x for name, x in named.items()} | tensors
    save_file({name: x for name, x in named.items() if x is not None}, folder / peft.FILE)
    return folder


def assert_same(folder, scale=8 / 3):
    found, ours = peft.read(folder, SPEC)
    assert jax.tree.all(jax.tree.map(np.array_equal, found, ADAPTERS)) and ours == scale


def refused(folder, spec=SPEC):
    with pytest.raises(UserError) as error:
        peft.read(folder, spec)
    message = str(error.value)
    assert "\n" not in message and message.startswith(str(folder))
    return message
