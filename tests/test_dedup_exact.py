import dataclasses
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_chat import talk
from test_tokenizer import tiny

from sft.data.batches.examples import Examples
from sft.data.chat import encoding
from sft.data.conversation import Turn
from sft.data.dedup import exact, normal

AS_WRITTEN = normal.Options()
LOOSE = normal.Options(case=True, punctuation=True)
OPTIONS = st.builds(normal.Options, case=st.booleans(), punctuation=st.booleans())
# Letters that compose, whose case is not one to one, and that break words.
ODD = st.text(
    st.sampled_from(
        "aAeé\u0301\u0130ß\u017fΣςK\u212b\u0345_-.,!?\u037e$+#15٣ \t\n\u3000\u200b\u2581日"
    )
)


@given(st.text() | ODD, OPTIONS)
def test_the_normal_form_is_its_own(value, options):
    form = normal.text(value, options)
    assert normal.text(form, options) == form
    assert unicodedata.is_normalized("NFC", form) and form == " ".join(form.split())
    assert bool(form) == bool(value.replace("\u2581", " ").strip())


@given(st.text() | ODD, OPTIONS)
def test_the_same_text_written_otherwise_has_the_same_form(value, options):
    form = normal.text(value, options)
    assert normal.text(unicodedata.normalize("NFD", value), options) == form
    assert normal.text(f"\n {value.replace(' ', '  ')}\t", options) == form


@pytest.mark.parametrize(
    ("left", "right", "case", "punctuation"),
    [
        ("Straße", "STRASSE", True, False),
        ("ΣΑΣ", "σας", True, False),
        ("é", "e\u0301", False, False),
        ("a\u00a0b\n\nc", "a b c", False, False),
        ("Yes, it is!", "Yes it is", False, True),
        ("«Да»", "Да", False, True),
        ("a - b", "a b", False, True),
        ("snake_case", "snakecase", False, True),
        ("e-\u0301", "é", False, True),
        ("YES!", "yes", True, True),
    ],
)
def test_only_the_option_makes_them_one(left, right, case, punctuation):
    options = normal.Options(case, punctuation)
    assert normal.text(left, options) == normal.text(right, options)
    for other in (normal.Options(not case, False), normal.Options(False, not punctuation)):
        is_one = normal.text(left, other) == normal.text(right, other)
        assert is_one == (not case and not punctuation)


@pytest.mark.parametrize(
    ("left", "right"),
    [("1.5", "15"), ("-5", "5"), ("?", "!"), ("C++", "C"), ("3 < 4", "3 4"), ("a b", "ab")],
)
def test_what_changes_the_meaning_stays(left, right):
    assert normal.text(left, LOOSE) != normal.text(right, LOOSE)


def test_every_punctuation_mark_is_left_out():
    marks = [c for c in map(chr, range(sys.maxunicode)) if unicodedata.category(c)[0] == "P"]
    assert len(marks) > 800
    assert {normal.text(f"a{mark}b", LOOSE) for mark in marks} == {"ab"}


@given(st.lists(st.text(max_size=3), max_size=3), st.lists(st.text(max_size=3), max_size=3))
def test_keys_are_equal_when_the_lists_are(left, right):
    assert (normal.key(left) == normal.key(right)) == (left == right)
    assert len(normal.key(left)) == 16


TEXT = st.sampled_from(["a", "A ", " a", "b", "a b", "a  b", "A, b", "a-b", "é", "e\u0301", "ab"])
SYSTEM = st.none() | st.sampled_from(["", " ", "S", "s", "a"])
TALKS = st.lists(
    st.builds(
        lambda system, texts: talk(*texts, system=system),
        SYSTEM,
        st.lists(TEXT, min_size=1, max_size=3),
    ),
    max_size=12,
)


def form(talk, options, turns=None):
    texts = [(t.role, normal.text(t.text, options)) for t in talk.turns[:turns]]
    return normal.text(talk.system or "", options), texts


@given(TALKS, OPTIONS)
def test_rows_are_equal_when_their_normal_forms_are(talks, options):
    found = exact.find(talks, options)
    forms = [form(talk, options) for talk in talks]
    assert found.first.dtype == np.int64
    assert found.first.tolist() == [forms.index(f) for f in forms]
    assert found.is_repeat.tolist() == [f in forms[:i] for i, f in enumerate(forms)]


@given(TALKS, OPTIONS)
def test_prompts_are_equal_when_all_before_the_last_answer_is(talks, options):
    found = exact.prompts(talks, options)
    forms = [form(talk, options, -1 if talk.turns[-1].role == "model" else None) for talk in talks]
    assert found.tolist() == [forms.index(f) for f in forms] and found.dtype == np.int64


@given(TALKS, st.randoms())
def test_order_decides_only_who_is_first(talks, random):
    order = random.sample(range(len(talks)), len(talks))
    here = exact.find(talks).first
    there = exact.find([talks[i] for i in order]).first
    for i, row in enumerate(order):
        for j, other in enumerate(order):
            assert (there[i] == there[j]) == (here[row] == here[other])


def test_what_is_no_part_of_a_row():
    row = talk("a", "b", "c", "d", system="")
    others = [
        dataclasses.replace(row, source="x:1", origin="x", group="g", category="c"),
        dataclasses.replace(row, system=None),
        talk("a", "b", "c", "d", context=[1]),
    ]
    assert exact.find([row, *others]).first.tolist() == [0, 0, 0, 0]


def test_texts_and_roles_are_kept_apart():
    rows = [
        *(talk("ab", "c"), talk("a", "bc"), talk("a", "b", "c"), talk("a", "b", "c", "d")),
        *(talk("b", "c", system="a"), talk("a", "user", "b"), talk("a user b", "c")),
    ]
    assert exact.find(rows).first.tolist() == [*range(7)]
    swapped = dataclasses.replace(rows[0], turns=(Turn("model", "ab"), Turn("user", "c")))
    assert exact.find([rows[0], swapped]).first.tolist() == [0, 1]


@given(TALKS, st.integers(0, 3), OPTIONS)
def test_a_prompt_keeps_its_first_answers(talks, cap, options):
    talks = [t for t in talks if t.turns[-1].role == "model"]
    prompt_ids = exact.prompts(talks, options)
    found = exact.over_cap(talks, prompt_ids, cap, options)
    answers: dict = {}
    for talk_, prompt, is_over in zip(talks, prompt_ids, found, strict=True):
        answer = normal.text(talk_.turns[-1].text, options)
        seen = answers.setdefault(prompt, [])
        if answer not in seen:
            seen.append(answer)
        assert is_over == (cap > 0 and seen.index(answer) >= cap)


def test_other_answers_to_a_prompt_are_kept_and_counted():
    talks = [
        *(talk("q", "1"), talk("q", "2"), talk("q", "1 "), talk("q ", "3"), talk("r", "1")),
        *(talk("q", "1", system="S"), talk("s", "x"), talk("s", "y"), talk("s", "y")),
    ]
    found, prompt_ids = exact.find(talks), exact.prompts(talks)
    assert np.flatnonzero(found.is_repeat).tolist() == [2, 8]
    assert prompt_ids.tolist() == [0, 0, 0, 0, 4, 5, 6, 6, 6]
    assert exact.several_answers(encoded(talks)) == {"prompts": 2, "rows": 7}
    over = exact.over_cap(talks, prompt_ids, 1)
    assert np.flatnonzero(over).tolist() == [1, 3, 7, 8]
    assert not exact.over_cap(talks, prompt_ids, 0).any()


def test_no_rows():
    assert exact.find([]).first.shape == exact.prompts([]).shape == (0,)
    assert exact.several_answers(encoded([])) == {"prompts": 0, "rows": 0}


def encoded(talks):
    return Examples.from_list([encoding.encode(one, tiny(), "gemma3") for one in talks])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (("q", "1"), ("q", "2"), 2),
        (("q", "1"), (" q", "1\n"), 0),  # the chat format strips turns
        (("q", "a\u2581b"), ("q", "a b"), 0),  # the same tokens
        (("q\u2581r", "1"), ("q r", "2"), 2),
        (("q", "a  b"), ("q", "a b"), 2),  # told apart by the model, not by the normal form
        (("q", "1", "r", "2"), ("q", "1", "r", "3"), 2),
        (("q", "1", "r", "2"), ("q", "3", "r", "2"), 0),  # an earlier answer is of the prompt
        (("q", "1"), ("q", "1", "q", "2"), 0),
    ],
)
def test_different_answers_are_different_tokens(one, other, expected):
    rows = [talk(*one), talk(*other), talk("other", "1"), talk("other", "1")]
    assert exact.several_answers(encoded(rows)) == {"prompts": expected // 2, "rows": expected}
    masked = encoded(rows)
    masked = Examples(masked.tokens, np.minimum(masked.kinds, encoding.CONTEXT), masked.starts)
    assert exact.several_answers(masked)["rows"] == expected
    assert exact.several_answers(encoded([*rows, rows[0]]))["rows"] == expected * 3 // 2


def test_rows_without_an_answer_have_none():
    kinds = np.array([encoding.SCAFFOLD, encoding.PROMPT], np.uint8)
    alone = encoding.Example(np.array([2, 5], np.int32), kinds)
    assert exact.several_answers(Examples.from_list([alone, alone]))["prompts"] == 0


def test_what_the_tokenizer_writes_for_a_space_is_a_space():
    assert normal.text("a\u2581\u2581b\u2581", normal.Options()) == "a b"
    assert exact.find([talk("q", "a\u2581b"), talk("q", "a b")]).first.tolist() == [0, 0]


HASH_SEED = """
from sft.data.conversation import Conversation, Turn
from sft.data.dedup import exact, normal
talks = [Conversation((Turn("user", q), Turn("model", a)), None, "") for q in "aAb" for a in "xyX"]
loose = normal.Options(case=True)
print(exact.find(talks, loose).first.tolist(), exact.prompts(talks, loose).tolist())
print(normal.key(["a", "b"]).hex())
"""


def test_the_same_in_every_process():
    printed = {
        subprocess.run(
            [sys.executable, "-c", HASH_SEED],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    assert printed.pop().startswith("[0, 1, 0, 0, 1, 0, 6, 7, 6] [0, 0, 0, 0, 0, 0, 6, 6, 6]")
