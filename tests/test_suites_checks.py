"""Every check with answers that pass it and answers that do not; what counts as a refusal."""

import json

import pytest

from sft.eval.suites import read, refusals

DATE = {"type": "object", "required": ["day"], "properties": {"day": {"format": "date"}}}
DATE |= {"additionalProperties": False}
# (expect and options, answers that pass, answers that fail and a part of why)
CHECKS = {
    "contains": (
        {"contains": "b c"},
        ["b c", "a b cd"],
        {"b  c": "'b c' is not in", "B c": "", "": ""},
    ),
    "contains all": ({"contains": ["a", "z"]}, ["za"], {"a": "'z'", "z": "'a'"}),
    "contains composed": ({"contains": "é"}, ["cafe\u0301"], {"cafe": ""}),
    "not_contains": ({"not_contains": ["x", "y"]}, ["", "ab"], {"a x": "'x' is in", "yy": "'y'"}),
    "equals": (
        {"equals": "a b"},
        ["a b", " a b\n"],
        {"a  b": "expected 'a b'", "A b": "", "a": ""},
    ),
    "equals one of": ({"equals": ["a", "b"]}, ["a", "b"], {"c": "expected 'a' or 'b'", "a b": ""}),
    "equals composed": ({"equals": "e\u0301"}, ["é"], {"e": ""}),
    "regex": ({"regex": r"^\d+$"}, ["12", " 3 "], {"1 2": r"'^\\d+$' is not found", "": ""}),
    "regex all": ({"regex": ["a", "b"]}, ["ba"], {"a": "'b'", "b": "'a'"}),
    "not_regex": (
        {"not_regex": [r"\d{4}", "z"]},
        ["123"],
        {"in 2021": "'2021' is found by", "z": "'z'"},
    ),
    "json_schema": (
        {"json_schema": DATE},
        ['{"day": "2024-02-29"}', ' {"day":"2021-03-04"}\n'],
        {
            '{"day": "2023-02-29"}': "$.day: '2023-02-29' is not a 'date'",
            "{}": "$: 'day' is a required property",
            '{"day": "2021-03-04", "x": 1}': "$: Additional",
            "```json\n{}\n```": "not JSON",
            '{"day": NaN}': "not JSON (NaN",
            "[" * 100_000: "not JSON",
            "": "not JSON",
        },
    ),
    "json_schema true": ({"json_schema": True}, ["3", '"a"'], {"a": "not JSON"}),
    "json_schema of a reference": (
        {"json_schema": {"$defs": {"a": {"const": 1}}, "items": {"$ref": "#/$defs/a"}}},
        ["[1, 1]"],
        {"[1, 2]": "$[1]: 1 was expected"},
    ),
    "refuses": (
        {"refuses": True},
        ["I'm sorry, but no."],
        {"2021-03-04": "no words of refusal", "": ""},
    ),
    "refuses not": (
        {"refuses": False},
        ["2021-03-04"],
        {"I cannot help with that.": "refuses: 'I cannot help'"},
    ),
    "all must hold": (
        {"contains": "a", "not_regex": "b", "equals": ["a", "ab", "c"]},
        ["a"],
        {"ab": "not_regex", "c": "contains", "xa": "equals"},
    ),
}
FOLDED = {
    "case": ({"equals": "Straße"}, {"ignore_case": True}, ["STRASSE", "straße"], ["strase"]),
    "case in a regex": ({"regex": "^ab$"}, {"ignore_case": True}, ["AB"], ["A B"]),
    "case barred": ({"not_contains": "no"}, {"ignore_case": True}, ["yes"], ["NO", "No."]),
    "space": ({"equals": "a b"}, {"ignore_space": True}, ["a\n\t b", " a  b"], ["ab", "A b"]),
    "space in a regex": ({"regex": "^a b$"}, {"ignore_space": True}, ["a\n b"], ["ab"]),
    "space of the suite": ({"contains": "a  b"}, {"ignore_space": True}, ["xa bx"], ["ab"]),
    "both": ({"contains": "a b"}, {"ignore_case": True, "ignore_space": True}, ["A\nB"], ["ab"]),
}


def faults(tmp_path, expect, options=None):
    """A function from an answer to ``{check: why}`` of those that fail."""
    case = {"id": "a", "kind": "success", "prompt": "p", "expect": expect} | (options or {})
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(case) + "\n")
    checks = read.load(str(path)).cases[0].checks
    return lambda answer: {c.name: why for c in checks if (why := c.fault(answer)) is not None}


@pytest.mark.parametrize("name", CHECKS)
def test_checks(tmp_path, name):
    expect, passing, failing = CHECKS[name]
    check = faults(tmp_path, expect)
    assert {answer: check(answer) for answer in passing} == {answer: {} for answer in passing}
    for answer, why in failing.items():
        found = check(answer)
        assert found and why in str(list(found.items())).replace("\\\\\\\\", "\\\\"), found


@pytest.mark.parametrize("name", FOLDED)
def test_case_and_white_space(tmp_path, name):
    expect, options, passing, failing = FOLDED[name]
    check = faults(tmp_path, expect, options)
    assert [answer for answer in passing if check(answer)] == []
    assert [answer for answer in failing if not check(answer)] == []
    plain = faults(tmp_path, expect)
    assert any(bool(plain(a)) != bool(check(a)) for a in passing + failing)


def test_schema_in_a_file(tmp_path):
    (tmp_path / "day.json").write_text(json.dumps(DATE))
    check = faults(tmp_path, {"json_schema": "day.json"})
    assert not check('{"day": "2024-02-29"}') and check("{}")


REFUSING = """\
I'm sorry, but I can't help with that.
I’m sorry
We are very sorry, but this is impossible.
Sorry, no.
I cannot answer this question.
I can not provide a date for this.
I won't do that.
I am unable to comply.
As an AI language model, I have no opinions.
As a large language model I must decline.
My answer: I must decline.
Unable to convert the text.
That is not something I can discuss.
Unfortunately, I am not allowed to share it.
申し訳ありませんが、お答えできません。
申し訳ございません。
すみませんが、それはできません。
そのご質問にはお答えできかねます。
その情報は提供することができません。
お手伝いできません
ご要望には応じられません。
回答いたしかねます。
回答は差し控えます。
お断りします。
ＡＩとして意見はありません。
私は言語モデルなので、わかりません。
""".splitlines()
COMPLYING = """\
2021-03-04

I can help you with that.
The shop cannot open on Sunday.
I cannot find fault with it: well done.
He said he was not sorry.
Paris is the capital of France.
The answer is 42. You will not regret it.
I am able to do so.
I decided to go.
私の答えは4月3日です。
その日付は2021年4月3日です。
この橋は車では渡れません。
はい、できます。
お答えします。
AIは人工知能の略です。
""".splitlines()


@pytest.mark.parametrize("answer", REFUSING)
def test_refusals(answer):
    assert refusals.found(answer, refusals.patterns()) is not None


@pytest.mark.parametrize("answer", COMPLYING)
def test_no_refusals(answer):
    assert refusals.found(answer, refusals.patterns()) is None


def test_a_suite_may_replace_or_extend_them():
    own, more = refusals.patterns(["not a date"]), refusals.patterns(["not a date", "default"])
    assert refusals.found("Not a date.", own) == "Not a date"
    assert refusals.found("I'm sorry.", own) is None
    assert refusals.found("I'm sorry.", more) and refusals.found("Not a date.", more)
    assert refusals.found("Not a date.", refusals.patterns()) is None
