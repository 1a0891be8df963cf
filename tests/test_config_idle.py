"""Settings that change nothing because of another one."""

from pathlib import Path

import pytest

from sft import config as configs
from sft.config import default, flatten, idle
from sft.tune import points

ROOT = Path(__file__).parents[1]
ADAPTERS = {"lora.rank": 0}
# A setting with a value, and the settings beside it with which it does something.
PAIRS = {
    "optim.final_scale=0.1": ({"optim.schedule": "constant"}, {"optim.schedule": "linear"}),
    "lora.alpha=3.0": (ADAPTERS, {}),
    "lora.rslora=True": (ADAPTERS, {}),
    "lora.targets=q": (ADAPTERS, {}),
    "lora.dropout=0.5": (ADAPTERS, {}),
    "eval.top_k=3": ({}, {"eval.temperature": 0.7}),
    "eval.top_p=0.9": ({}, {"eval.temperature": 0.7}),
    "eval.pattern=(x)": ({}, {"eval.metrics": "exact_match, regex_match"}),
    "eval.tolerance=0.1": ({"eval.metrics": "bleu"}, {"eval.metrics": "numeric_match"}),
    "eval.language=ja": ({}, {"eval.metrics": "rougeL"}),
    "eval.shots_max_length=9": ({}, {"eval.shots": 2}),
    "data.dedup.keep=none": ({}, {"data.dedup.substring": 50}),
    "data.dedup.engine=beam": ({}, {"data.dedup.substring": 50}),
    "data.dedup.beam=--x": (
        {"data.dedup.substring": 50},
        {"data.dedup.substring": 50, "data.dedup.engine": "beam"},
    ),
    "data.dedup.cosine=0.9": ({}, {"data.dedup.embeddings": "x.npy"}),
    "data.leakage.max_share=0.1": ({}, {"data.leakage.action": "error"}),
    "data.max_over_long=0.1": ({"data.over_long": "drop"}, {}),
    "data.augment.casing=0.1": ({}, {"data.augment.copies": 1}),
    "data.augment.copies=2": ({}, {"data.augment.templates": "x"}),
    "data.split.seed=4": ({}, {"data.split.test": 0.1}),
    "data.split.stratify=category": ({}, {"data.split.validation": 0.1}),
    "mine.share=0.5": ({"mine.select": "band"}, {}),
    "mine.low=0.5": ({}, {"mine.select": "band"}),
    "judge.weights=x": ({"judge.backend": "gemini"}, {}),
    "judge.url=x": ({}, {"judge.backend": "openai"}),
}


def made(values):
    usual = dict(flatten(default()))
    kinds = {key: type(usual[key]) for key in values}
    return configs.from_dict(
        usual | {k: v == "True" if kinds[k] is bool else kinds[k](v) for k, v in values.items()}
    )


@pytest.mark.parametrize("setting", PAIRS)
def test_said_where_it_changes_nothing_and_only_there(setting):
    key, value = setting.split("=", 1)
    beside, with_which_it_works = PAIRS[setting]
    (line,) = [line for line in idle.lines(made(beside | {key: value})) if f"config.{key} " in line]
    assert line.startswith(f"config.{key} = ") and "changes nothing: " in line
    works = idle.lines(made(with_which_it_works | {key: value}))
    assert not any(f"config.{key} " in line for line in works)


def test_every_rule_is_tried_and_names_settings_there_are():
    known = dict(flatten(default()))
    for rule in idle._RULES:
        keys = rule.keys.split()
        assert set(keys) <= set(known)
        assert any(setting.split("=")[0] in keys for setting in PAIRS)


@pytest.mark.parametrize(
    "path",
    [p for p in sorted((ROOT / "configs").rglob("*.py")) if p.name != "base.py"],
    ids=lambda p: p.stem,
)
def test_no_configuration_here_has_one(path):
    configurations = [configs.load(str(path))]
    if "def points" in path.read_text():
        found = points.check(configurations[0], points.from_file(str(path)), str(path))
        configurations += [point.config for point in found]
    lines = {line.split()[0] for config in configurations for line in idle.lines(config)}
    # Its runs of full tuning are those with adapters, with rank 0.
    assert lines == ({"config.lora.alpha"} if path.stem == "lora_or_full" else set())


def test_seen_on_the_command_line(tmp_path, capsys):
    from sft import cli

    words = ["--config.optim.schedule=constant", "--config.optim.final_scale=0.1"]
    config = ROOT / "configs/quickstart.py"
    cli.main(["sft", "recommend", f"--config={config}", f"--workdir={tmp_path}", *words])
    error = capsys.readouterr().err
    assert error.startswith("note: config.optim.final_scale = 0.1 changes nothing: optim.schedule")
