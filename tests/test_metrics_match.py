"""What counts as right: text, numbers, patterns, JSON."""

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.eval.metrics import match, numbers, structured


def score(metric, predicted, expected):
    statistics = metric.statistics([predicted], [expected])
    return float(metric.value(statistics.sum(0)))


@pytest.mark.parametrize("predicted, expected, raw, normalised", [
    ("Paris", "Paris", 1, 1),
    (" Paris\n", "Paris", 1, 1),
    ("e\u0301", "é", 1, 1),
    ("paris.", "Paris", 0, 1),
    ("The  answer:\tYes!", "the answer yes", 0, 1),
    ("don't", "dont", 0, 1),
    ("Ｐａｒｉｓ１", "Paris1", 0, 1),
    ("ｶﾅ", "カナ", 0, 1),
    ("東京、大阪。", "東京大阪", 0, 1),
    ("STRASSE", "straße", 0, 1),
    ("3.14", "314", 0, 0),
    (".5", "5", 0, 0),
    ("-5", "5", 0, 0),
    ("−5", "-5", 0, 1),
    ("5%", "5", 0, 0),
    ("5 %", "5", 0, 0),
    ("1/2/2024", "12/2/024", 0, 0),
    ("2024-01-05.", "2024-01-05", 0, 1),
    ("It costs 5.", "it costs 5", 0, 1),
    ("", "?", 0, 0),
    ("!", "?", 0, 0),
    ("", "", 1, 1),
    ("🎉", "🎊", 0, 0),
])  # fmt: skip
def test_exact_match(predicted, expected, raw, normalised):
    assert score(match.exact_match(), predicted, expected) == raw
    assert score(match.exact_match_normalised(), predicted, expected) == normalised
    assert score(match.exact_match_normalised(), expected, predicted) == normalised


@pytest.mark.parametrize("text, number", [
    ("1,234.5", "1234.5"),
    ("so the answer is 42.", "42"),
    ("3 + 4 = 7", "7"),
    ("-5", "-5"),
    ("−5 °C", "-5"),
    ("+5", "5"),
    ("- 5", "-5"),
    ("3-5", "5"),
    ("(1)-2", "2"),
    ("-$1,000.50", "-1000.50"),
    ("12.5%", "0.125"),
    ("7 %", "0.07"),
    ("７％", "0.07"),
    (".5", "0.5"),
    ("No.5", "5"),
    ("1e3", "1000"),
    ("2.5E-3", "0.0025"),
    ("1,5", "1.5"),
    ("0,125", "0.125"),
    ("1.234,5", "1234.5"),
    ("1,234,567", "1234567"),
    ("1.234.567", "1234567"),
    ("1,234", "1234"),
    ("1.234", "1.234"),
    ("約5人", "5"),
    ("١٢", "12"),
    ("42 on 2024.01.05", "42"),
    ("1,2,3", None),
    ("none", None),
    ("", None),
    ("9" * 5000, "9" * 5000),
])  # fmt: skip
def test_last_number(text, number):
    assert numbers.last(text) == (None if number is None else Decimal(number))


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9))
def test_every_written_number_is_read(value):
    for text in (f"{value:f}", f"{value:,f}", f"the answer is {value:f}."):
        assert numbers.last(text) == value


@pytest.mark.parametrize("predicted, expected, tolerance, right", [
    ("0.10", "0.1", 0.0, 1),
    ("50%", "0.5", 0.0, 1),
    ("101", "100", 0.01, 1),
    ("99", "100", 0.01, 1),
    ("101.0001", "100", 0.01, 0),
    ("-99", "-100", 0.01, 1),
    ("100", "-100", 0.5, 0),
    ("0.001", "0", 0.5, 0),
    ("0", "0", 0.0, 1),
    ("none", "1", 0.5, 0),
    ("1e9999", "1e9999", 0.1, 1),
    ("1e9999", "2", 0.1, 0),
])  # fmt: skip
def test_numeric_match(predicted, expected, tolerance, right):
    assert score(match.numeric_match(tolerance), predicted, expected) == right


@pytest.mark.parametrize("pattern, predicted, expected, right", [
    (r"answer: (\w+)", "I think. answer: B", "answer: B because", 1),
    (r"answer: (\w+)", "answer: A", "answer: B", 0),
    (r"answer: (\w+)", "B", "answer: B", 0),
    (r"(?:answer|result): (\w+)", "result: B", "answer: B", 1),
    (r"a(b)?", "a", "ab", 0),  # a match without its group
    (r"^\d{4}-\d\d$", "2024-01", "whatever", 1),
    (r"^\d{4}-\d\d$", "24-01", "whatever", 0),
])  # fmt: skip
def test_regex_match(pattern, predicted, expected, right):
    assert score(match.regex_match(pattern), predicted, expected) == right


@pytest.mark.parametrize("text, valid", [
    ('{"a": 1}', 1),
    (" [1, 2]\n", 1),
    ("null", 1),
    ("```json\n{}\n```", 0),
    ("{'a': 1}", 0),
    ('{"a": NaN}', 0),
    ("{} {}", 0),
    ("", 0),
    ("[" * 100_000, 0),
    ("9" * 5000, 0),
])  # fmt: skip
def test_json_valid(text, valid):
    assert score(structured.json_valid(), text, "{}") == valid


NESTED = '{"name": "Ann", "items": [{"n": 1}, {"n": 2}], "ok": true, "none": null, "more": {}}'


@pytest.mark.parametrize("predicted, share", [
    (NESTED, 1),
    ('{"more": {}, "none": null, "ok": true, "items": [{"n": 1.0}, {"n": 2}], "name": "Ann"}', 1),
    ('{"name": "Ann", "extra": 1}', 1 / 6),
    ('{"name": "ann", "items": [{"n": 2}, {"n": 2}]}', 1 / 6),
    ('{"items": [{"n": true}], "ok": 1, "none": false, "more": []}', 0),
    ('{"items": {"0": {"n": 1}}}', 0),
    ("[]", 0),
    ("no", 0),
    ("", 0),
])  # fmt: skip
def test_json_fields(predicted, share):
    assert score(structured.json_fields(), predicted, NESTED) == pytest.approx(share)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)


@settings(max_examples=40)
@given(json_values)
def test_json_equals_itself(value):
    text = json.dumps(value)
    assert score(structured.json_fields(), text, text) == 1
    assert score(structured.json_valid(), text, text) == 1
