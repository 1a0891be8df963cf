import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.data.conversation import Labels, Reading, Turn, role_problem, template_parts
from sft.errors import UserError

QUESTION, ANSWER = Turn("user", "a"), Turn("model", "b")


@pytest.mark.parametrize(
    "field, value, expected",
    [
        ("container", "xls", "expected one of jsonl, json, csv"),
        ("prompt", "", "expected the name of a column"),
        ("repair", "leading_user", "expected names of leading_model, trailing_user"),
        ("weight", 0.0, "expected a number above 0"),
        ("weight", float("nan"), "expected a number above 0"),
        ("instruction", "\u200b\ufeff", "no visible text in it"),
        ("instruction", "Be \ud800brief.", "character 4 is half of a surrogate pair"),
        ("template", "\udfff{prompt}", "character 1 is half of a surrogate pair"),
        ("group_regex", "(.*)", "there is no column to match it with; set group"),
        ("template", "Translate:", "no {prompt} in it"),
        ("template", "{prompt", "expected '}' before end of string"),
        ("template", "{prompt}}", "Single '}' encountered"),
        ("template", "{}", "expected {prompt} or a {column}, by its name alone"),
        ("template", "{prompt.x}", "by its name alone"),
        ("template", "{row[0]}", "by its name alone"),
        ("template", "{prompt!r}", "by its name alone"),
        ("template", "{prompt:>9}", "by its name alone"),
    ],
)
def test_readings_that_cannot_be(field, value, expected):
    start = re.escape(f"config.data.reading.{field} = {value!r}: ")
    with pytest.raises(UserError, match=f"^{start}.*{re.escape(expected)}") as error:
        Reading(**{field: value})
    assert "\n" not in str(error.value)
    named = re.escape(f"config.data.sources.faq.{field} = ")
    with pytest.raises(UserError, match=f"^{named}"):
        Reading(**{field: value}, setting="config.data.sources.faq")
    for regex in ("(", "a.*"):
        with pytest.raises(UserError, match=r"reading.group_regex = "):
            Reading(group="id", group_regex=regex)


def test_role_problem():
    assert role_problem([QUESTION, ANSWER]) is None
    assert role_problem([QUESTION], "user") is None
    assert role_problem([]) == "contents has no turns, expected 'model' last"
    assert role_problem([QUESTION, ANSWER], "user") == (
        "contents ends with 'model', expected 'user' last"
    )
    assert role_problem([QUESTION], "") is role_problem([QUESTION, ANSWER], "") is None
    openai = Labels("messages", "role", "user", "assistant")
    assert role_problem([ANSWER, QUESTION], labels=openai, first=1) == (
        "messages[1].role is 'assistant', expected 'user'"
    )


@given(st.text(max_size=20), st.text(max_size=20))
def test_template_parts(before, after):
    def escaped(text):
        return text.replace("{", "{{").replace("}", "}}")

    parts = template_parts(f"{escaped(before)}{{prompt}}{escaped(after)}")
    joined = "".join(literal + ("\0" if name else "") for literal, name in parts)
    assert joined == f"{before}\0{after}"
