"""Turns in the spellings of several formats, and the repairs of lists of them."""

import dataclasses
import itertools
import math

import pytest
from test_schemas import (
    ASK,
    BOTH,
    GPT,
    HUMAN,
    MODEL,
    TELL,
    USER,
    conversation,
    gemini,
    openai,
    parse,
    reason,
    sharegpt,
    turn,
)

from sft.data.conversation import Turn

QUESTION, ANSWER = Turn("user", "a"), Turn("model", "b")


@pytest.mark.parametrize(
    "row, texts, repaired",
    [
        (sharegpt(("gpt", ""), HUMAN, GPT), ["a", "b"], ["leading_model"]),
        (openai(("system", "S"), TELL, ASK, TELL, ASK), ["a", "b"], ["leading_model", "trailing_"]),
        (gemini(USER, MODEL, turn("user", " ")), ["a", "b"], ["trailing_user"]),
        (gemini(USER, MODEL), ["a", "b"], []),
    ],
)
def test_repairs(row, texts, repaired):
    found, notes = parse(row, BOTH)
    assert [t.text for t in found.turns] == texts
    assert sorted(name[:9] for name in notes.repaired) == [name[:9] for name in repaired]
    if repaired:
        one = dataclasses.replace(BOTH, repair=repaired[0] if len(repaired) > 1 else "")
        assert reason(row, one).startswith("wrong role order")


def test_repairs_are_no_more_than_that():
    assert reason(sharegpt(GPT), BOTH).startswith("wrong role order: conversations has no turns")
    double = sharegpt(GPT, GPT, HUMAN, GPT)
    assert reason(double, BOTH).startswith("wrong role order: conversations[1].from is 'gpt'")


SPELLINGS = list(
    itertools.product(("messages", "conversations"), ("role", "from"), ("content", "value"))
)


@pytest.mark.parametrize("name, role, text", SPELLINGS)
def test_keys_of_both_formats_are_read_under_both_names(name, role, text):
    names = ("user", "assistant") if role == "role" else ("human", "gpt")
    system = {role: "system", text: "S"}
    row = {name: [system, {role: names[0], text: "a"}, {role: names[1], text: "b"}]}
    found, notes = parse(row)
    assert (found.turns, found.system) == ((QUESTION, ANSWER), "S")
    assert notes.unread == set() and notes.remarks == set()
    row[name].append({role: names[0], text: "c", "id": 1})
    assert (
        reason(row)
        == f"wrong role order: {name} ends with {names[0]!r}, expected {names[1]!r} last"
    )
    row[name][-1] = {role: names[1], text: "c"}
    assert (
        reason(row) == f"wrong role order: {name}[3].{role} is {names[1]!r}, expected {names[0]!r}"
    )
    row[name][-1] = {role: names[0], text: " "}
    assert reason(row | {name: [*row[name], {role: names[1], text: "d"}]}) == (
        f"empty text: {name}[3].{text} has no visible text"
    )


def test_spellings_may_change_from_turn_to_turn():
    turns = [{"from": "human", "value": "a"}, {"role": "assistant", "content": "b"}]
    for name in ("messages", "conversations"):
        assert conversation({name: turns}).turns == (QUESTION, ANSWER)
        parts = [turns[0], {"role": "assistant", "content": [{"type": "text", "text": "b"}]}]
        assert conversation({name: parts}).turns == (QUESTION, ANSWER)


@pytest.mark.parametrize("name", ["messages", "conversations"])
def test_two_spellings_in_one_turn(name):
    def row(**more):
        answer = {"role": "assistant", "content": "b"} | more
        return {name: [{"role": "user", "content": "a"}, answer]}

    for same in ({"from": "gpt"}, {"value": "b"}, {"from": None, "value": math.nan}):
        assert conversation(row(**same)).turns == (QUESTION, ANSWER)
    for other in ({"from": "alice"}, {"value": 3}, {"from": 5, "value": {}}):  # data of their own
        found, notes = parse(row(**other))
        assert found.turns == (QUESTION, ANSWER)
        assert notes.unread == {f"{name}[].{key}" for key in other}
    for other, keys in (
        ({"from": "human"}, ("from", "role")),
        ({"value": "c"}, ("content", "value")),
    ):
        text = reason(row(**other))
        assert text.startswith(f"ambiguous turn: {name}[1].") and text.endswith("Remove one")
        assert all(f"{name}[1].{key}" in text for key in keys)


@pytest.mark.parametrize("write", [str, str.upper, str.title, " {} ".format])
def test_roles_in_any_case(write):
    for form, pairs in (
        (openai, [("user", "assistant")]),
        (sharegpt, [("human", "gpt"), ("user", "model"), ("human", "chatgpt"), ("human", "bard")]),
        (gemini, [("user", "model")]),
    ):
        for user, model in pairs:
            first, second = ((write(user), "a"), (write(model), "b"))
            row = gemini(turn(*first), turn(*second)) if form is gemini else form(first, second)
            assert conversation(row).turns == (QUESTION, ANSWER)
            row = form(turn(*second)) if form is gemini else form(second)
            assert reason(row).startswith("wrong role order: ")
    system = openai((write("system"), "S"), ASK, TELL)
    assert conversation(system).system == "S"
    assert reason(openai(ASK, TELL, (write("tool"), "x"))).startswith(
        "non-text part: messages[2].ro"
    )
    assert reason(openai(ASK, (write("model"), "b"))).startswith(
        "unknown role: messages[1].role is"
    )
    assert reason(openai((write("usr"), "a"), TELL)).startswith(
        "unknown role: messages[0].role is "
    )


def test_a_list_as_text_is_named():
    text = "wrong type: messages is a string, expected a list; if it is JSON, parse it before the"
    assert reason({"messages": "[{}]"}).startswith(text)
    assert reason({"messages": "a"}) == "wrong type: messages is a string, expected a list"


def test_a_turn_without_a_role_or_a_text():
    for name, role, text in (("messages", "role", "content"), ("conversations", "from", "value")):
        first = {role: "user", text: "a"}
        assert reason({name: [first, {text: "b"}]}) == f"missing field: {name}[1].{role}"
        assert reason({name: [first, {role: "assistant"}]}) == f"missing field: {name}[1].{text}"
        assert reason({name: [first, {}]}) == f"missing field: {name}[1].{role}"
