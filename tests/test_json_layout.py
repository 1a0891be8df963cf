"""JSON that is not one row a line: what it is, and what to do, which works."""

import gzip
import json
import subprocess

import pytest

from sft.data.read import json_rows, records
from sft.data.read.records import Reading, Source
from sft.errors import UserError

ROWS = [{"input_text": f"q {n}", "output_text": f"a {n}"} for n in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
PRETTY = "\n".join(json.dumps(row, indent=2) for row in ROWS) + "\n"
CHATS = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]] * 2


def answers(path, **reading) -> list[str]:
    found = records.read([Source("", str(path), Reading(**reading))])
    return [conversation.turns[1].text for conversation in found.conversations]


def places(path, **reading) -> list[int]:
    found = records.read([Source("", str(path), Reading(**reading))])
    return [int(c.source.rpartition(":")[2]) for c in found.conversations]


def refused(path, **reading) -> str:
    with pytest.raises(UserError) as error:
        answers(path, **reading)
    text = str(error.value)
    assert text.startswith(str(path)) and text.isprintable()
    return text.removeprefix(str(path))


def put(path, text) -> str:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


RIGHT = ["a 0", "a 1", "a 2"]
LISTS = {
    "one line": json.dumps(ROWS),
    "pretty": json.dumps(ROWS, indent=1),
    "marked": "\ufeff\n \n" + json.dumps(ROWS, indent=1),
    "a row a line": "[" + ",\n".join(map(json.dumps, ROWS)) + "]\n",
}
OBJECTS = {
    "pretty": PRETTY,
    "windows": PRETTY.replace("\n", "\r\n"),
    "close": PRETTY.replace("}\n{", "}{"),
    "marked": "\ufeff\n" + PRETTY,
    "blank lines": PRETTY.replace("}\n{", "}\n\n\n{"),
    "one row": json.dumps(ROWS[0], indent=2),
}


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz"])
@pytest.mark.parametrize("kind", LISTS)
def test_a_list_under_the_name_of_lines(tmp_path, name, kind):
    path = put(tmp_path / name, LISTS[kind])
    assert refused(path) == (
        ": holds JSON, but a list and not one row a line. Set config.data.reading.container = "
        "'json', or rename it to .json."
    )
    assert answers(path, container="json") == RIGHT
    assert answers(path.rename(tmp_path / name.replace("jsonl", "json").replace("nd", ""))) == RIGHT


@pytest.mark.parametrize("kind", OBJECTS)
def test_objects_over_several_lines(tmp_path, kind):
    path = put(tmp_path / "a.jsonl", OBJECTS[kind])
    assert refused(path, setting="config.data.sources.faq") == (
        ": holds JSON, but objects over several lines and not one row a line. Set "
        "config.data.sources.faq.container = 'json', or rename it to .json."
    )
    expected = RIGHT[:1] if kind == "one row" else RIGHT
    assert answers(path, container="json") == expected
    assert answers(path.rename(tmp_path / "a.json")) == expected


def test_lines_of_objects_are_counted(tmp_path):
    assert places(put(tmp_path / "a.json", PRETTY)) == [1, 5, 9]
    assert places(put(tmp_path / "b.json", "\n\n" + PRETTY.replace("}\n{", "}{"))) == [3, 6, 9]
    cut = put(tmp_path / "c.json", PRETTY[:-9])
    found = records.read([Source("", str(cut))], max_rejected=1.0)
    assert len(found.conversations) == 2
    assert found.rejected[0][0] == f"{cut}:9"
    assert found.rejected[0][1].startswith("cut off: the file ends inside this item, line 11")
    broken = put(tmp_path / "d.json", PRETTY.replace("q 1", 'q "1'))
    assert refused(broken).startswith(":6: invalid JSON: ")


def test_lines_with_a_damaged_first_row_stay_lines(tmp_path):
    for first in ('{"input_text": "q",\n"output_text": "a"}', "{", '{"a": }', "[1, 2]", "x"):
        for name in ("a.jsonl", "a.json")[: 1 if first[0] == "[" else 2]:
            path = put(tmp_path / name, f"{first}\n{LINES}")
            found = records.read([Source("", str(path))], max_rejected=0.5)
            assert len(found.conversations) == 3, first


def test_lines_that_are_lists_are_no_list(tmp_path):
    path = put(tmp_path / "a.jsonl", "".join(json.dumps(chat) + "\n" for chat in CHATS))
    assert refused(path).startswith(":1: not an object: found a list, expected one JSON object per")


WRAPPED = [
    ({"version": 1, "data": ROWS}, "data"),
    ({"train": ROWS, "test": ROWS[:1]}, "train"),
    ({"meta": [{"x": 1}], "rows": ROWS}, "rows"),
    ({"the rows": ROWS}, "the rows"),
    ({"data": {"page": 1, "rows": ROWS}}, "data.rows"),
    ({"schema": {"fields": ROWS}, "data": ROWS}, "data"),
    ({"a": {"b": {"c": ROWS}}, "d": [{"x": 1}]}, "a.b.c"),
]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "the file.json"])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("value, key", WRAPPED)
def test_a_list_inside_an_object_can_be_written_out(tmp_path, name, indent, value, key):
    path = put(tmp_path / name, json.dumps(value, indent=indent))
    text = refused(path)
    assert text.startswith(": holds one JSON object ('") and f"its list '{key}'" in text
    command = text.partition("write them out: ")[2]
    new = tmp_path / "new.jsonl"
    subprocess.run(command.replace("NEW.jsonl", str(new)), shell=True, check=True)
    assert answers(new) == RIGHT


@pytest.mark.parametrize("name", ["dataset_info.json", "a.jsonl"])
def test_an_object_without_rows(tmp_path, name):
    path = put(tmp_path / name, json.dumps({"features": {"messages": []}, "splits": {}}, indent=1))
    assert refused(path) == (
        ": holds one JSON object ('features', 'splits'), expected a list of rows or one row a "
        "line. Leave the file out if it has no rows; if it is a single row, name its columns in "
        "config.data.reading."
    )
    row = put(tmp_path / "b.json", json.dumps({"q": "a", "x": "b"}, indent=1))
    assert refused(row).endswith("name its columns in config.data.reading.")
    assert answers(row, prompt="q", response="x") == ["b"]


def test_one_row_with_a_list_inside_is_a_row(tmp_path):
    row = ROWS[0] | {"documents": [{"title": "x"}]}
    chat = {"messages": CHATS[0], "documents": [{"title": "x"}]}
    for indent in (None, 1):
        for given, answer in ((row, "a 0"), (chat, "b")):
            assert answers(put(tmp_path / "a.json", json.dumps(given, indent=indent))) == [answer]
    misspelt = put(tmp_path / "a.jsonl", json.dumps({"message": CHATS[0]}))
    assert refused(misspelt).startswith(":1: unknown key: 'message'; did you mean 'messages'?")


def test_carriage_returns_alone(tmp_path):
    path = put(tmp_path / "a file.jsonl", LINES.replace("\n", "\r"))
    text = refused(path)
    assert text.startswith(": lines end with CR alone, expected LF. Write it: tr ")
    new = tmp_path / "new.jsonl"
    command = text.partition("Write it: ")[2].rstrip(".")
    subprocess.run(command.replace("NEW", str(new)), shell=True, check=True)
    assert answers(new) == RIGHT
    assert answers(put(path, LINES.replace("\n", "\r\n"))) == RIGHT


COLUMNS = [
    {"input_text": {"0": "q", "1": "r"}, "output_text": {"0": "a", "1": "b"}},
    {"input_text": ["q", "r"], "output_text": ["a", "b"]},
    {"columns": ["input_text", "output_text"], "index": [0], "data": [["q", "a"]]},
    {"0": {"input_text": "q", "output_text": "a"}, "1": {"input_text": "r", "output_text": "b"}},
]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("value", COLUMNS, ids=["columns", "lists", "split", "index"])
def test_a_table_by_columns_is_called_one(tmp_path, name, indent, value):
    path = put(tmp_path / name, json.dumps(value, indent=indent))
    assert refused(path).startswith(": holds one JSON object of columns, expected a list of rows")
    assert "orient='records', lines=True" in refused(path)


def test_an_object_too_long_for_a_look(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "MAX_LINE", 100)
    monkeypatch.setattr(json_rows, "_CHUNK", 16)
    path = put(tmp_path / "a.jsonl", json.dumps({"x": "y" * 500}, indent=1))
    assert refused(path).startswith(": holds one JSON object (no keys), expected a list of rows")
    for name in ("a.json", "a.jsonl"):
        path = put(tmp_path / name, json.dumps({"v": 1, "the rows": ROWS * 50}, indent=1))
        text = refused(path)
        assert "('the rows')" in text and " 'the rows' < " in text
    path = put(tmp_path / "a.jsonl", json.dumps(ROWS * 50, indent=1))
    assert "a list and not one row a line" in refused(path)
