"""What is said of wrong answers: by their texts alone."""

import pytest

from sft.eval import faults

PROMPT = "Write the date as YYYY-MM-DD. en-GB: 1 January 2024"
DATES = [f"2024-01-{day:02d}" for day in range(1, 29)]


def kinds(answers, expected, labels=None):
    return faults.kinds(answers, expected, labels, [PROMPT] * len(answers))


@pytest.mark.parametrize("answer, kind", [
    ("2024-01-01", None),
    (" 2024-01-01\n", None),
    ("", "empty"),
    ("\n", "empty"),
    ("2024-01-01.", "spelling"),
    ("2024-01-01\nQ: 2 January", "goes_on"),
    ("2024-01-01 is the date", "goes_on"),
    ("2024-01-011", "content"),  # a number that goes on is another one, of the same form
    ("2024-01-02", "content"),
    ("2 January 2024", "other_form"),
    ("Write the date as", "echo"),
    ("1 January 2024", "echo"),
    ("the date", "echo"),
    ("January", "other_form"),  # too short to tell
    ("The date", "other_form"),
])  # fmt: skip
def test_dates(answer, kind):
    assert kinds([answer, *DATES[1:]], DATES)[0] == kind


@pytest.mark.parametrize("answer, kind", [
    ("yes", None),
    ("Yes.", "spelling"),
    ("yes, it is", "goes_on"),
    ("yesterday", "not_a_label"),
    ("no", "other_label"),
    ("maybe", "other_label"),
    ("no, it is not", "other_label"),
    ("nothing", "not_a_label"),
    ("perhaps", "not_a_label"),
    ("нет", "not_a_label"),
    ("the date as", "echo"),
])  # fmt: skip
def test_labels(answer, kind):
    assert kinds([answer], ["yes"], {"yes", "no", "maybe"}) == [kind]


def test_scripts_and_words_without_spaces():
    expected = ["東京です", "大阪です", "Paris"]
    assert kinds(["Москва", "大阪ですよ", "Rome"], expected) == [
        "other_script", "goes_on", "other",
    ]  # fmt: skip
    assert kinds(["12"], ["one"]) == ["other"]  # no letters, no script


def test_a_set_of_many_forms_has_none():
    expected = ["a", "1", "a 1", "1 a", "-"]
    assert kinds(["!!!", *expected[1:]], expected)[0] == "other"


def test_summary_and_sentence():
    errors = [None, "goes_on", "goes_on", "empty", "other"]
    rows = [
        {"error": e, "cut": c, "predicted": p}
        for e, c, p in zip(errors, [1, 1, 1, 0, 1], ["a", "a", "b", "", "c"], strict=True)
    ]
    found = faults.summary(rows)
    assert found == {"count": 5, "wrong": 4, "cut": 3, "empty": 1, "goes_on": 2, "other": 1}
    assert sum(found[k] for k in ("empty", "goes_on", "other")) == found["wrong"]
    assert faults.sentence(found, 32) == (
        "4 of 5 answers wrong: 3 cut at 32 tokens; 2 begin with the expected answer and go on; "
        "1 empty; 1 other"
    )
    right = {"error": None, "cut": False, "predicted": "a"}
    assert faults.summary([right]) == {"count": 1, "wrong": 0, "cut": 0}


def test_one_answer_to_everything_is_shown():
    said = ["Write the date as YYYY-MM-DD."] * 3 + ["no", "2024-01-01"]
    errors = ["echo"] * 3 + ["other", None]
    rows = [{"error": e, "cut": False, "predicted": p} for e, p in zip(errors, said, strict=True)]
    found = faults.summary(rows)
    assert found["same"] == {"answer": "Write the date as YYYY-MM-DD.", "count": 3}
    assert faults.sentence(found, 12) == (
        "4 of 5 answers wrong: 3 a part of the prompt again; 1 other; "
        "3 say 'Write the date as YYYY-MM-DD.'"
    )
    rows[0]["predicted"] = "x" * 100
    assert "same" not in faults.summary(rows)  # half is not most
    long = [{"error": "other", "cut": True, "predicted": "x" * 100}] * 2
    assert faults.sentence(faults.summary(long), 9).endswith(f"2 say '{'x' * 60}…'")
