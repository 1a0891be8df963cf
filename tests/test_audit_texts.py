"""What is said about single texts, and about the texts of a set."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_audit import conversation, pairs

from sft.data.audit import contents, texts

GERMAN = "Der schnelle braune Fuchs springt über den faulen Hund, und alle sehen ihm zu."
ENGLISH = "The quick brown fox jumps over the lazy dog while everybody is watching it."


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("what is this", "all lower case"),
        ("WHAT IS THIS?", "all upper case"),
        ("What is this", "starts with a capital"),
        ("  «What is this»", "starts with a capital"),
        ("iPhone", "other"),
        ("ⓐⒷ", "other"),
        ("这是什么", "no case"),
        ("12 + 3", "no case"),
        ("", "no case"),
    ],
)
def test_casing(text, kind):
    assert texts.casing(text) == kind


@given(st.text())
def test_any_text_is_taken(text):
    kinds = ("all lower case", "all upper case", "starts with a capital", "other", "no case")
    assert texts.casing(text) in kinds
    assert {test(text) for test in texts.FORMATS.values()} <= {True, False}
    assert texts.script_counts(text).total() <= len(text) and texts.main_script(text)
    assert (texts.language(text) == texts.UNDETERMINED) == (sum(map(str.isalpha, text)) < 20)


@pytest.mark.parametrize(
    ("kind", "yes", "no"),
    [
        ("list", ["- a\n- b", "do:\n1. this\n2) that"], ["a - b", "1.5 litres", "-5 degrees"]),
        ("code fence", ["```py\nx\n```"], ["`x`"]),
        ("JSON", ['{"a": 1}', " [1, 2]\n", '```json\n{"a": 1}\n```'], ["{a}", "[" * 5000, "1"]),
        ("URL", ["see https://x.org", "www.x.org"], ["https: none", "www"]),
        ("question mark at the end", ["why? ", "为什么\uff1f"], ["why? because"]),
        ("line breaks", ["a\nb"], ["a\n"]),
        ("HTML or Markdown", ["<b>x</b>", "# Title", "**x**", "[a](b)"], ["a < b > c", "2 * 3 *"]),
        ("digits", ["a1", "٣"], ["one"]),
    ],
)
def test_formats(kind, yes, no):
    assert [texts.FORMATS[kind](text) for text in yes] == [True] * len(yes)
    assert [texts.FORMATS[kind](text) for text in no] == [False] * len(no)


def test_scripts_are_shares_of_the_letters():
    assert texts.script_mix(["abc, 123!", "д"]) == {"Latin": 0.75, "Cyrillic": 0.25}
    assert texts.main_script("ab 日本語") == "Han"
    assert texts.main_script("123 …") == "none"


def test_languages():
    assert texts.language_mix([ENGLISH, GERMAN, GERMAN, "Hund"]) == {
        "de": 0.5,
        "en": 0.25,
        "undetermined": 0.25,
    }
    assert texts.language("これは日本語で書かれた文章です。今日はとても天気がいいですね。") == "ja"


def test_percent_never_rounds_to_all_or_nothing():
    shares = [0, 0.0002, 0.034, 0.5, 0.996, 0.9999, 1]
    assert [texts.percent(share) for share in shares] == [
        *("0 %", "< 0.1 %", "3.4 %", "50 %", "99.6 %", "> 99.9 %", "100 %"),
    ]


@given(st.text(), st.integers(5, 30))
def test_shortened_texts_are_one_short_line(text, length):
    short = texts.shorten(text, length)
    assert len(short) <= length and len(short.splitlines()) <= 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Example 1: a -> b\nExample 2: c -> d\ne ->", True),
        ("Q: one?\nA: 1\nQ: two?\nA: 2\nQ: three?\nA:", True),
        ("Input: x\nOutput: y\n\nInput: z\nOutput: w\n\nInput: v\nOutput:", True),
        ("Question: who?\nContext: them\nAnswer:", False),
        ("Q: one?\nA: 1", False),
        ("Q1: one?\nA1:\nQ2: two?\nA2:\nQ3: three?\nA3:", False),
        ("For example 1: this, and 2: that", False),
        ("Example 1: only one", False),
    ],
)
def test_few_shot_prompts(text, found):
    assert contents.has_examples(text) is found


def test_a_long_text_is_searched_in_a_moment():
    start = time.process_time()
    assert not contents.has_examples(("Text: " + "a " * 200_000 + "\n") * 3)
    assert not contents.has_examples("Q: a\n" * 20_000)
    assert time.process_time() - start < 1


def test_marks_name_the_first_row():
    rows = pairs(
        ("fine", "fine"),
        ("<start_of_turn>user\nhi<end_of_turn>", "ok"),
        ("user\nhi", " ok"),
        ("a < b", "<bos>ok<end_of_turn>"),
    )
    assert contents.marks(rows) == {
        "<start_of_turn>": {"rows": 1, "first": "a.jsonl:2"},
        "<end_of_turn>": {"rows": 2, "first": "a.jsonl:2"},
        "<bos>": {"rows": 1, "first": "a.jsonl:4"},
        "user_prefix": {"rows": 1, "first": "a.jsonl:3"},
        "trimmed_answers": {"rows": 1, "first": "a.jsonl:3"},
    }
    assert contents.marks(pairs(("x", "y"), system="<|turn>"))["<|turn>"]["rows"] == 1


def test_fingerprints_are_of_roles_and_texts():
    same = contents.fingerprints([conversation("a", "b")])
    assert same == contents.fingerprints([conversation(" a", "b\n", source="elsewhere:9")])
    assert not same & contents.fingerprints([conversation("a", "c"), conversation("a b")])
    assert not same & contents.fingerprints([conversation("a", "b", system="s")])


def test_systems():
    rows = [*pairs(("a", "b"), ("c", "d"), system="Be\nkind."), *pairs(("e", "f"), ("g", "h"))]
    assert contents.systems(rows) == {
        "share": 0.5,
        "distinct": 1,
        "top": [{"text": "Be kind.", "rows": 2}],
    }


def test_labels_are_balanced_against_training():
    train = pairs(*(("p", "yes"),) * 30, *(("p", "no"),) * 10)
    found = contents.labels({"train": train, "test": pairs(("p", "yes"), ("p", "maybe"))})
    assert found
    assert found["sets"]["train"]["counts"] == {"yes": 30, "no": 10}
    assert found["sets"]["train"]["majority_share"] == 0.75
    assert found["sets"]["train"]["entropy_bits"] == pytest.approx(0.811278, abs=1e-6)
    assert found["missing"] == {"test": ["no"]} and found["unseen"] == {"test": ["maybe"]}


def test_sentences_and_numbers_are_no_labels():
    assert contents.label_counts(pairs(*(("p", f"{i}") for i in range(40)))) is None
    assert contents.label_counts(pairs(*(("p", "a b c d e f"),) * 40)) is None
    assert contents.label_counts(pairs(*(("p", "a b c d e"),) * 40)) == {"a b c d e": 40}
    assert contents.label_counts(pairs(*(("p", "yes"),) * 19)) is None
    assert contents.labels({"test": pairs(*(("p", "yes"),) * 40)}) is None


def test_the_most_frequent_answer():
    found = contents.repeated_answer(pairs(("a", "x "), ("b", "x"), ("c", "y")))
    assert found == {"text": "x", "rows": 2, "share": pytest.approx(2 / 3)}
    assert contents.repeated_answer([conversation("a")]) == {}
