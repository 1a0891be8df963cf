"""Every key of ``adapter_config.json`` is honoured, harmless or refused by its name."""

import json

import jax
import numpy as np
import pytest
import tiny_run
from peft_folders import ADAPTERS, CONFIG, SPEC, assert_same, configure, refused
from peft_folders import folder as folder

from sft.errors import UserError
from sft.model import lora, specs
from sft.model.weights import peft

registered = tiny_run.registered
PROJECTIONS = "q k v o gate up down".split()
LAYERS = list(range(SPEC.num_layers))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"inference_mode": False, "task_type": None, "revision": "main", "lora_dropout": 0.1},
        {"base_model_name_or_path": "/home/me/models/mine", "auto_mapping": {"a": "b"}},
        {"exclude_modules": ["lm_head"], "layers_pattern": "layers", "layers_to_transform": LAYERS},
        {"init_lora_weights": False, "peft_version": "9.9", "runtime_config": {"x": 1}},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": "mica"},
        {"corda_config": {"corda_method": "ipm"}, "lora_ga_config": {}},  # after the conversion
        {"target_modules": "all-linear", "ensure_weight_tying": True},
        {"target_modules": r".*\.(self_attn|mlp)\.\w+_proj", "layers_pattern": None},
        {"target_modules": ["self_attn.q_proj", *"kvo", *(f"{x}_proj" for x in PROJECTIONS)]},
        {"layers_to_transform": [*LAYERS, 77], "layers_pattern": ["h", "layers"]},
        {"exclude_modules": ".*vision.*"},
        {"a_key_of_tomorrow": None, "another": False, "third": [], "fourth": {}, "fifth": ""},
    ],
)
def test_harmless_keys(folder, values):
    assert_same(configure(folder, **values))


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("target_modules", ["q_proj"], "mlp.down_proj"),
        ("target_modules", ["self_attn.q_proj", "proj", "wn_proj"], "mlp.down_proj"),
        ("target_modules", r".*\.self_attn\..*", "mlp.down_proj"),
        ("target_modules", "down_proj", "mlp.down_proj"),  # an expression matches names whole
        ("target_modules", 5, "mlp.down_proj"),
        ("exclude_modules", ["down_proj"], "mlp.down_proj"),
        ("exclude_modules", r".*\.1\.mlp\.down_proj", "layers.1.mlp.down_proj"),
        ("layers_to_transform", LAYERS[:-1], f"layers.{LAYERS[-1]}."),
        ("layers_to_transform", 1, "layers.0."),
        ("layers_pattern", ["h", "blocks"], "layers."),
    ],
)
def test_keys_that_leave_out_tensors_of_the_file(folder, key, value, name):
    """PEFT would put no adapter there, and say so in a warning at most."""
    more = {"layers_to_transform": LAYERS} if key == "layers_pattern" else {}
    said = refused(configure(folder, **more, **{key: value}))
    by = "layers_to_transform" if more else key
    assert f"{by} = " in said and "leaves out model.layers." in said and name in said
    assert "save it again with PEFT's save_pretrained" in said


def test_every_key_of_this_peft_is_known():
    from sft.model.weights import peft_config

    known = {*peft_config._HARMLESS, *peft_config._HONOURED, *peft_config._REFUSED}
    assert set(CONFIG) - known == set()


MERGE, AGAIN = "merge_and_unload().save_pretrained(DIR)", "train again without"


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("peft_type", "IA3", MERGE),
        ("peft_type", "ADALORA", MERGE),
        ("bias", "all", MERGE),
        ("bias", "lora_only", MERGE),
        ("fan_in_fan_out", True, MERGE),
        ("trainable_token_indices", [1, 2], MERGE),
        ("target_parameters", ["self_attn.q_proj.weight"], MERGE),
        ("velora_config", {"num_groups": 2}, MERGE),
        ("kasa_config", {"beta": 1}, MERGE),
        ("monteclora_config", {"num_samples": 8}, MERGE),
        ("use_bdlora", {"nblocks": 2}, MERGE),
        ("modules_to_save", ["norm"], MERGE),
        ("lora_bias", True, AGAIN),
        ("layer_replication", [[0, 2], [1, 3]], AGAIN),
        ("alora_invocation_tokens", [77, 5], AGAIN),
        ("use_qalora", True, AGAIN),
        ("arrow_config", {"top_k": 3}, AGAIN),
        ("megatron_config", {"a": 1}, AGAIN),
        ("a_key_of_tomorrow", True, MERGE),
        ("a_key_of_tomorrow", {"x": None}, MERGE),
        ("init_lora_weights", "pissa", "path_initial_model_for_weight_conversion"),
        ("init_lora_weights", "pissa_niter_16", "path_initial_model_for_weight_conversion"),
        ("init_lora_weights", "OLoRA", "path_initial_model_for_weight_conversion"),
        ("init_lora_weights", "corda", "path_initial_model_for_weight_conversion"),
        ("init_lora_weights", "lora_ga", "path_initial_model_for_weight_conversion"),
        ("init_lora_weights", "loftq", "Merge it where it was trained"),
        ("init_lora_weights", "of_tomorrow", "Merge it where it was trained"),
        ("init_lora_weights", 1, "Merge it where it was trained"),
        ("modules_to_save", ["embed_tokens", "lm_head"], "cannot be used in any way"),
        ("modules_to_save", ["model.lm_head"], "cannot be used in any way"),
        ("target_modules", ["q_proj", "embed_tokens"], "cannot be used in any way"),
        ("rank_pattern", {"q_proj": 8}, MERGE),
        ("alpha_pattern", {"layers.1.*": 4}, MERGE),
        ("rank_pattern", ["q_proj"], "expected names and numbers"),
        ("rank_pattern", {"(": 3}, "expected regular expressions"),
        ("rank_pattern", {"q_proj": "8"}, "expected a whole number"),
        ("alpha_pattern", {"q_proj": None}, "expected a number above 0"),
        ("use_dora", "yes", "expected true or false"),
        ("use_rslora", 1, "expected true or false"),
    ],
)
def test_other_kinds_are_refused_by_name(folder, key, value, remedy):
    message = refused(configure(folder, **{key: value}))
    assert key in message and remedy in message


def test_a_tied_table_can_be_merged(folder):
    """PEFT then trains one table for both, so what is merged of it is read."""
    values = {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    assert MERGE in refused(configure(folder, **values))


RANKS = ('"3"', "3.0", "true", "null", "0", "-1", "[3]", "1000000000", "1" + "0" * 400)


@pytest.mark.parametrize("value", RANKS)
def test_ranks_that_are_none(folder, value):
    text = json.dumps(CONFIG).replace('"r": 3', f'"r": {value}')
    assert "expected a whole number above 0" in refused(configure(folder, text))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("0", "with it the adapter does nothing"),
        ("0.0", "with it the adapter does nothing"),
        ("-8", "expected a number above 0"),
        ("NaN", "expected a number above 0"),
        ("Infinity", "expected a number above 0"),
        ("1e999", "expected a number above 0"),
        ("1" + "0" * 400, "expected a number above 0"),
        ("1" + "0" * 5000, "cannot be read"),
        ('"16"', "expected a number above 0"),
        ("true", "expected a number above 0"),
        ("null", "expected a number above 0"),
    ],
)
def test_alphas_that_are_none(folder, value, said):
    text = json.dumps(CONFIG).replace('"lora_alpha": 8', f'"lora_alpha": {value}')
    assert said in refused(configure(folder, text))


def test_patterns_that_name_every_projection_alike(folder):
    """As PEFT matches them: the whole name, or its end after a dot."""
    assert_same(configure(folder, r=99, rank_pattern={"q_proj": 3, r".*\.down_proj": 3}))
    values = {"alpha_pattern": {"self_attn.q_proj": 6, r"layers\.\d+\.mlp\.down_proj": 6}}
    assert_same(configure(folder, **values), 2.0)
    assert_same(configure(folder, rank_pattern={"proj": 8, "o_proj": 8}))  # of none of these
    assert_same(configure(folder, use_rslora=True), lora.scaling(3, 8.0, rslora=True))


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("google/gemma-3-1b-it", "gemma3_1b"),
        ("unsloth/gemma-3-4b-it-unsloth-bnb-4bit", "gemma3_4b"),
        ("/models/gemma-2-2b", "gemma2_2b"),
        ("google/gemma-3n-E2B-it", "gemma3n_e2b"),
        ("google/gemma-3-270m", None),
        ("me/my-model-7b", None),
        ("google/gemma-7b", None),
        (None, None),
    ],
)
def test_the_base_model_it_names(folder, base, name):
    configure(folder, base_model_name_or_path=base)
    assert_same(folder)  # a model of no published name may be any of them
    spec = specs.get("gemma3_270m")
    message = refused(folder, spec)  # if not for its name, then for its shapes
    assert (f"{base!r} is {name}, and config.model.name = 'gemma3_270m'" in message) == bool(name)


def test_the_alpha_that_is_asked_for_is_the_right_one(folder):
    """Converted with rsLoRA, PiSSA's alpha is no short number."""
    alpha = 8 * 2**0.5
    configure(folder, lora_alpha=alpha, use_rslora=True)
    config = tiny_run.Project(folder.parent).values(
        lora__start=str(folder), lora__rank=3, lora__targets="q|down"
    )
    with pytest.raises(UserError, match=r"Set config\.lora\.alpha = ([\d.]+) and") as error:
        peft.start(config, SPEC)
    config.lora.alpha = float(str(error.value).partition("alpha = ")[2].partition(" and")[0])
    config.lora.rslora = True
    assert jax.tree.all(jax.tree.map(np.array_equal, peft.start(config, SPEC), ADAPTERS))
