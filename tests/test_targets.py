"""``config.lora.targets``: every alternative means something, and what is tuned is said."""

import json

import pytest
import tiny_run
from tiny import make_config

from sft.errors import UserError
from sft.model import adapted, lora, specs
from sft.model.targets import match

shared, registered = tiny_run.shared, tiny_run.registered
ATTENTION, MLP = ("q", "k", "v", "o"), ("gate", "up", "down")


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("q|v", ("q", "v")),
        (".*", lora.NAMES),
        ("[kq]", ("q", "k")),
        ("[^qk|]", ("v", "o")),
        (".*o.*", ("o", "down")),  # our names come first: not every ..._proj
        ("(?i)Q|V", ("q", "v")),
        ("(?!k).", ("q", "v", "o")),
        ("(g|a|t|e)+", ("gate",)),  # repeated: no alternative is a name by itself
        ("(q)|v\\1?", ("q", "v")),
        ("(?P<a>q|k)", ("q", "k")),
        ("gate|(up|down)", MLP),
        ("q(_proj)?|v", ("q", "v")),
        # As PEFT calls them.
        ("all-linear", lora.NAMES),
        ("q_proj|v_proj", ("q", "v")),
        ("(q|v)_proj|gate", ("q", "v", "gate")),
        ("self_attn.q_proj", ("q",)),
        (r"self_attn\.(q|k)_proj|mlp.down_proj", ("q", "k", "down")),
        (r"(?:self_attn|mlp)\.\w+", lora.NAMES),
        (".*attn.*|gate|up|down", lora.NAMES),
        ("mlp.*", MLP),
    ],
)
def test_what_matches(targets, names):
    assert match(targets) == names


@pytest.mark.parametrize(
    ("targets", "part"),
    [
        ("q|v_pro", "v_pro"),
        ("q|vv|gate", "vv"),
        ("q|k|v|o|mlp", "mlp"),
        ("q|(k|zz)", "zz"),
        ("(q|x)_proj", "x"),
        ("q|(k|(v|(w)))", "(w)"),
        ("(self_attn|mlpp).(q|gate)_proj", "mlpp"),
        ("(self_attn|mlp).(q|gate|gates)_proj", "gates"),
        ("q|", ""),
        ("q||v", ""),
        (r"q|[|v]k", "[|v]k"),
        (r"q|\||k", r"\|"),
        (r"q|v\\|k", r"v\\"),
    ],
)
def test_an_alternative_that_matches_nothing_is_named(targets, part):
    with pytest.raises(UserError) as error:
        match(targets)
    assert f"config.lora.targets = {targets!r}: {part!r} in it matches no" in str(error.value)
    assert "Known: q, k, v, o, gate, up, down" in str(error.value)


@pytest.mark.parametrize(
    ("targets", "meant"),
    [
        ("q,v", "q|v"),
        ("q_proj,v_proj", "q|v"),
        ("qkv", "q|k|v"),
        ("['q_proj', 'v_proj']", "q|v"),
        ("[q, v]", "q|v"),
        ('["gate_proj"]', "gate"),
        ("mlp", "gate|up|down"),
        ("attn|mlp", "q|k|v|o|gate|up|down"),
        ("query", "q"),
        ("self_attn", "q|k|v|o"),
        ("q|k|v|o|mlp", "q|k|v|o|gate|up|down"),
    ],
)
def test_what_was_meant_is_said_and_works(targets, meant):
    with pytest.raises(UserError, match=r"Did you mean '([^']+)'") as error:
        match(targets)
    assert f"Did you mean {meant!r}?" in str(error.value)
    assert match(meant) == tuple(meant.split("|"))


@pytest.mark.parametrize("targets", ["ga", "", "Q", "layers.0", "lm_head", "embed_tokens"])
def test_where_nothing_can_be_guessed_nothing_is(targets):
    with pytest.raises(UserError, match="matches no projection") as error:
        match(targets)
    assert "Did you mean" not in str(error.value)


def test_what_is_tuned_is_counted():
    spec = specs.get("gemma3_270m")
    found = adapted.describe(spec, make_config(lora__rank=8, lora__alpha=16.0))
    assert found["trained"] == 1_898_496  # as PEFT counts them
    assert found["parameters"] == 268_098_176  # as the published model has them
    assert adapted.said(found) == (
        "train adapters of rank 8, scaled by 2, on q, k, v, o, gate, up, down in all 18 layers of "
        "gemma3_270m: 1,898,496 parameters, 0.71% of the model's 268,098,176"
    )
    some = adapted.describe(spec, make_config(lora__targets="q|down", lora__rank=4))
    assert some["projections"] == ["q", "down"] and some["layers"] == 18
    assert some["trained"] == 18 * 4 * (640 + 1024 + 2048 + 640)
    dora = adapted.describe(
        spec, make_config(lora__targets="q|down", lora__rank=4, lora__dora=True)
    )
    assert dora["trained"] == some["trained"] + 18 * (1024 + 640)
    assert adapted.said(dora).startswith("train DoRA adapters of rank 4")
    full = adapted.describe(spec, make_config(lora__rank=0))
    assert adapted.said(full) == "train all 268,098,176 parameters of gemma3_270m"
    assert (full["trained"], full["rank"], full["projections"]) == (268_098_176, None, [])


def test_training_says_and_keeps_what_it_tunes(shared, tmp_path, capsys):
    words = ("--config.lora.targets=q_proj|down", "--config.train.epochs=1")
    assert shared.main("train", tmp_path / "run", *words) == 0
    assert "on q, down in all 3 layers of tiny_run: 2,112 parameters" in capsys.readouterr().out
    kept = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert kept["adapted"]["projections"] == ["q", "down"] and kept["adapted"]["trained"] == 2112
    assert "first_step" in kept
    assert shared.main("train", tmp_path / "bad", "--config.lora.targets=q|v_pro") == 2
    assert "'v_pro' in it matches no projection" in capsys.readouterr().err
