"""One behaviour in every container: the same rows are the same conversations, rejects and notes."""

import csv
import json
import math
from pathlib import Path

import pyarrow
import pytest
from pyarrow import ipc
from test_files import write

from sft.data.read import records
from sft.data.read.records import Reading, Source

ASK, TELL = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
HUMAN, GPT = {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}
USER = {"role": "user", "parts": [{"text": "a", "fileData": None}]}
MODEL = {"role": "model", "parts": [{"text": "b", "fileData": None, "thought": False}]}
PAIR = {"input_text": "a", "output_text": "b"}


def chat(**marks):
    return {"messages": [ASK, TELL | marks, ASK, TELL]}


def system(value):
    return {"messages": [{"role": "system", "content": value}, ASK, TELL]}


def pairs(name, *values):
    return [PAIR | {name: value} for value in values]


SETS = {
    "messages": ([chat(weight=w, tool_calls=None, name=None) for w in (0, 1, None)], {}),
    "flags": ([chat(train=t) for t in (False, True, None)], {}),
    "unclear": ([chat(weight=w) for w in (0.5, 1.0, None)], {}),
    "masks": ([chat(loss_mask=m) for m in ([0, 1], None, [])], {}),
    "system": ([system(s) for s in ("", None, " ", "\u200b", "S")], {}),
    "turns": ([{"conversations": [HUMAN | {"weight": w}, GPT]} for w in (None, 1, 0)], {}),
    "roles": ([{"conversations": [ASK, TELL]}, {"conversations": [ASK, TELL | {"role": "X"}]}], {}),
    "gemini": ([{"contents": [USER, MODEL], "systemInstruction": s} for s in (None, USER)], {}),
    "thoughts": ([chat(reasoning_content=r) for r in ("", None, "hm")], {}),
    "dropped": ([chat(reasoning_content=r) for r in ("", "hm")], {"repair": "drop_thoughts"}),
    "labels": (pairs("label", 0, 1, -2), {"response": "label"}),
    "floats": (pairs("label", 0.5, math.nan, 3.0, None), {"response": "label"}),
    "yes or no": (pairs("label", True, False, None), {"response": "label"}),
    "infinite": (pairs("label", 1.5, math.inf, -math.inf), {"response": "label"}),
    "prompts": (pairs("x", 1, 2, None), {"prompt": "x", "system": "x"}),
    "answers": (pairs("x", "b", "", None, "\u200b\u2060", "nan", "None"), {"response": "x"}),
    "missing": ([PAIR, {"input_text": "a"}], {}),
    "template": (pairs("x", "t", "", None, " "), {"template": "{prompt} {x}"}),
    "columns": (pairs("x", "t", "", None, "\ufeff"), {"template": "{x}{y}"}),
    "numbers": (pairs("x", 1.5, math.nan, 2.0), {"template": "{x}: {prompt}"}),
    "groups": (pairs("g", "1", "", None, "3.0", " ", "nan"), {"group": "g", "category": "g"}),
    "ids": (pairs("g", 1.0, 3.5, math.nan, None), {"group": "g"}),
    "whole": (pairs("g", 1, 2, None), {"group": "g", "category": "g"}),
    "tools": (pairs("tools", "[]", "", None, "null", '[{"type": "function"}]'), {}),
    "images": (pairs("images", [], None, ["x.png"]), {}),
    "row flags": (pairs("train", True, False, None), {}),
    "row weights": (pairs("weight", 1.0, 0.0, 0.5, math.nan), {}),
    "messages in columns": ([{"p": [ASK], "c": [TELL]}] * 2, {"prompt": "p", "response": "c"}),
    "history": (pairs("history", [["x", "y"]], [], None), {}),
    "past": (pairs("past", [["x", "y"]], [], None), {"history": "past"}),
    "not read": (pairs("meta", {"x": 1.5, "y": None}, None), {}),
    "spaces": (pairs("x", "a\u2581b", "a b"), {"response": "x"}),
}
NESTED = ("jsonl", "json", "parquet", "arrow", "array_record", "jsonl.gz")


def columns(rows) -> list[dict]:
    """The rows with all columns in each, as a table has them."""
    names = dict.fromkeys(key for row in rows for key in row)
    return [{name: row.get(name) for name in names} for row in rows]


def arrow_file(path, rows) -> str:
    table = pyarrow.Table.from_pylist(rows)
    with ipc.new_file(str(path), table.schema) as writer:
        writer.write(table)
    return str(path)


def found(path, reading) -> dict:
    """What is read of a file, without the places in it."""
    records_ = records.read([Source("", str(path), Reading(**reading))], max_rejected=1.0)
    return {
        "conversations": [(c.turns, c.system, c.group, c.category) for c in records_.conversations],
        "rejected": [_reason(reason) for _, reason in records_.rejected],
        "numbers": records_.numbers,
        "unread": set(records_.unread),
        "repaired": records_.repaired,
        "remarks": {remark: places.count for remark, places in records_.remarks.items()},
    }


def _reason(text: str) -> str:
    """A column that is absent is null in a table."""
    return text.partition(":")[0] if text.startswith("missing field") else text


@pytest.mark.parametrize("kind", SETS)
def test_the_same_rows_give_the_same(tmp_path, kind):
    rows, reading = SETS[kind]
    rows = [PAIR | {"y": None} if "y" in str(reading) else PAIR, *rows]
    if "messages in columns" in kind:
        rows = rows[1:]
    table = columns(rows)
    expected = found(write(tmp_path / "a.jsonl", table), reading)
    assert expected["conversations"]
    for ending in NESTED[1:]:
        assert found(write(tmp_path / f"a.{ending}", table), reading) == expected, ending
    assert found(arrow_file(tmp_path / "b.arrow", table), reading) == expected
    sparse = found(write(tmp_path / "b.jsonl", rows), reading)
    assert sparse | {"unread": expected["unread"]} == expected
    assert expected["unread"] - sparse["unread"] <= {"y"}  # which no setting names


FLAT = [
    kind
    for kind, (rows, _) in SETS.items()
    if all(isinstance(v, str | int | type(None)) for row in rows for v in row.values())
    and kind not in ("yes or no", "row flags", "missing")
]


@pytest.mark.parametrize("kind", FLAT)
@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz"])
def test_a_table_of_text_gives_what_the_same_texts_give(tmp_path, kind, ending):
    """A cell that is empty is text that is empty, which JSON has beside null."""
    rows, reading = SETS[kind]
    names = list(dict.fromkeys([key for row in rows for key in row] + ["y"]))
    as_text = [
        {name: "" if row.get(name) is None else str(row[name]) for name in names} for row in rows
    ]
    expected = found(write(tmp_path / "a.jsonl", as_text), reading)
    assert found(write(tmp_path / f"a.{ending}", as_text), reading) == expected
    given = found(write(tmp_path / "b.jsonl", [{"y": None} | row for row in rows]), reading)
    assert given["conversations"] == expected["conversations"]
    assert len(given["rejected"]) == len(expected["rejected"])
    assert given["unread"] == expected["unread"] and given["remarks"] == expected["remarks"]


def test_flat_sets_are_tested_as_tables_too():
    assert {"labels", "answers", "template", "groups", "whole", "tools", "spaces"} <= set(FLAT)


def test_short_floats_are_as_short_as_they_were(tmp_path):
    table = pyarrow.table(
        {"input_text": ["a"] * 3, "output_text": pyarrow.array([0.1, None, 2.0], pyarrow.float32())}
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    read = found(tmp_path / "a.parquet", {})
    assert [turns[1].text for turns, *_ in read["conversations"]] == ["0.1", "2.0"]
    assert read["rejected"] == ["missing field"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", '{"x": 1, "x": 2}', "[1, NaN]", "9" * 5000])
def test_what_is_not_read_costs_nothing(tmp_path, value):
    line = f'{{"input_text": "a", "output_text": "b", "meta": {value}}}'
    for name, text in (("a.jsonl", line), ("a.json", f"[{line}]")):
        (tmp_path / name).write_text(text)
        read = found(tmp_path / name, {})
        assert len(read["conversations"]) == 1 and read["unread"] == {"meta"}
    (tmp_path / "a.jsonl").write_text(f'{line}\n{{"input_text": "a", "meta": "b"}}')
    read = found(tmp_path / "a.jsonl", {"response": "meta"})["rejected"][0]
    kinds = ("missing field", "not a number", "wrong type", "number too long")
    assert read.startswith(kinds)


@pytest.mark.parametrize(
    "line, expected",
    [
        ('{"input_text": "a", "output_text": "b", "output_text": "c"}', "duplicate key: 'output_"),
        ('{"messages": [], "messages": []}', "duplicate key: 'messages'"),
        (
            '{"messages": [{"role": "user", "role": "user", "content": "a"}]}',
            "duplicate key: 'role'",
        ),
        (
            '{"contents": [{"role": "user", "parts": [{"text": "a", "text": "b"}]}]}',
            "duplicate key",
        ),
        ('{"messages": [{"role": "user", "content": Infinity}]}', "not a number: messages[0].cont"),
    ],
)
def test_what_is_read_and_cannot_be_rejects_the_row(tmp_path, line, expected):
    (tmp_path / "a.jsonl").write_text(f"{line}\n{json.dumps(PAIR)}\n")
    assert found(tmp_path / "a.jsonl", {})["rejected"][0].startswith(expected)


EMPTY = {
    "a.jsonl": b" \n\n",
    "b.jsonl": b"",
    "c.jsonl": b"\xef\xbb\xbf",
    "a.json": b"[ ]\n",
    "b.json": b"",
    "a.csv": b"input_text,output_text\n",
    "b.csv": b"",
    "a.tsv": b"input_text\toutput_text\n\n",
    "a.jsonl.gz": b"",
    "b.jsonl.gz": b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0",
    **dict.fromkeys(["a.parquet", "a.arrow", "a.array_record"], None),
}


def empty(folder, name) -> str:
    if EMPTY[name] is not None:
        (folder / name).write_bytes(EMPTY[name])
        return str(folder / name)
    schema = pyarrow.schema({"input_text": pyarrow.string(), "output_text": pyarrow.string()})
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(schema.empty_table(), folder / name)
        return str(folder / name)
    if name.endswith("arrow"):
        with ipc.new_stream(str(folder / name), schema):
            return str(folder / name)
    return write(folder / name, [])


@pytest.mark.parametrize("name", EMPTY)
def test_a_file_without_rows_among_others_is_a_note(tmp_path, name):
    path = empty(tmp_path, name)
    good = write(tmp_path / "good.jsonl", [PAIR] * 3)
    for listed in (f"{good},{path}", f"{path},{good}"):
        read = records.read([Source("", listed)])
        assert len(read.conversations) == 3
        (remark,) = read.remarks
        assert (remark.severity, remark.text) == ("note", "files have no rows")
        assert read.remarks[remark].first == [path]


@pytest.mark.parametrize("name", EMPTY)
def test_files_without_rows_alone_are_an_error(tmp_path, name):
    path = empty(tmp_path, name)
    for listed in (path, f"{path},{path}"):
        with pytest.raises(records.UserError) as error:
            records.read([Source("", listed)])
        assert str(error.value).startswith(f"{path}: no rows. Expected ")


def test_a_source_without_rows_is_a_warning(tmp_path):
    good, bare = write(tmp_path / "good.jsonl", [PAIR]), empty(tmp_path, "a.csv")
    read = records.read([Source("faq", bare, Reading(system="x")), Source("chat", good)])
    found = {remark.severity: places.first for remark, places in read.remarks.items()}
    assert found == {"note": [bare], "warning": ["faq"]}


def test_csv_of_pandas_has_the_floats_of_the_others(tmp_path):
    """As ``DataFrame.to_csv`` writes whole numbers where one is missing."""
    rows = [PAIR | {"label": value} for value in (1.0, None, 0.5)]
    with open(tmp_path / "a.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([list(rows[0]), *(list(row.values()) for row in rows)])
    expected = found(write(tmp_path / "a.jsonl", rows), {"response": "label"})
    read = found(tmp_path / "a.csv", {"response": "label"})
    assert read["conversations"] == expected["conversations"]
    assert Path(tmp_path / "a.csv").read_text().splitlines()[1] == "a,b,1.0"
