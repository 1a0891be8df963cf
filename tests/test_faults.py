"""What is said of wrong answers: by their texts alone."""

import pytest

from sft.eval import faults

DATES = [f"2024-01-{day:02d}" for day in range(1, 29)]


@pytest.mark.parametrize("answer, kind", [
    ("2024-01-01", None),
    (" 2024-01-01\n", None),
    ("", "empty"),
    ("\n", "empty"),
    ("2024-01-01.", "spelling"),
    ("2024-01-01\nQ: 2 January", "goes_on"),
    ("2024-01-01 is the date", "goes_on"),
    ("2024-01-011", "other_form"),  # a number that goes on is another one
    ("2024-01-02", "other"),
    ("1 January 2024", "other_form"),
    ("The date", "other_form"),
])  # fmt: skip
def test_dates(answer, kind):
    # Forms are runs: 2024-01-011 has the form of a date.
    expected = {"2024-01-011": "other"}.get(answer, kind)
    assert faults.kinds([answer, *DATES[1:]], DATES, None)[0] == expected


@pytest.mark.parametrize("answer, kind", [
    ("yes", None),
    ("Yes.", "spelling"),
    ("yes, it is", "goes_on"),
    ("yesterday", "not_a_label"),
    ("no", "other_label"),
    ("maybe", "other_label"),
    ("perhaps", "not_a_label"),
    ("нет", "not_a_label"),
])  # fmt: skip
def test_labels(answer, kind):
    assert faults.kinds([answer], ["yes"], {"yes", "no", "maybe"}) == [kind]


def test_scripts_and_words_without_spaces():
    expected = ["東京です", "大阪です", "Paris"]
    assert faults.kinds(["Москва", "大阪ですよ", "Rome"], expected, None) == [
        "other_script", "goes_on", "other",
    ]  # fmt: skip
    assert faults.kinds(["12"], ["one"], None) == ["other"]  # no letters, no script


def test_a_set_of_many_forms_has_none():
    expected = ["a", "1", "a 1", "1 a", "-"]
    assert faults.kinds(["!!!", *expected[1:]], expected, None)[0] == "other"


def test_summary_and_sentence():
    errors = [None, "goes_on", "goes_on", "empty", "other"]
    rows = [{"error": e, "cut": c} for e, c in zip(errors, [1, 1, 1, 0, 1], strict=True)]
    found = faults.summary(rows)
    assert found == {"count": 5, "wrong": 4, "cut": 3, "empty": 1, "goes_on": 2, "other": 1}
    assert sum(found[k] for k in ("empty", "goes_on", "other")) == found["wrong"]
    assert faults.sentence(found, 32) == (
        "4 of 5 answers wrong: 3 cut at 32 tokens; 2 begin with the expected answer and go on; "
        "1 empty; 1 other"
    )
    assert faults.summary([{"error": None, "cut": False}]) == {"count": 1, "wrong": 0, "cut": 0}
