"""Rows with a prompt and an answer: messages in columns, earlier turns, preferences, numbers."""

import math
from decimal import Decimal

import pytest

from sft.data.conversation import Reading, Reject, Turn
from sft.data.read.fields import Number
from sft.data.read.schemas import parse

ASK, TELL = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
RULES = {"role": "system", "content": "S"}
QUESTION, ANSWER = Turn("user", "a"), Turn("model", "b")
READING = Reading(prompt="prompt", response="completion")


def said(row, reading=READING, **options):
    found, _ = parse(row, "x:1", reading, **options)
    return [*found.turns], found.system


def reason(row, reading=READING, **options) -> str:
    with pytest.raises(Reject) as error:
        parse(row, "x:1", reading, **options)
    assert str(error.value).isprintable()
    return str(error.value)


def row(prompt, completion, **more) -> dict:
    return {"prompt": prompt, "completion": completion, **more}


CONTEXT = Turn("model", "b", trained=False)
CONVERSATIONAL = [
    (row([ASK], [TELL]), [QUESTION, ANSWER], None),
    (row([ASK], "b"), [QUESTION, ANSWER], None),
    (row("a", [TELL]), [QUESTION, ANSWER], None),
    (row([RULES, ASK], [TELL]), [QUESTION, ANSWER], "S"),
    (row([RULES | {"content": ""}, ASK], [TELL]), [QUESTION, ANSWER], None),
    (row([ASK, TELL, ASK], [TELL]), [QUESTION, CONTEXT, QUESTION, ANSWER], None),
    (row([ASK], [TELL, ASK, TELL]), [QUESTION, ANSWER] * 2, None),
    (
        row([{"from": "human", "value": "a"}], [{"from": "gpt", "value": "b"}]),
        [QUESTION, ANSWER],
        None,
    ),
]


@pytest.mark.parametrize("given, turns, system", CONVERSATIONAL)
def test_lists_of_messages_are_read_in_both_columns(given, turns, system):
    assert said(given) == (turns, system)


@pytest.mark.parametrize(
    "given, expected",
    [
        (row([], [TELL]), "wrong role order: prompt has no turns, expected 'user' last"),
        (row([ASK, TELL], [TELL]), "wrong role order: prompt ends with 'assistant', expected 'use"),
        (row([TELL], [TELL]), "wrong role order: prompt[0].role is 'assistant', expected 'user'"),
        (row([ASK], []), "wrong role order: completion must start with an answer"),
        (row([ASK], [RULES, TELL]), "wrong role order: completion must start with an answer"),
        (row([ASK], [ASK, TELL]), "wrong role order: completion[0].role is 'user', expected 'assi"),
        (row([ASK], [TELL, ASK]), "wrong role order: completion ends with 'user', expected 'assis"),
        (row([ASK], [TELL | {"content": " "}]), "empty text: completion[0].content has no visible"),
        (row([ASK | {"content": ""}], [TELL]), "empty text: prompt[0].content has no visible text"),
        (row(["a"], [TELL]), "wrong type: prompt[0] is a string, expected an object"),
        (row([ASK | {"role": "judge"}], [TELL]), "unknown role: prompt[0].role is 'judge'"),
        (row([ASK], [TELL | {"tool_calls": [{}]}]), "non-text part: completion[0].tool_calls"),
        (row({"role": "user"}, [TELL]), "wrong type: prompt is an object, expected a string"),
    ],
)
def test_lists_that_are_no_prompt_or_answer(given, expected):
    assert reason(given).startswith(expected)


def test_lists_of_messages_with_a_template_and_without_an_answer():
    reading = Reading(prompt="prompt", response="completion", template="Say: {prompt}")
    assert said(row([ASK, TELL, ASK], "b"), reading)[0][0].text == "Say: a"
    for given in ({"prompt": [ASK]}, row([ASK], None), row([ASK], []), row([ASK], "")):
        assert said(given, answers=False) == ([QUESTION], None)


EARLIER = Reading(prompt="prompt", response="completion", history="past")
PAST = [["hi", "hello"], ["how?", "so"]]
PAST_TURNS = [Turn("user", "hi"), Turn("model", "hello"), Turn("user", "how?"), Turn("model", "so")]


def test_history_is_read_where_it_is_configured():
    assert said(row("a", "b", past=PAST), EARLIER)[0] == [*PAST_TURNS, QUESTION, ANSWER]
    assert said(row([ASK], [TELL], past=PAST), EARLIER)[0] == [*PAST_TURNS, QUESTION, ANSWER]
    assert said(row("a", "b", past=[ASK, TELL]), EARLIER)[0] == [QUESTION, ANSWER] * 2
    for none in ([], None, math.nan, "", "[]"):
        assert said(row("a", "b", past=none), EARLIER)[0] == [QUESTION, ANSWER]
    assert said(row("a", "b"), EARLIER)[0] == [QUESTION, ANSWER]
    around = Reading(prompt="prompt", response="completion", history="past", template="<{prompt}>")
    turns = said(row("a", "b", past=PAST), around)[0]
    assert [turn.text for turn in turns] == ["hi", "hello", "how?", "so", "<a>", "b"]


@pytest.mark.parametrize(
    "past, expected",
    [
        ("text", "wrong type: past is a string, expected a list of [question, answer] pairs"),
        (["text"], "wrong type: past[0] is a string, expected a [question, answer] pair"),
        ([["a"]], "wrong type: past[0] is a list of 1, expected a [question, answer] pair"),
        ([["a", "b", "c"]], "wrong type: past[0] is a list of 3"),
        ([["a", "b"], ["c", ""]], "empty text: past[1][1] has no visible text"),
        ([["a", None]], "empty text: past[0][1] has no visible text"),
        ([["a", ["b"]]], "wrong type: past[0][1] is a list, expected a string"),
        ([ASK], "wrong role order: past ends with 'user', expected 'assistant' last"),
        ([RULES, ASK, TELL], "wrong role order: past has a system instruction; expected none"),
    ],
)
def test_history_of_another_shape(past, expected):
    assert reason(row("a", "b", past=past), EARLIER).startswith(expected)


def test_history_is_never_lost():
    for name in ("history", "History"):
        text = reason(row("a", "b", **{name: PAST}))
        assert text.startswith(f"earlier turns: '{name}' has some, which would be lost")
        remedy = text.partition("config.data.reading.history = ")[2].partition(",")[0]
        asked = Reading(prompt="prompt", response="completion", history=remedy.strip("'"))
        assert said(row("a", "b", **{name: PAST}), asked)[0][:4] == PAST_TURNS
    for value in ([], None, "of Rome", 5):
        assert said(row("a", "b", history=value))[0] == [QUESTION, ANSWER]
    beside = {"messages": [ASK, TELL], "past": PAST}
    assert reason(beside, EARLIER).startswith("earlier turns: past beside messages; write all")
    assert said(beside | {"past": []}, EARLIER)[0] == [QUESTION, ANSWER]


def test_preferences_are_refused_with_a_way_that_works():
    pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
    for given in (pair, pair | {"chosen": [TELL], "rejected": [TELL]}):
        text = reason(given)
        assert text.startswith(
            "missing field: completion; 'chosen' and 'rejected' are a preference"
        )
        assert text.endswith("set config.data.reading.response = 'chosen'")
        assert said(given, Reading(prompt="prompt", response="chosen"))[0] == [QUESTION, ANSWER]
    whole = {"chosen": [ASK, TELL], "rejected": [ASK, TELL]}
    for reading in (READING, Reading(prompt="prompt", response="chosen")):
        assert reason(whole, reading).endswith("rename 'chosen' to 'messages'")
    assert said({"messages": [ASK, TELL], "rejected": [ASK, TELL]})[0] == [QUESTION, ANSWER]


def test_preferences_after_a_dialogue():
    for name, ask, tell in (
        ("messages", ASK, TELL),
        ("conversations", {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}),
    ):
        given = {name: [ask], "chosen": tell, "rejected": tell}
        expected = f"preference: 'chosen' and 'rejected' beside '{name}' are not trained: add the"
        assert reason(given).startswith(expected)
        assert said(given | {name: [ask, tell]})[0] == [QUESTION, ANSWER]
        assert said(given, answers=False)[0] == [QUESTION]


NUMBERS = [
    (1, "1"),
    (0, "0"),
    (-7, "-7"),
    (2**70, str(2**70)),
    (0.5, "0.5"),
    (3.0, "3.0"),
    (Number("0.10"), "0.10"),
    (Number("1e2"), "1e2"),
    (Decimal("2.50"), "2.50"),
    (True, "true"),
    (False, "false"),
]


@pytest.mark.parametrize("value, text", NUMBERS)
def test_numbers_are_read_as_they_are_written(value, text):
    assert said(row(value, value))[0] == [Turn("user", text), Turn("model", text)]
    asked = Reading(prompt="prompt", response="completion", template="{prompt} {x}", system="x")
    assert said(row("a", "b", x=value), asked) == ([Turn("user", f"a {text}"), ANSWER], text)
    messages = {"messages": [ASK | {"content": value}, TELL | {"content": value}]}
    assert said(messages)[0] == [Turn("user", text), Turn("model", text)]
    parts = {"contents": [{"role": r, "parts": [{"text": value}]} for r in ("user", "model")]}
    assert said(parts)[0] == [Turn("user", text), Turn("model", text)]


@pytest.mark.parametrize(
    "value, text", [*NUMBERS[:5], (3.0, "3"), ("3.0", "3"), (Number("3.00"), "3")]
)
def test_keys_are_one_with_and_without_a_point(value, text):
    reading = Reading(prompt="prompt", response="completion", group="g", category="c")
    found, _ = parse(row("a", "b", g=value, c=value), "x:1", reading)
    assert (found.group, found.category) == (text, text)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinities_are_no_text(value):
    for given in (row(value, "b"), row("a", value)):
        assert reason(given).startswith("not a number: ")
