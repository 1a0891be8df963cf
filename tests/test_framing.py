"""What training puts around a conversation, from the configuration and the rows that were read."""

import json

import pytest
from test_tokenizer import tiny

from sft.config import default
from sft.data.sets import framing, loading, sources
from sft.data.sets.framing import NOTHING, Framing
from sft.model import specs


def configured(tmp_path, rows=None, **reading):
    """A configuration with one training file."""
    config = default()
    config.data.cache = ""
    config.data.train = str(tmp_path / "train.jsonl")
    config.data.reading.update(reading)
    rows = rows or [{"input_text": "a", "output_text": "b"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return config


def of(config, tmp_path):
    """After the rows were counted, as ``sft train`` and ``sft data`` do."""
    spec = specs.tiny("gemma3")
    loading.write_report(tmp_path, loading.Sets(config, spec, tiny()).load(["train"]))
    return framing.of(config, tmp_path)


def chats(*systems):
    rows = []
    for system in systems:
        said = [("user", "a"), ("assistant", "b")]
        said = said if system is None else [("system", system), *said]
        rows.append({"messages": [{"role": role, "content": text} for role, text in said]})
    return rows


@pytest.mark.parametrize(
    ("template", "around"),
    [
        ("", NOTHING),
        ("{prompt}", NOTHING),
        ("Letters: {prompt}", ("Letters: ", "")),
        ("{{x}} {prompt}\n{{", ("{x} ", "\n{")),
        ("{prompt}\n\nAgain: {prompt}!", ("", "\n\nAgain: ", "!")),
    ],
)
def test_templates(tmp_path, template, around):
    config = configured(tmp_path, template=template)
    found = of(config, tmp_path)
    assert found == Framing("", around)
    (row,) = sources.read(config, ["train"])["train"].conversations
    assert found.prompt("a") == row.turns[0].text


@pytest.mark.parametrize("template", ["{prompt} in {language}", "{input}", "{language}: {input}"])
def test_a_template_with_other_columns_is_lost(tmp_path, template):
    row = {"input_text": "a", "output_text": "b", "language": "de", "input": "x"}
    found = of(configured(tmp_path, [row], template=template), tmp_path)
    assert found.around == NOTHING
    (lost,) = found.lost
    assert repr(template) in lost and "other columns than the prompt" in lost


def test_the_instruction_of_rows_without_one(tmp_path):
    assert of(configured(tmp_path, instruction="Be brief."), tmp_path) == Framing("Be brief.")
    config = configured(tmp_path, chats("Be long.", None), instruction="Be brief.")
    assert of(config, tmp_path) == Framing("Be brief.")


@pytest.mark.parametrize("instruction", ["", "Be brief."])
def test_the_instruction_that_all_rows_bring(tmp_path, instruction):
    config = configured(tmp_path, chats("Be long.", "Be long."), instruction=instruction)
    assert of(config, tmp_path) == Framing("Be long.")


def test_a_column_of_the_instruction(tmp_path):
    row = {"input_text": "a", "output_text": "b", "s": "Be long."}
    assert of(configured(tmp_path, [row], system="s"), tmp_path) == Framing("Be long.")


def test_rows_with_different_instructions(tmp_path):
    for systems in (("Be long.", "Be brief."), ("Be long.", None)):
        found = of(configured(tmp_path, chats(*systems)), tmp_path)
        assert found.system == ""
        assert "had different system instructions" in found.lost[0]


def sourced(tmp_path, **sources_):
    config = configured(tmp_path, instruction="Be brief.", template="Q: {prompt}")
    path = config.data.train
    config.data.sources = {name: {"path": path} | given for name, given in sources_.items()}
    config.data.train = ",".join(sources_)
    return config


def test_sources_that_agree(tmp_path):
    given = {"instruction": "Be kind.", "template": "{prompt}?"}
    config = sourced(tmp_path, a=given, b=given)
    assert of(config, tmp_path) == Framing("Be kind.", ("", "?"))


def test_sources_that_differ(tmp_path):
    config = sourced(tmp_path, a={"template": ""}, b={"instruction": "", "template": "{prompt}?"})
    found = of(config, tmp_path)
    assert (found.system, found.around) == ("", NOTHING)
    templates, systems = found.lost
    assert "different templates (none, '{prompt}?')" in templates
    assert "different system instructions ('Be brief.', none)" in systems


def test_templates_that_say_the_same_do_not_differ(tmp_path):
    config = sourced(tmp_path, a={"template": ""}, b={"template": "{prompt}"})
    assert of(config, tmp_path) == Framing("Be brief.")


def test_a_run_whose_rows_were_not_counted(tmp_path):
    """One of an earlier version; what the configuration says holds all the same."""
    config = configured(tmp_path, template="Q: {prompt}")
    found = framing.of(config, tmp_path)
    assert found.around == ("Q: ", "") and "run `sft data`" in found.lost[0]
    assert of(config, tmp_path).lost == ()
    config.data.reading.instruction = "Be brief."
    (tmp_path / "data" / "report.json").unlink()
    assert framing.of(config, tmp_path) == Framing("Be brief.", ("Q: ", ""))
