import re
from pathlib import Path

import pytest

from sft import config as configs
from sft.config import check, default, difference, fingerprint, flatten, from_dict, nearest
from sft.config.check import validate
from sft.config.text import strings
from sft.data import conversation
from sft.data.batches import truncation
from sft.data.chat import encoding
from sft.data.dedup import options, repeats, substring
from sft.errors import UserError

FILES = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


def changed(**values):
    config = default()
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in values.items()})
    return config


def test_default_is_valid_and_locked():
    validate(default())
    with pytest.raises(AttributeError):
        default().optim.lr = 1.0


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_config_loads_validates_and_says_its_command(path):
    config = configs.load(str(path))
    validate(config)
    assert fingerprint(config) != fingerprint(default())
    assert "sft" in path.read_text().split('"""')[1]


@pytest.mark.parametrize(
    "key, suggested",
    [
        ("optim.lr", "optim.learning_rate"),
        ("lr", "optim.learning_rate"),
        ("optim.learnin_rate", "optim.learning_rate"),
        ("train.learning_rate", "optim.learning_rate"),
        ("trian.batch_size", "train.batch_size"),
        ("epochs", "train.epochs"),
        ("model.nmae", "model.name"),
        ("lora.rnak", "lora.rank"),
    ],
)
def test_nearest(key, suggested):
    assert nearest(key) == f" Did you mean {suggested!r}?"


def test_nothing_is_near():
    assert nearest("xyzzy.qwrtp") == ""


def test_unknown_key():
    config = default()
    with config.unlocked():
        config.optim.lr = 1.0
    with pytest.raises(UserError, match=r"config\.optim\.lr: no such key.*learning_rate"):
        validate(config)


def test_missing_key():
    config = default()
    with config.unlocked():
        del config.optim["b1"]
    with pytest.raises(UserError, match=r"config\.optim\.b1: missing"):
        validate(config)


@pytest.mark.parametrize("key, value", [("seed", 1.5), ("lora.rslora", 1), ("model.name", None)])
def test_wrong_type(key, value):
    values = dict(flatten(default())) | {key: value}
    config = default()
    group, _, leaf = key.rpartition(".")
    with config.ignore_type():
        setattr(config[group] if group else config, leaf, value)
    with pytest.raises(UserError, match=re.escape(f"config.{key} = {values[key]!r}: expected")):
        validate(config)


@pytest.mark.parametrize(
    "key, value",
    [
        ("seed", -1),
        ("optim.learning_rate", 0.0),
        ("optim.learning_rate", float("nan")),
        ("optim.warmup", 1.1),
        ("optim.b2", -0.1),
        ("lora.rank", -1),
        ("train.epochs", 0),
        ("train.microbatches", 3),
        ("train.save_every", -1),
        ("eval.top_p", 2.0),
        ("model.dtype", "float16"),
        ("optim.schedule", "cosin"),
        ("mesh.platform", "tpuv5"),
        ("lora.targets", "q|("),
        ("judge.timeout", float("inf")),
        ("judge.price_out", float("inf")),
        ("judge.price_in", float("nan")),
        ("data.reading.weight", float("inf")),
        ("eval.temperature", float("inf")),
        ("optim.weight_decay", float("inf")),
        ("lora.alpha", float("inf")),
        ("eval.compare", "line"),
        ("eval.stop", "a,,b"),
        ("eval.stop", "\\x"),
        ("eval.labels", "yes"),
        ("eval.labels", "yes, yes"),
        ("train.select", "label_accuracy"),
    ],
)
def test_bad_value_names_key_and_value(key, value):
    with pytest.raises(UserError, match=re.escape(str(value))) as caught:
        validate(changed(**{key: value}))
    assert f"config.{key}" in str(caught.value)


def test_every_number_must_be_finite():
    floats = [key for key, value in flatten(default()) if isinstance(value, float)]
    for key in floats:
        for value in (float("inf"), float("-inf"), float("nan")):
            with pytest.raises(UserError, match=rf"config\.{key} = .*: expected a finite number"):
                validate(changed(**{key: value}))
    config = default()
    config.data.sources = {"mine": {"path": "a.jsonl", "weight": float("inf")}}
    with pytest.raises(UserError, match=r"sources\.mine\.weight = inf: expected a finite"):
        validate(config)


def test_strings_of_a_setting():
    assert strings("") == [] and strings("a,b c, d") == ["a", "b c", " d"]
    assert strings("\\n,\\t,\\\\n,a\\,b") == ["\n", "\t", "\\n", "a,b"]
    assert strings("\n\n") == ["\n\n"]  # as a file of configuration may have it
    for text in (",", "a,", "\\", "\\q"):
        with pytest.raises(ValueError):
            strings(text)


def test_choices_are_those_of_the_code_that_reads_them():
    """The check comes before anything heavy is imported, so it has lists of its own."""
    theirs = {
        "data.reading.container": ("", *conversation.CONTAINERS),
        "data.chat": ("", *encoding.FORMATS),
        "data.train_on": encoding.TRAIN_ON,
        "data.eval_on": encoding.TRAIN_ON,
        "data.over_long": truncation.POLICIES,
        "data.dedup.engine": repeats.ENGINES,
        "data.dedup.scope": repeats.SCOPES,
        "data.dedup.keep": repeats.KEEPS,
        "data.dedup.action": substring.ACTIONS,
        "data.leakage.action": options.LEAKAGE,
    }
    for key, choices in theirs.items():
        assert set(check._CHOICES[key]) == set(choices), key
    assert check._REPAIRS == conversation.REPAIRS


def test_fingerprint_is_stable():
    assert fingerprint(default()) == fingerprint(from_dict(dict(flatten(default()))))
    assert re.fullmatch("[0-9a-f]{12}", fingerprint(default()))


@pytest.mark.parametrize("key", [key for key, _ in flatten(default())])
def test_fingerprint_follows_every_key(key):
    value = dict(flatten(default()))[key]
    other = value + "x" if isinstance(value, str) else (not value if value is False else value + 1)
    if value is True:
        other = False
    assert fingerprint(changed(**{key: other})) != fingerprint(default())


def test_difference_names_both_values():
    lines = difference({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4})
    assert lines == {"b": "b: 3 there, 2 here", "c": "c: 4 there, None here"}
