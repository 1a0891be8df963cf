"""What messages about data say to do is done here, and it works."""

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest
from test_files import write

from sft.config import default, flatten
from sft.config.check import validate
from sft.data.sets import sources
from sft.errors import UserError

ROOT = Path(__file__).parents[1]
PAIR = {"input_text": "a", "output_text": "b"}
ASK, TELL = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
THINKS = {"messages": [ASK, TELL | {"reasoning": "hm"}]}


def config_of(path, settings=None):
    config = default()
    config.data.train = str(path)
    config.update_from_flattened_dict(settings or {})
    validate(config)
    return config


def texts(path, settings=None) -> list[list[str]]:
    found = sources.read(config_of(path, settings), ["train"])["train"]
    return [[turn.text for turn in c.turns] for c in found.conversations]


def refused(path, settings=None) -> str:
    with pytest.raises(UserError) as error:
        texts(path, settings)
    assert "\n" not in str(error.value)
    return str(error.value)


READ, GROUP, TEMPLATE = "data.reading.", "data.reading.group", "data.reading.template"
TOLD = [  # rows, settings, what the message says to do, that as settings, and what is read then
    (
        [{"q": "a", "output_text": "b"}],
        {},
        "the row has 'q', 'output_text': set config.data.reading.prompt to the column of the pr",
        {f"{READ}prompt": "q"},
    ),
    (
        [{"input_text": "a", "x": "b"}],
        {},
        "the row has 'input_text', 'x': set config.data.reading.response to the column of the an",
        {f"{READ}response": "x"},
    ),
    (
        [{"prompt": "a", "chosen": "b", "rejected": "c"}],
        {f"{READ}prompt": "prompt"},
        "to train on the better answer, set config.data.reading.response = 'chosen'",
        {f"{READ}response": "chosen"},
    ),
    (
        [PAIR | {"history": [["x", "y"]]}],
        {},
        "to read them, set config.data.reading.history = 'history'",
        {f"{READ}history": "history"},
    ),
    (
        [THINKS],
        {},
        "add drop_thoughts to config.data.reading.repair",
        {f"{READ}repair": "drop_thoughts"},
    ),
    (
        [{"messages": [TELL, *THINKS["messages"]]}],
        {f"{READ}repair": "leading_model"},
        "add drop_thoughts to config.data.reading.repair",
        {f"{READ}repair": "leading_model,drop_thoughts"},
    ),
    ([PAIR], {GROUP: "id"}, "correct config.data.reading.group", {GROUP: "input_text"}),
    ([PAIR | {"id": ""}], {GROUP: "id"}, 'or set that to ""', {GROUP: ""}),
    (
        [PAIR],
        {f"{READ}system": "rules"},
        "config.data.reading.system = 'rules'; the rows have 'input_text', 'output_text'. Correct",
        {f"{READ}system": ""},
    ),
    (
        [PAIR],
        {f"{READ}history": "past"},
        "config.data.reading.history = 'past'; the rows have 'input_text', 'output_text'. Correct",
        {f"{READ}history": ""},
    ),
    (
        [PAIR],
        {TEMPLATE: "{prompt} {inptu}"},
        "no row has the column 'inptu' of config.data.reading.template = '{prompt} {inptu}'; the r",
        {TEMPLATE: "{prompt} {output_text}"},
    ),
    (
        [{"messages": [ASK, TELL], "x": "y"}],
        {TEMPLATE: "{x}"},
        "config.data.reading.template = '{x}' has no {prompt}, so this row with 'messages' would",
        {TEMPLATE: "{x} {prompt}"},
    ),
    (
        [PAIR] * 4 + [PAIR | {"train": False}],
        {},
        "marked as not to be trained. 1 of 5 rows rejected (nothing to train 1); the limit is 1.0%",
        {"data.max_rejected": 0.2},
    ),
    (
        [PAIR] * 4 + [{"input_text": "a"}],
        {},
        "Correct them, or raise config.data.max_rejected.",
        {"data.max_rejected": 0.2},
    ),
]


@pytest.mark.parametrize("rows, given, told, settings", TOLD, ids=range(len(TOLD)))
def test_the_setting_that_is_named_helps(tmp_path, rows, given, told, settings):
    path = write(tmp_path / "a.jsonl", rows)
    assert told in refused(path, given)
    found = texts(path, given | settings)
    assert found and all(turns[-1] == "b" for turns in found)


@pytest.mark.parametrize("rows, given, told, settings", TOLD, ids=range(len(TOLD)))
def test_in_a_source_the_settings_of_the_source_are_named(tmp_path, rows, given, told, settings):
    def of_source(values):
        return {key.replace(READ, "data.sources.faq."): value for key, value in values.items()}

    config = default()
    config.data.train = "faq"
    path = write(tmp_path / "a.jsonl", rows)
    ours = {f"{READ}{key}": value for key, value in dict(default().data.reading).items()}
    config.data.sources = {"faq": {"path": path, **{k.split(".")[-1]: v for k, v in ours.items()}}}
    config.update_from_flattened_dict(of_source(given))
    with pytest.raises(UserError) as error:
        sources.read(config, ["train"])
    named = told.replace("config.data.reading", "config.data.sources.faq")
    assert named[:60] in str(error.value)
    config.update_from_flattened_dict(of_source(settings))
    assert sources.read(config, ["train"])["train"].conversations


def test_a_source_that_is_misspelt(tmp_path):
    path = write(tmp_path / "a.jsonl", [PAIR])
    config = default()
    config.data.sources = {"faq": {"path": path}}
    config.data.train = "fqa"
    expected = "config.data.train: 'fqa' is neither a file nor one of config.data.sources: faq."
    with pytest.raises(UserError, match=f"^{re.escape(expected)}"):
        sources.read(config, ["train"])
    config.data.train = "faq"
    assert len(sources.read(config, ["train"])["train"].conversations) == 1


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_the_command_that_makes_windows_text_utf8_works(tmp_path, name):
    row = {"input_text": "Größe – naïve?", "output_text": "“50 €”"}
    path = tmp_path / name
    write(path, [row])
    path.write_bytes(path.read_bytes().decode().encode("cp1252"))
    told = refused(path).partition("Save the file as UTF-8: ")[2].partition(", if Windows")[0]
    new = tmp_path / f"new-{name}"
    command = told.replace("OLD", str(path)).replace("NEW", str(new))
    subprocess.run(command, shell=True, check=True)
    assert texts(new) == [[*row.values()]]


def test_a_folder_names_globs_that_are_read(tmp_path):
    (tmp_path / "d" / "train").mkdir(parents=True)
    write(tmp_path / "d" / "train" / "data-00000-of-00001.arrow", [PAIR])
    glob = refused(tmp_path / "d").partition("as in ")[2]
    assert glob == f"{tmp_path}/d/train/*.arrow"
    assert texts(glob) == [["a", "b"]]


@pytest.mark.parametrize("name", ["a.dat", "a"])
def test_an_unknown_ending_and_the_container(tmp_path, name):
    (tmp_path / name).write_text(json.dumps(PAIR))
    told = refused(tmp_path / name)
    assert "unknown ending" in told and "set config.data.reading.container" in told
    assert texts(tmp_path / name, {f"{READ}container": "jsonl"}) == [["a", "b"]]


def test_every_setting_that_a_message_about_data_names_is_one():
    known = {key for key, _ in flatten(default())} | {"data.sources", "data.reading", "data.train"}
    named = {
        name.rstrip(".")
        for file in (ROOT / "sft" / "data").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for name in re.findall(r"config\.((?:data|loss|model)\.[a-z_.]+)", node.value)
    }
    assert {"data.reading", "data.max_rejected", "loss.prompt_weight"} <= named
    groups = {key.rpartition(".")[0] for key in known}
    assert [name for name in named if name not in known | groups] == []
