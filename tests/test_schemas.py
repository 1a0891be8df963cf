import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.data.conversation import Reading, Reject, Turn, role_problem
from sft.data.read import schemas
from sft.errors import UserError

PAIR = {"input_text": "2 + 2 = ?", "output_text": "4"}


def turn(role, *texts):
    return {"role": role, "parts": [{"text": text} for text in texts]}


def gemini(*contents, **more):
    return {"contents": list(contents), **more}


def openai(*messages, **more):
    """``messages``: (role, content) or (role, content, further keys)."""
    turns = [{"role": m[0], "content": m[1], **(m[2] if m[2:] else {})} for m in messages]
    return {"messages": turns, **more}


def sharegpt(*turns, **more):
    return {"conversations": [{"from": role, "value": text} for role, text in turns], **more}


USER, MODEL = turn("user", "a"), turn("model", "b")
ASK, TELL = ("user", "a"), ("assistant", "b")
HUMAN, GPT = ("human", "a"), ("gpt", "b")
QUESTION, ANSWER = Turn("user", "a"), Turn("model", "b")


def parse(row, reading=None, **options):
    return schemas.parse(row, "x:1", reading or Reading(), **options)


def conversation(row, reading=None, **options):
    return parse(row, reading, **options)[0]


def reason(row, reading=None, **options) -> str:
    with pytest.raises(Reject) as error:
        parse(row, reading, **options)
    text = str(error.value)
    assert text.startswith(error.value.kind + ": ") and text.isprintable()
    return text


NO_TOOLS = ["[]", " [ ]\n", "", "null", "None", "{}", None, math.nan, {}]
NO_TEXT = ["", " ", None, "\u200b\ufe0f", [], [{"type": "text", "text": ""}]]
NO_CONTENT = [None, "", {}, {"parts": None}, {"parts": []}, turn("system", ""), turn("user", " ")]

ACCEPTED = [
    (PAIR, [Turn("user", "2 + 2 = ?"), Turn("model", "4")], None),
    (gemini(turn("user", "Hi, ", "you"), turn("model", " b \n")), ["Hi, you", " b \n"], None),
    (gemini(USER, MODEL, systemInstruction={"parts": [{"text": "S"}]}), ["a", "b"], "S"),
    (gemini(USER, MODEL, system_instruction=turn("system", "S")), ["a", "b"], "S"),
    (gemini(USER, MODEL | {"weight": 0}, USER, MODEL), [QUESTION, Turn("model", "b", False)], None),
    (openai(ASK, TELL), [QUESTION, ANSWER], None),
    (openai(("system", " S"), ASK, TELL), ["a", "b"], " S"),
    (openai(("developer", "S"), ASK, TELL), ["a", "b"], "S"),
    (openai(("user", [{"type": "text", "text": t} for t in "xyz"]), TELL), ["xyz", "b"], None),
    (openai(ASK, (*TELL, {"weight": 1})), [QUESTION, ANSWER], None),
    (
        openai(ASK, (*TELL, {"weight": 0}), ASK, (*TELL, {"weight": 1.0})),
        [QUESTION, Turn("model", "b", False), QUESTION, ANSWER],
        None,
    ),
    (openai(ASK, (*TELL, {"weight": None, "tool_calls": []}), tools=[]), ["a", "b"], None),
    *((openai(ASK, TELL, tools=none), ["a", "b"], None) for none in NO_TOOLS),
    *((openai(("system", none), ASK, TELL), ["a", "b"], None) for none in NO_TEXT),
    *((sharegpt(("system", none), HUMAN, GPT), ["a", "b"], None) for none in NO_TEXT[:4]),
    *((gemini(USER, MODEL, systemInstruction=none), ["a", "b"], None) for none in NO_CONTENT),
    (sharegpt(HUMAN, GPT, ("user", "c"), ("bing", "d")), ["a", "b", "c", "d"], None),
    (sharegpt(("system", "S"), HUMAN, ("model", "b"), id="x_1"), ["a", "b"], "S"),
]


@pytest.mark.parametrize("row, turns, system", ACCEPTED, ids=range(len(ACCEPTED)))
def test_accepted(row, turns, system):
    found = conversation(row)
    for got, want in zip(found.turns, turns, strict=False):
        assert (got.text if isinstance(want, str) else got) == want
    assert len(found.turns) >= len(turns)
    assert (found.system, found.source) == (system, "x:1")


SYSTEM = {"parts": [{"text": "S"}]}
IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
REASONS = [
    ([PAIR], "not an object: found a list, expected one JSON object per line"),
    (None, "not an object: found null"),
    ({}, "missing field: input_text; the row has no fields: set config.data.reading.prompt to"),
    ({"question": "a", "q\n": 1}, r"missing field: input_text; the row has 'question', 'q\n': set"),
    ({"content": [USER, MODEL]}, "unknown key: 'content'; did you mean 'contents'?"),
    ({"message": []}, "unknown key: 'message'; did you mean 'messages'?"),
    (
        {"input_text": "a"},
        "missing field: output_text; the row has 'input_text': set config.data.reading.response to",
    ),
    ({"input_text": "a", "outputtext": "b"}, "unknown key: 'outputtext'; did you mean 'output_t"),
    (
        {"input_text": "a", "output_text": {}},
        "wrong type: output_text is an object, expected a str",
    ),
    ({"input_text": "a", "output_text": None}, "missing field: output_text is null"),
    ({"input_text": "a", "output_text": math.nan}, "missing field: output_text is NaN"),
    ({"input_text": "a", "output_text": -math.inf}, "not a number: output_text is -Infinity"),
    ({"input_text": "a", "output_text": b"x"}, "wrong type: output_text is bytes"),
    ({"input_text": "a", "output_text": " \n"}, "empty text: output_text has no visible text"),
    ({"input_text": "a\0b", "output_text": "c"}, "NUL character: input_text, character 2"),
    ({"input_text": "a", "output_text": "ab\ud800"}, "lone surrogate: output_text, character 3"),
    (PAIR | {"images": ["x.png"]}, "non-text part: images; only text is supported"),
    ({"contents": {}}, "wrong type: contents is an object, expected a list"),
    (gemini(), "no turns: contents has no turns"),
    (gemini(USER), "wrong role order: contents ends with 'user', expected 'model' last"),
    (gemini(MODEL, USER), "wrong role order: contents[0].role is 'model', expected 'user'"),
    (gemini(USER, USER, MODEL), "wrong role order: contents[1].role is 'user', expected 'model'"),
    (
        gemini(USER, turn("assistant", "b")),
        "unknown role: contents[1].role is 'assistant', expected",
    ),
    (gemini("a"), "wrong type: contents[0] is a string, expected an object"),
    (gemini({"parts": [{"text": "a"}]}, MODEL), "missing field: contents[0].role"),
    (gemini({"role": "user"}, MODEL), "missing field: contents[0].parts"),
    (gemini({**USER, "part": []}), "unknown key: contents[0].'part'; did you mean 'parts'?"),
    (gemini({**USER, "name": "x"}), "unknown key: contents[0].'name'; known here: role, parts"),
    (gemini(USER, {"role": "model", "parts": []}), "empty text: contents[1].parts has no visible"),
    (gemini(USER, turn("model", "", " ")), "empty text: contents[1].parts has no visible text"),
    (gemini({"role": "user", "parts": ["a"]}), "wrong type: contents[0].parts[0] is a string"),
    (gemini({"role": "user", "parts": "a"}), "wrong type: contents[0].parts is a string"),
    (
        gemini({"role": "user", "parts": [{"text": "a"}, {"fileData": {"fileUri": "gs://b/c"}}]}),
        "non-text part: contents[0].parts[1].fileData; only text is supported",
    ),
    (gemini({"role": "user", "parts": [{"inline_data": {}}]}), "non-text part: contents[0].parts["),
    (gemini({"role": "user", "parts": [{"txt": "a"}]}), "unknown key: contents[0].parts[0].'txt'"),
    (gemini({"role": "user", "parts": [{}]}), "missing field: contents[0].parts[0].text"),
    (gemini(USER, MODEL, tools=[{}]), "non-text part: tools; only text is supported"),
    (gemini(USER, MODEL, systemInstruction="S"), "wrong type: systemInstruction is a string"),
    (gemini(USER, MODEL, systemInstructions=SYSTEM), "unknown key: 'systemInstructions'; did you"),
    (
        gemini(USER, MODEL, systemInstruction=SYSTEM, system_instruction=SYSTEM),
        "duplicate key: systemInstruction and system_instruction",
    ),
    (gemini(USER, MODEL | {"weight": 0}), "nothing to train: every answer has weight 0"),
    (openai(ASK), "wrong role order: messages ends with 'user', expected 'assistant' last"),
    (openai(("system", "S"), TELL), "wrong role order: messages[1].role is 'assistant', expected"),
    (openai(("system", "S"), ("system", "T"), ASK), "wrong role order: messages[1].role is 'sys"),
    (openai(("system", "S")), "no turns: messages has no turns"),
    (
        openai(ASK, ("model", "b"), ASK),
        "unknown role: messages[1].role is 'model', expected one of",
    ),
    (openai(ASK, ("assistant", None)), "missing field: messages[1].content"),
    (openai(ASK, ("assistant", None, {"tool_calls": [{}]})), "non-text part: messages[1].tool_c"),
    (openai(ASK, TELL, ("tool", "x")), "non-text part: messages[2].role is 'tool'"),
    (openai(("user", [IMAGE]), TELL), "non-text part: messages[0].content[0].type is 'image_url'"),
    (openai(("user", [{"text": "a"}]), TELL), "missing field: messages[0].content[0].type"),
    (openai(ASK, (*TELL, {"weight": 2})), "wrong type: messages[1].weight is '2', expected 0 or 1"),
    (openai(ASK, (*TELL, {"weigth": 0})), "unknown key: messages[1].'weigth'; did you mean 'wei"),
    (openai(ASK, (*TELL, {"weight": 0})), "nothing to train: every answer has weight 0"),
    (openai(ASK, TELL, functions=[{}]), "non-text part: functions; only text is supported"),
    (openai(ASK, TELL, tools='[{"type": "function"}]'), "non-text part: tools; only text is"),
    (sharegpt(), "no turns: conversations has no turns"),
    (sharegpt(GPT, HUMAN), "wrong role order: conversations[0].from is 'gpt', expected 'human'"),
    (sharegpt(HUMAN, ("\n", "x")), r"unknown role: conversations[1].from is '\n', expected one of"),
    (sharegpt(HUMAN, ("gpt", "")), "empty text: conversations[1].value has no visible text"),
    (sharegpt(("human", ["a"]), GPT), "wrong type: conversations[0].value is a list"),
    (sharegpt(HUMAN, ("function_call", "{}")), "non-text part: conversations[1].from is 'function"),
]


@pytest.mark.parametrize("row, expected", REASONS, ids=range(len(REASONS)))
def test_reasons(row, expected):
    assert reason(row).startswith(expected)


def test_what_is_not_read_is_noted():
    row = openai(
        (*ASK, {"name": "x", "weight": 1}),
        (*TELL, {"name": "y", "refusal": None}),
        **{"é\ud800": 1},
    )
    notes = parse(row)[1]
    assert notes.unread == {"messages[].name", r"é\ud800"}  # null is as if it were not there
    assert [remark.severity for remark in notes.remarks] == ["warning"]  # weight 1 of the user
    assert parse(PAIR | {"input_txt": 1})[1].unread == {"input_txt"}  # none is missing: no typo
    assert parse(sharegpt(HUMAN, GPT, id="x"), Reading(group="id"))[1].unread == set()


BOTH = Reading(repair="leading_model, trailing_user")
EMPTY = (None, math.nan, "", " \n", "\u200b")


def test_columns_system_group_and_category():
    reading = Reading(
        prompt="q", response="a", system="s", group="g", group_regex=r"^(.*)_\d+$", category="c"
    )
    row = {"q": "x", "a": "y", "s": "S", "g": "doc_12", "c": 7}
    found = conversation(row, reading, origin="mine")
    assert (found.system, found.group, found.category, found.origin) == ("S", "doc", "7", "mine")
    assert conversation(row | {"g": "doc"}, reading).group == "doc"  # does not match
    assert conversation(row | {"s": " "}, reading).system is None
    assert conversation({**row, "s": None}, reading).system is None
    for change, expected in [
        *(({"g": v}, "missing field: g is empty, and config.data.reading.group") for v in EMPTY),
        ({"c": ""}, "missing field: c is empty, and config.data.reading.category needs it"),
        ({"g": [1]}, "wrong type: g is a list, expected a string"),
        ({"c": {}}, "wrong type: c is an object"),
        ({"c": "\ud800"}, "lone surrogate: c"),
        ({"s": []}, "wrong type: s is a list"),
    ]:
        assert reason(row | change, reading).startswith(expected)
    del row["c"]
    there = "the row has 'q', 'a', 's', 'g'"
    assert (
        reason(row, reading) == f"missing field: c; {there}: correct config.data.reading.category"
    )


def test_instruction_is_for_rows_without_one():
    reading = Reading(instruction="Be brief.", system="system")
    assert conversation(PAIR, reading).system == "Be brief."
    assert conversation(gemini(USER, MODEL, systemInstruction=SYSTEM), reading).system == "S"
    assert conversation(sharegpt(HUMAN, GPT, system="T"), reading).system == "T"
    both = openai(("system", "S"), ASK, TELL, system="T")
    assert reason(both, reading).startswith("duplicate key: system beside another system")


def test_template():
    reading = Reading(template="{{{n}}} in {lang}: {prompt}!")
    row = {"input_text": "{lang} a", "output_text": "b", "lang": "", "n": 3}
    assert conversation(row, reading).turns[0].text == "{3} in : {lang} a!"
    many = gemini(USER, MODEL, turn("user", "c"), MODEL, lang="fr", n="x")
    assert [t.text for t in conversation(many, reading).turns] == ["{x} in fr: a!", "b", "c", "b"]
    for empty in EMPTY[:3]:  # white space is what the template is given
        assert conversation(row | {"lang": empty}, reading).turns[0].text == "{3} in : {lang} a!"
    del row["lang"]
    assert conversation(row, reading).turns[0].text == "{3} in : {lang} a!"
    assert conversation(row | {"lang": 1.5}, reading).turns[0].text == "{3} in 1.5: {lang} a!"
    assert reason(row | {"lang": [1]}, reading).startswith("wrong type: lang is a list")
    assert parse(row | {"lang": ""}, reading)[1].unread == set()


def test_template_of_columns_alone():
    reading = Reading(template="{title}\n{body}")
    row = {"title": "a", "body": "b", "output_text": "c"}
    assert conversation(row, reading).turns[0].text == "a\nb"
    for empty in ({"title": " ", "body": ""}, {"title": None, "body": "\u2800"}):
        assert reason(row | empty, reading) == "empty text: every column of the template is empty"
    with pytest.raises(UserError, match=r"x:1: .* has no \{prompt\}.* lose its first question"):
        parse(gemini(USER, MODEL, title="a", body="b"), reading)


def test_prompts_without_answers():
    for row in (
        *({"input_text": "a"}, {"input_text": "a", "output_text": ""}),
        *({"input_text": "a", "output_text": None}, gemini(USER), openai(ASK), sharegpt(HUMAN)),
    ):
        assert conversation(row, BOTH, answers=False).turns == (QUESTION,)
    assert conversation(gemini(USER, MODEL), answers=False).turns == (QUESTION, ANSWER)
    assert reason({"output_text": "b"}, answers=False).startswith("missing field: input_text")
    assert reason(gemini(MODEL), answers=False).startswith("wrong role order")


KEYS = ["contents", "role", "parts", "text", "systemInstruction", "input_text", "output_text"]
KEYS += ["messages", "content", "type", "weight", "conversations", "from", "value", "tools", "x"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(0, 1)
    | st.text(max_size=5)
    | st.sampled_from(["user", "model", "assistant", "human", "gpt", "system", "text"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=14,
)


@given(JSON, st.sampled_from([Reading(), BOTH, Reading(group="x", template="{prompt}{x}")]))
def test_any_row_is_a_conversation_or_a_reason(row, reading):
    try:
        found = conversation(row, reading)
    except Reject as reject:
        assert str(reject).isprintable()
        return
    assert role_problem(found.turns) is None
    written = json.dumps(row)
    assert all(json.dumps(t.text)[1:-1] in written for t in found.turns if not reading.template)
