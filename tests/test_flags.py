"""Marks that say which answers are trained: honoured where they are clear, refused where not."""

import math

import pytest

from sft.data.conversation import Reading, Reject
from sft.data.read.schemas import parse

TRAIN = ["weight", "train", "training", "trainable", "loss", "loss_mask", "lossMask", "do_train"]
SKIP = ["masked", "loss-masked", "no_train", "ignore_loss"]
YES = [True, 1, 1.0, "true", "True", "1", "1.0"]
NO = [False, 0, 0.0, "false", "FALSE", "0", " 0 "]
NOTHING = [None, math.nan, "", [], {}]
UNCLEAR = [0.5, 2, -1, "0.5", "maybe", [0, 1], [{"begin_offset": 0, "train": False}], {"a": 1}]


def openai(first, *, user=None, parts=None, last=None):
    content = [{"type": "text", "text": "b"} | mark for mark in parts] if parts else "b"
    return {
        "messages": [
            {"role": "user", "content": "a", **(user or {})},
            {"role": "assistant", "content": content, **first},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": "d", **(last or {})},
        ]
    }


def sharegpt(first, *, user=None, parts=None, last=None):
    return {
        "conversations": [
            {"from": "human", "value": "a", **(user or {})},
            {"from": "gpt", "value": "b", **first},
            {"from": "human", "value": "c"},
            {"from": "gpt", "value": "d", **(last or {})},
        ]
    }


def gemini(first, *, user=None, parts=None, last=None):
    return {
        "contents": [
            {"role": "user", "parts": [{"text": "a"}], **(user or {})},
            {"role": "model", "parts": [{"text": "b"} | mark for mark in parts or [{}]], **first},
            {"role": "user", "parts": [{"text": "c"}]},
            {"role": "model", "parts": [{"text": "d"}], **(last or {})},
        ]
    }


def completion(first, *, user=None, parts=None, last=None):
    turns = openai(first, user=user, parts=parts, last=last)["messages"]
    return {"input_text": turns[:1], "output_text": turns[1:]}


FORMATS = [openai, sharegpt, gemini, completion]
formats = pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.__name__)


def trained(row, reading=None) -> tuple[list[bool], list[str]]:
    """Whether each answer is trained, and the texts of the remarks."""
    found, notes = parse(row, "x:1", reading or Reading())
    answers = [turn.trained for turn in found.turns if turn.role == "model"]
    assert all(turn.trained for turn in found.turns if turn.role == "user")
    return answers, [remark.text for remark in notes.remarks]


def reason(row, **options) -> str:
    with pytest.raises(Reject) as error:
        parse(row, "x:1", Reading(), **options)
    assert str(error.value).isprintable()
    return str(error.value)


@formats
@pytest.mark.parametrize("name", TRAIN + SKIP)
def test_a_clear_flag_is_honoured_and_reported(form, name):
    yes, no = (YES, NO) if name in TRAIN else (NO, YES)
    for value in no:
        answers, remarks = trained(form({name: value}))
        assert answers == [False, True]
        assert [text.startswith("answers are context and not trained, by ") for text in remarks]
        assert remarks[0].endswith(f"[].{name}") and len(remarks) == 1
    for value in (*yes, *NOTHING):
        assert trained(form({name: value})) == ([True, True], [])


@formats
@pytest.mark.parametrize("name", TRAIN + SKIP)
def test_what_is_neither_yes_nor_no_is_refused_by_name(form, name):
    for value in UNCLEAR:
        text = reason(form({name: value}))
        assert text.startswith("wrong type: ") and f".{name} is " in text
        assert "expected 0 or 1" in text
        assert ("one by one" in text) == isinstance(value, list)
    for mark in ("mask", "turn_mask"):
        for value in (True, False, 0, [1]):
            text = reason(form({mark: value}))
            assert text.startswith("unclear flag: ") and f".{mark} is " in text
        assert trained(form({mark: None}))[0] == [True, True]


@formats
def test_names_that_only_speak_of_training(form):
    for name in ("is_training_turn", "trainThis", "keep_in_loss", "loss-enabled", "not_trained_on"):
        for value in (True, False, 0, 1.0, "false"):
            text = reason(form({name: value}))
            assert text.startswith("unclear flag: ") and f".{name} is " in text
        for value in (None, "wiki", 1.73, [], ""):
            if form is gemini and value not in (None,):
                continue  # which knows no other keys
            assert trained(form({name: value})) == ([True, True], [])
    for name in ("constrained", "lossless", "trainer", "gloss", "maskot"):
        if form is not gemini:
            assert trained(form({name: True})) == ([True, True], [])


@formats
def test_flags_that_contradict_each_other_are_refused_with_both_names(form):
    text = reason(form({"train": False, "weight": 1}))
    assert text.startswith("conflicting flags: ")
    assert ".train is false, but " in text and text.endswith(".weight is 1")
    assert reason(form({"trainable": True, "masked": "true"})).startswith("conflicting flags: ")
    assert trained(form({"train": False, "weight": 0, "masked": True}))[0] == [False, True]
    assert trained(form({"train": True, "weight": None, "loss": 1}))[0] == [True, True]


@formats
def test_every_answer_marked_leaves_nothing_to_train(form):
    text = reason(form({"train": False}, last={"weight": 0}))
    assert text == "nothing to train: every answer has train false"


@formats
def test_a_mark_on_a_turn_of_the_user(form):
    assert trained(form({}, user={"train": False, "weight": 0})) == ([True, True], [])
    for name in ("train", "weight"):
        answers, remarks = trained(form({}, user={name: 1}))
        assert answers == [True, True]
        assert remarks == ["turns that are not answers are marked as to be trained, and only "
                           "answers are"]  # fmt: skip
    assert reason(form({}, user={"loss_mask": [1]})).startswith("wrong type: ")


@pytest.mark.parametrize("form", [openai, gemini, completion], ids=lambda form: form.__name__)
def test_marks_on_parts(form):
    off, on = {"train": False}, {"train": True}
    assert trained(form({}, parts=[off, off]))[0] == [False, True]
    assert trained(form({}, parts=[on, {}]))[0] == [True, True]
    assert trained(form({"train": False}, parts=[off, {}]))[0] == [False, True]
    assert trained(form({}, parts=[{"train": None}, {}]))[0] == [True, True]
    for parts in ([off, {}], [off, on]):
        text = reason(form({}, parts=parts))
        assert text.startswith("conflicting flags: parts of ") and "differ in 'train'" in text
    assert reason(form({"weight": 1}, parts=[off, off])).startswith("conflicting flags: ")
    assert reason(form({}, parts=[{"loss_mask": [0, 1]}])).startswith("wrong type: ")


PAIR = {"input_text": "a", "output_text": "b"}
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


@pytest.mark.parametrize("row", [PAIR, CHAT], ids=["pair", "chat"])
def test_a_row_that_is_not_to_be_trained(row):
    for mark in ({"train": False}, {"weight": 0}, {"weight": "0"}, {"trainable": 0.0}):
        name, value = next(iter(mark.items()))
        expected = f"nothing to train: '{name}' is {str(value)!a}: the row is marked"
        assert reason(row | mark).startswith(expected)
        assert trained_unless_evaluated(row | mark) == [True]
    assert reason(row | {"masked": True}).startswith("nothing to train: 'masked' is 'True'")
    assert reason(row | {"loss_mask": [0, 1]}).startswith("wrong type: loss_mask is a list")
    for mark in ({"train": True}, {"weight": 1}, {"weight": None}, {"train": ""}, {"masked": 0}):
        assert trained(row | mark) == ([True], [])


def trained_unless_evaluated(row) -> list[bool]:
    found, _ = parse(row, "x:1", Reading(), training=False)
    return [turn.trained for turn in found.turns if turn.role == "model"]


@pytest.mark.parametrize("row", [PAIR, CHAT], ids=["pair", "chat"])
def test_weights_of_rows_are_not_ignored_in_silence(row):
    for mark in ({"weight": 0.5}, {"weight": "2.5"}, {"sample_weight": 3}, {"loss_weight": -1}):
        name = next(iter(mark))
        assert trained(row | mark) == ([True], [f"weights of rows are not read: {name!r}"])


def test_other_columns_of_such_names_are_columns():
    for mark in ({"training": "BSc"}, {"train": "ICE 5"}, {"loss": 0.0}, {"weight": "heavy"}):
        assert trained(PAIR | mark) == ([True], [])
    row = {"q": "a", "train": "b", "weight": "0"}
    reading = Reading(prompt="q", response="train", template="{weight} {prompt}")
    assert trained(row, reading) == ([True], [])


def test_marks_inside_a_prompt_of_messages():
    earlier = {"role": "assistant", "content": "x"}
    asked = [{"role": "user", "content": "a"}, earlier, {"role": "user", "content": "c"}]
    row = {"input_text": asked, "output_text": "d"}
    assert trained(row) == ([False, True], ["answers inside lists of prompts are context and not "
                                            "trained"])  # fmt: skip
    asked[1] = earlier | {"train": True}
    assert trained(row) == ([True, True], [])
