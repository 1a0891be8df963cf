"""Columns that nothing reads and that must not be lost in silence, however they are spelt."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_pairs import EARLIER, reason, row
from test_records import write

from sft.data.conversation import Reading
from sft.data.read import records
from sft.data.read.records import Source
from sft.data.read.schemas import parse
from sft.data.read.unread import earlier
from sft.errors import UserError

PAIRS = [["hi", "ho"], ["so", "oh"]]
TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
SHARED = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]
LOST = "would be lost; to read them, set config.data.reading.history = {!r}, or else remove the"


def remarks(given, reading=EARLIER):
    return [remark for remark in parse(given, "x:1", reading)[1].remarks]


@pytest.mark.parametrize("value", [PAIRS, TURNS, SHARED])
@pytest.mark.parametrize(
    "spelt", [lambda value: value, json.dumps, repr], ids=["list", "JSON", "Python"]
)
@pytest.mark.parametrize(
    "name",
    ["history", "chat_history", "dialogHistory", "previous_turns", "conversation", "context"],
)
def test_earlier_turns_are_never_lost(name, value, spelt):
    reading = Reading(prompt="prompt", response="completion")
    given = row("a", "b", **{name: spelt(value)})
    said = reason(given, reading)
    assert said.startswith(f"earlier turns: {name!r} has some, which {LOST.format(name)}")
    followed = parse(given, "x:1", dataclasses.replace(reading, history=name))[0]
    texts = [text for pair in PAIRS for text in pair] if value is PAIRS else ["hi", "ho"]
    assert [turn.text for turn in followed.turns] == [*texts, "a", "b"]
    assert all(turn.trained for turn in followed.turns)


@pytest.mark.parametrize(
    "value",
    [
        [],
        "[]",
        "",
        " ",
        None,
        "null",
        "none, yet",
        ["hi", "ho"],
        "[not a list",
        [1, 2],
        7,
        [["a", "b", "c"]],
        [{"title": "x", "text": "y"}],
        '["a"]',
        "['a', 'b']",
    ],
)
def test_what_is_no_earlier_turn_is_a_column_like_others(value):
    parse(row("a", "b", chat_history=value, context=value), "x:1", EARLIER)


def test_beside_a_list_of_turns_too():
    given = {"messages": TURNS, "history": PAIRS}
    said = reason(given, Reading())
    assert said == (
        "earlier turns: 'history' has some beside 'messages'; write all turns into 'messages', or "
        "remove it"
    )
    parse(given | {"history": []}, "x:1", Reading())


def test_text_that_is_no_list_is_refused_where_it_is_to_be_read():
    for text in ("[['a', 'b'", "hello", '{"a": 1}', "[" * 100_000):
        assert "past is a string, expected a list of [question, answer] pairs" in reason(
            row("a", "b", past=text), EARLIER
        )
    assert earlier("[('a', 'b')]", "past") == [["a", "b"]]
    assert earlier(" null ", "past") == []


def files(tmp_path, name, rows):
    """The same rows as JSONL, CSV and Parquet, lists as JSON text where there is no other way."""
    texts = [
        {k: v if isinstance(v, str) else json.dumps(v) for k, v in one.items()} for one in rows
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    pq.write_table(pa.Table.from_pylist(texts), tmp_path / f"{name}-text.parquet")
    head = list(rows[0])
    cells = [head, *([one[key] for key in head] for one in texts)]
    quoted = (",".join('"' + cell.replace('"', '""') + '"' for cell in line) for line in cells)
    (tmp_path / f"{name}.csv").write_text("\n".join(quoted) + "\n")
    write(tmp_path / f"{name}.jsonl", *rows)
    endings = (".parquet", "-text.parquet", ".csv", ".jsonl")
    return [str(tmp_path / f"{name}{ending}") for ending in endings]


def test_one_behaviour_in_every_container(tmp_path):
    rows = [{"input_text": "a", "output_text": "b", "chat_history": PAIRS}] * 3
    for path in files(tmp_path, "x", rows):
        with pytest.raises(UserError, match=r"chat_history' has some, which would be lost"):
            records.read([Source("", path)])
        found = records.read([Source("", path, Reading(history="chat_history"))])
        assert [len(one.turns) for one in found.conversations] == [6, 6, 6]


def test_answers_for_kto(tmp_path):
    rows = [{"prompt": f"p{i}", "completion": "c", "label": i != 1} for i in range(3)]
    for path in files(tmp_path, "kto", rows):
        with pytest.raises(UserError, match=r"preference: 'label' is false: an answer marked as b"):
            records.read([Source("", path, Reading(prompt="prompt", response="completion"))])
    kept = [one for one in rows if one["label"]]
    for path in files(tmp_path, "kept", kept):
        found = records.read([Source("", path, Reading(prompt="prompt", response="completion"))])
        assert len(found.conversations) == 2
    # A label that is the answer is one.
    parse({"text": "a", "label": False}, "x:1", Reading(prompt="text", response="label"))


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("is_correct", False),
        ("isGood", False),
        ("accepted", "False"),
        ("rejected", True),
        ("is_bad", "true"),
        ("skip", True),
        ("keep", False),
    ],
)
def test_marks_of_bad_answers_are_warned_of(name, bad):
    (found,) = remarks(row("a", "b", **{name: bad}))
    assert found.severity == "warning" and f"rows have {name!r} = {str(bad).lower()}" in found.text
    assert remarks(row("a", "b", **{name: not bad if isinstance(bad, bool) else "x"})) == []


def test_a_turn_to_be_ignored_is_context():
    turns = [*TURNS[:1], TURNS[1] | {"ignore": True}, *TURNS]
    found, notes = parse({"messages": turns}, "x:1", Reading())
    assert [turn.trained for turn in found.turns] == [True, False, True, True]
    assert any("by messages[].ignore" in remark.text for remark in notes.remarks)


@pytest.mark.parametrize("name", ["system", "system_prompt", "systemMessage", "system_instruction"])
@pytest.mark.parametrize(
    "given",
    [{"conversations": SHARED}, {"messages": TURNS}, {"input_text": "a", "output_text": "b"}],
    ids=["conversations", "messages", "pair"],
)
def test_system_instructions_beside_turns_are_named(name, given):
    (found,) = remarks(given | {name: "Be brief."}, Reading())
    assert found.severity == "warning" and repr(name) in found.text
    assert found.remedy == f"To train with it as one, set config.data.reading.system = {name!r}."
    followed, notes = parse(given | {name: "Be brief."}, "x:1", Reading(system=name))
    assert followed.system == "Be brief." and not notes.remarks
    for none in (None, "", " "):
        assert remarks(given | {name: none}, Reading()) == []


def test_turns_under_another_name_are_to_be_renamed():
    given = {"dialogue": TURNS}
    said = reason(given, Reading())
    assert "'dialogue' is a list of turns: rename it to 'messages', as jq -c '.messages = " in said
    parse({"messages": TURNS}, "x:1", Reading())
    said = reason(given, Reading(prompt="dialogue"))
    assert said.startswith(
        "wrong role order: 'dialogue' is a whole conversation with its answer: r"
    )


def test_shapes_that_are_no_turns_say_what_is_one():
    said = reason({"conversations": [{"human": "q", "assistant": "a"}]}, Reading())
    assert said == (
        "wrong type: conversations[0] has its role as a key, 'human', expected a turn each, as "
        "{'from': 'human', 'value': …}"
    )
    said = reason({"text": "a b c"}, Reading())
    assert "the row has 'text' and no other: a row needs a prompt and an answer, in two" in said


def test_an_object_of_nulls_is_none():
    part = {"text": "hi", "inlineData": {"mimeType": None, "data": None}}
    contents = [{"role": "user", "parts": [part]}, {"role": "model", "parts": [{"text": "ho"}]}]
    assert parse({"contents": contents}, "x:1", Reading())[0].turns[0].text == "hi"
    part["inlineData"] = {"mimeType": "image/png", "data": None}
    assert reason({"contents": contents}, Reading()).startswith("non-text part")


@pytest.mark.parametrize("head", ["Prompt, Answer", " Prompt ,Answer", "Prompt\t, Answer "])
def test_names_in_a_header_are_read_without_white_space(tmp_path, head):
    path = tmp_path / "x.csv"
    path.write_text(f"{head}\na,b\n")
    found = records.read([Source("", str(path), Reading(prompt="Prompt", response="Answer"))])
    assert [turn.text for turn in found.conversations[0].turns] == ["a", "b"]
    assert any("white space around them" in remark.text for remark in found.remarks)


def test_names_that_would_be_the_same_stay_as_they_are(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("p,a, a\nx,y,z\n")
    found = records.read([Source("", str(path), Reading(prompt="p", response=" a"))])
    assert found.conversations[0].turns[1].text == "z"


def test_a_question_in_a_reason_has_no_full_stop_after_it(tmp_path):
    path = write(tmp_path / "x.jsonl", {"input_tex": "a", "output_text": "b"})
    with pytest.raises(UserError, match=r"did you mean 'input_text'\? 1 of 1 rows rejected"):
        records.read([Source("", str(path))])
