"""What a model thinks is never left out in silence, and is left out where that is asked for."""

import math

import pytest

from sft.data.conversation import Reading, Reject
from sft.data.read.schemas import parse

KEYS = ["reasoning_content", "reasoning", "thinking", "thought", "thoughts", "thinking_blocks"]
KEYS += ["reasoningContent", "thoughtSignature", "reasoning_details", "chain_of_thought"]
KEYS += ["thinking_process", "cot", "reasoning-trace", "reasoningcontent"]
SOME = ["First I recall it.", [{"text": "hm"}], {"text": "hm"}, 1]
NONE = [None, "", " \n", [], {}, math.nan, False, "null"]
DROPS = Reading(repair="drop_thoughts")


def openai(mark):
    answer = {"role": "assistant", "content": "b"} | mark
    return {"messages": [{"role": "user", "content": "a"}, answer]}


def parts(mark):
    content = [{"type": "text", "text": "b"} | mark]
    return {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": content}]
    }


def sharegpt(mark):
    return {
        "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"} | mark]
    }


def gemini(mark):
    answer = {"role": "model", "parts": [{"text": "b"}]} | mark
    return {"contents": [{"role": "user", "parts": [{"text": "a"}]}, answer]}


def completion(mark):
    return {"input_text": "a", "output_text": openai(mark)["messages"][1:]}


def texts(row, reading=None) -> tuple[list[str], set[str]]:
    found, notes = parse(row, "x:1", reading or Reading())
    return [turn.text for turn in found.turns], notes.repaired


def reason(row, reading=None) -> str:
    with pytest.raises(Reject) as error:
        parse(row, "x:1", reading or Reading())
    return str(error.value)


@pytest.mark.parametrize("form", [openai, sharegpt, gemini, completion, parts])
@pytest.mark.parametrize("key", KEYS)
def test_thoughts_are_refused_by_name_and_dropped_if_asked(form, key):
    for value in SOME:
        if form is parts and key == "thought":
            continue  # the whole part is one: see below
        row = form({key: value})
        text = reason(row)
        assert text.startswith("thoughts: ") and f".{key}; " in text
        assert text.endswith("add drop_thoughts to config.data.reading.repair")
        assert texts(row, DROPS) == (["a", "b"], {"drop_thoughts"})
    for value in NONE:
        assert texts(form({key: value})) == (["a", "b"], set())
        assert texts(form({key: value}), DROPS) == (["a", "b"], set())


def test_the_setting_of_a_source_is_named():
    reading = Reading(setting="config.data.sources.chat")
    text = reason(openai({"thinking": "hm"}), reading)
    assert text.endswith("add drop_thoughts to config.data.sources.chat.repair")


THINKING = [
    ("contents", "model", "parts", {"text": "hm", "thought": True}, {"text": "b"}),
    ("contents", "model", "parts", {"thought": "hm"}, {"text": "b", "thought": False}),
    *(
        ("messages", "assistant", "content", part, {"type": "text", "text": "b"})
        for part in (
            {"type": "thinking", "thinking": "hm", "signature": "x"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "reasoning", "text": "hm"},
            {"type": "text", "text": "hm", "thought": True},
        )
    ),
]


@pytest.mark.parametrize("name, role, key, thought, answer", THINKING)
def test_parts_that_are_thoughts(name, role, key, thought, answer):
    asked = {"role": "user", key: [answer]}
    row = {name: [asked, {"role": role, key: [thought, answer]}]}
    place = f"{name}[1].{key}[0]."
    assert reason(row).startswith(f"thoughts: {place}") and "drop_thoughts" in reason(row)
    assert texts(row, DROPS) == (["b", "b"], {"drop_thoughts"})
    alone = {name: [asked, {"role": role, key: [thought]}]}
    assert reason(alone, DROPS) == f"empty text: {name}[1].{key} has no visible text"
    row[name][1][key][0] = {k: v if k in ("type", "thought") else "" for k, v in thought.items()}
    if thought.get("thought") != "hm":
        assert texts(row) == (["b", "b"], set())  # it is empty


@pytest.mark.parametrize("reading", [Reading(), DROPS])
def test_a_turn_that_is_all_thought_is_not_an_answer(reading):
    for form in (openai, sharegpt, gemini):
        text = reason(form({"thought": True}), reading)
        assert text.endswith(".thought is true: all of it is a thought. Remove it")
    assert texts(openai({"thinking": True}), reading) == (["a", "b"], set())  # a switch


@pytest.mark.parametrize(
    "key", ["reasoning_effort", "thinkingBudget", "reasoning_tokens", "scottish"]
)
def test_how_a_model_is_to_think_is_no_thought(key):
    for form in (openai, sharegpt):
        assert texts(form({key: "high"})) == (["a", "b"], set())


def test_thoughts_of_the_user_and_in_text():
    row = openai({"content": "<think>hm</think>b"})
    assert texts(row)[0][1] == "<think>hm</think>b"
    row["messages"][0]["reasoning"] = "hm"
    assert reason(row).startswith("thoughts: messages[0].reasoning; ")
    assert texts(row, DROPS)[1] == {"drop_thoughts"}


def test_a_column_of_thoughts_beside_an_answer_is_reported():
    row = {"input_text": "a", "output_text": "b", "reasoning_content": "hm"}
    for given, count in ((row, 1), (row | {"reasoning_content": ""}, 0)):
        notes = parse(given, "x:1", Reading())[1]
        assert [remark.severity for remark in notes.remarks] == ["warning"] * count
        assert all("column 'reasoning_content'" in remark.text for remark in notes.remarks)
    reading = Reading(response="reasoning_content")
    assert parse(row, "x:1", reading)[1].remarks == set()
