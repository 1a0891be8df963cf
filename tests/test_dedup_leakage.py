"""Leaks by every reason at its threshold, against plain statements of the rules."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tokenizer import tiny

from sft.data.batches.examples import Examples
from sft.data.chat import encoding
from sft.data.chat.encoding import ANSWER, END, PROMPT, SCAFFOLD, Example
from sft.data.conversation import Conversation, Turn
from sft.data.dedup import coverage, leakage, overlap, same_text
from sft.data.dedup.leakage import CODES, NONE, Options, Set
from sft.errors import UserError

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def made(*rows, origin="a", system=None, context=()) -> Set:
    """Rows of texts by turns of user and model."""
    conversations = []
    for number, texts in enumerate(rows):
        turns = [
            Turn(("user", "model")[i % 2], text, i not in context) for i, text in enumerate(texts)
        ]
        source = f"{origin}.jsonl:{number + 1}"
        conversations.append(Conversation(tuple(turns), system, source, origin))
    encoded = [encoding.encode(c, tiny(), "gemma3") for c in conversations]
    return Set(conversations, Examples.from_list(encoded))


def noise(seed, length) -> str:
    """Letters, each a token or more, that no other seed repeats."""
    return "".join(random.Random(seed).choices(LETTERS, k=length))


def letters(count, seed=0) -> str:
    """Text of exactly that many tokens."""
    text = noise(seed, 2 * count)
    ends = [n for n in range(len(text)) if len(tiny().encode(text[:n])) == count]
    return text[: ends[0]]


def only(train, held, **options) -> list[str]:
    """The code against each training row, or ""."""
    found = leakage.find(train, {"validation": held}, Options(**options))
    return [found.reason(row)[0] if found.codes[row] >= 0 else "" for row in range(len(train[0]))]


@pytest.mark.parametrize(("tokens", "code"), [(7, ""), (8, "leak_prompt")])
def test_an_equal_prompt_from_eight_tokens_on(tokens, code):
    asked = letters(tokens)
    train = made((asked, noise(1, 20)), (noise(2, 30), noise(3, 5), f" {asked}\n", noise(4, 9)))
    assert only(train, made((asked, noise(5, 20)))) == [code, code]


def test_the_prompt_of_an_evaluation_row_is_its_first_long_turn():
    asked, follow_up = letters(20, 1), letters(20, 2)
    held = made(("hi", "hello", asked, "a b c", follow_up, noise(3, 30)))
    train = made((asked, "x"), (follow_up, "x"), ("hi", "y"))
    assert only(train, held) == ["leak_prompt", "", ""]


def test_a_short_row_leaks_only_as_a_whole():
    held = made(("a b", "c"), ("hi", "ho", "d e", "f"))
    train = made(("a b", "d"), (" a  b", "c"), ("x", "y", "a b", "c", "z", "w"), ("hi", "ho"),
                 ("q", "r", "hi", "ho", "d\te", "f "))  # fmt: skip
    assert only(train, held) == ["", "leak_item", "leak_item", "", "leak_item"]


def test_texts_are_compared_in_normal_form():
    held = made(("caf\u00e9 au  lait d d d", "x"))
    assert only(made(("cafe\u0301 au\nlait d d d", "y")), held) == ["leak_prompt"]
    assert only(made(("CAFE\u0301 au lait d d d", "y")), held, coverage=0, jaccard=0) == [""]


@pytest.mark.parametrize("context", [(), (1,)])
@pytest.mark.parametrize(("tokens", "code"), [(49, ""), (50, "leak_answer")])
def test_an_equal_answer_from_fifty_tokens_on(tokens, code, context):
    said = letters(tokens)
    rows = ((noise(1, 120), said, noise(2, 120), noise(3, 99)),)
    held = made((noise(4, 120), said, noise(5, 120), noise(6, 90)), context=context)
    assert only(made(*rows), held) == [code]


@pytest.mark.parametrize(("tokens", "code"), [(49, ""), (50, "leak_window")])
def test_a_shared_stretch_of_answers(tokens, code):
    part = letters(tokens)
    train = made((noise(1, 300), f"{noise(2, 90)}.{part}.{noise(3, 150)}"))
    held = made((noise(4, 300), f"{noise(5, 99)},{part},{noise(6, 90)}"))
    found = leakage.find(train, {"validation": held})
    assert only(train, held) == [code]
    share = found.shares["validation"]
    assert share["touched"] == bool(code) and share["answer_tokens"] == held[1].trained.sum() - 1
    assert share["shared_tokens"] == (tokens if code else 0)


def test_near_duplicates_and_text_in_pieces():
    words = noise(1, 400)
    held = made((words[:200], words[200:]))
    edited = words[:100] + "X" + words[101:]
    pieces = ".".join(words[start : start + 45] for start in range(0, 250, 50))
    train = made(
        (edited[:200] + "Q", noise(7, 9) + edited[200:]),
        (noise(2, 500), pieces),
        (noise(4, 500), pieces[:90]),
        *((noise(i, 30), noise(i + 1, 30)) for i in range(100, 112, 2)),
    )
    codes = ["leak_near", "leak_coverage", *[""] * 7]
    assert only(train, held, window=0, response_tokens=10**9) == codes


def test_test_sets_come_before_validation_and_nothing_evaluated_changes():
    asked = letters(30)
    train, one = made((asked, "x")), made((noise(5, 99), "q"), (asked, "y"))
    other = made((asked, "z"))
    before = [(s.examples.tokens.copy(), s.examples.kinds.copy(), list(s[0])) for s in (one, other)]
    for held in (one, other):
        for array in (held.examples.tokens, held.examples.kinds, held.examples.starts):
            array.setflags(write=False)
    found = leakage.find(train, {"validation": one, "dates": other})
    assert found.reason(0) == ("leak_prompt", "dates:0")
    assert leakage.find(train, {"validation": one}).reason(0) == ("leak_prompt", "validation:1")
    pair = {"left": "validation", "row": 1, "right": "dates", "other": 0, "code": "leak_prompt"}
    assert found.pairs == [pair]
    for held, (tokens, kinds, conversations) in zip((one, other), before, strict=True):
        assert held.examples.tokens.tobytes() == tokens.tobytes()
        assert held.examples.kinds.tobytes() == kinds.tobytes()
        assert list(held[0]) == conversations


def test_shares_and_the_refusal_that_names_them():
    train = made(*((letters(30, i), "x") for i in range(4)))
    held = made(*((letters(30, i), "y") for i in range(2, 12)))
    share = leakage.find(train, {"validation": held}).shares
    one = share["validation"]
    assert (one["rows"], one["touched"], one["share"], one["train_rows"]) == (10, 2, 0.2, 2)
    assert one["reasons"] == {code: 2 * (code in ("leak_prompt", "leak_near", "leak_coverage"))
                              for code in CODES}  # fmt: skip
    leakage.refuse(share, 0.2)
    with pytest.raises(UserError, match=r"2 training rows give away 2 of its 10 rows \(20.0%"):
        leakage.refuse(share, 0.19)


def test_empty_sets_and_no_sets():
    train, nothing = made(("a b", "c")), Set([], Examples.from_list([]))
    for one, held in ((train, {}), (train, {"validation": nothing}), (nothing, {"test": train})):
        found = leakage.find(one, held)
        assert (found.codes == -1).all() and len(found.codes) == len(one[0])
        assert all(share["touched"] == 0 for share in found.shares.values())


def test_templates_are_no_leak():
    form, count = letters(60, 99), 30
    train = made(*((noise(i, 90), f"{form} {noise(i + 500, 60)}") for i in range(count)))
    held = made((noise(901, 90), f"{form} {noise(902, 60)}"))
    assert only(train, held, template_rows=10) == [""] * count
    assert only(train, held, template_rows=count + 1) == ["leak_window"] * count
    # In a source of its own the form is rare among all rows and still a form.
    others = made(*((noise(i, 90), noise(i + 1, 70)) for i in range(2000, 2600, 2)), origin="b")
    both = Set([*train[0], *others[0]], Examples.from_list([*train[1], *others[1]]))
    assert only(both, held, template_rows=10, template_share=0.5) == [""] * (count + 300)


def test_an_instruction_in_every_prompt_is_no_coverage():
    ask = "Translate the following sentence from English into French and keep its tone: "
    train = made(*((ask + noise(i, 20), noise(i + 100, 20)) for i in range(12)))
    held = made((ask + noise(500, 20), noise(501, 20)), (ask + noise(3, 20), noise(502, 20)))
    found = leakage.find(train, {"validation": held}, Options(jaccard=0))
    assert [code for code in found.codes if code >= 0] == [0] and found.codes[3] == 0
    assert found.shares["validation"]["touched"] == 1


@pytest.mark.parametrize("form", ["gemma3", "gemma4_large"])
@pytest.mark.parametrize("system", [None, "be kind"])
def test_tokens_of_turns(form, system):
    tokenizer = tiny(form[:6])
    talks = made(("x", "y", "z w", "v"), system=system, context=(1,))[0]
    talks += made(("a b", "c d e"), ("", "x"), system=system)[0]
    found = Examples.from_list([encoding.encode(c, tokenizer, form) for c in talks])
    expected = [[len(tokenizer.encode(turn.text)) for turn in row.turns] for row in talks]
    assert [sizes.tolist() for sizes in same_text.turn_tokens(found)] == expected


ROWS = st.lists(
    st.lists(st.tuples(st.sampled_from([SCAFFOLD, PROMPT, ANSWER, END]), st.integers(0, 2)),
             max_size=12), max_size=6,
)  # fmt: skip


def examples_of(rows) -> Examples:
    return Examples.from_list(
        [Example(np.array([t for _, t in row], np.int32), np.array([k for k, _ in row], np.uint8))
         for row in rows]
    )  # fmt: skip


def windows_of(row, kinds, length) -> dict[int, tuple]:
    """Start → tokens, of the windows of one kind among ``kinds``."""
    found = {}
    for start in range(len(row) - length + 1):
        part = row[start : start + length]
        if len({kind for kind, _ in part}) == 1 and part[0][0] in kinds:
            found[start] = (part[0][0], *(token for _, token in part))
    return found


@settings(max_examples=400)
@given(ROWS, ROWS, st.integers(1, 5), st.sampled_from([1, 3, 64]), st.integers(1, 6))
def test_shared_windows_are_those_of_brute_force(train, held, length, bits, chunk):
    """Also with a hash of a few bits, which collides all the time, and rows in many chunks."""
    patch = pytest.MonkeyPatch()
    full = overlap._hashes

    def weak(tokens, size, seed):
        # A hash that cannot tell two windows apart is drawn again until it has enough bits.
        kept = min(bits + 4 * seed, 64)
        return full(tokens, size, seed) << np.uint64(64 - kept)

    patch.setattr(overlap, "_hashes", weak)
    patch.setattr(overlap, "_CHUNK", chunk)
    try:
        ours, theirs = examples_of(train), examples_of(held)
        known = overlap.index(theirs, overlap.TEXT, length)
        rows, ids = overlap.shared(known, ours)
    finally:
        patch.undo()
    found = {
        (row, tuple(theirs.tokens[known.first[i] : known.first[i] + length].tolist()))
        for row, i in zip(rows.tolist(), ids.tolist(), strict=True)
    }
    there = {w[1:] for row in held for w in windows_of(row, overlap.TEXT, length).values()}
    expected = {
        (number, window[1:])
        for number, row in enumerate(train)
        for window in windows_of(row, overlap.TEXT, length).values()
        if window[1:] in there
    }
    assert found == expected and len(found) == len(rows)
    places = sum(len(windows_of(row, overlap.TEXT, length)) for row in held)
    assert len(known.positions) == places and len(known) == len(there)


@pytest.mark.parametrize("length", [1, 2, 3, 5, 7, 8, 13, 50, 63])
def test_different_windows_have_different_hashes(length):
    """Of two symbols, in every order: a hash blind to some order would be drawn for ever."""
    tokens = np.random.default_rng(0).integers(0, 2, 5000).astype(np.int32)
    different = {tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)}
    assert len(np.unique(overlap._hashes(tokens, length, 0))) == len(different)


@settings(max_examples=400)
@given(ROWS, ROWS, st.integers(1, 3), st.sampled_from([0.3, 0.5, 1.0]))
def test_coverage_is_that_of_brute_force(train, held, length, share):
    grams = [set(w[1:] for w in windows_of(r, overlap.TEXT, length).values()) for r in train]
    least = min(10, max(2, len(train) // 2))
    often = {gram for row in grams for gram in row if sum(gram in r for r in grams) >= least}
    expected = []
    for left, row in enumerate(grams):
        for right, other in enumerate(held):
            places = windows_of(other, overlap.TEXT, length).items()
            own = {i for i, (kind, _) in enumerate(other) if kind in overlap.TEXT}
            own -= {s + k for s, w in places if w[1:] in often for k in range(length)}
            inside = {s + k for s, w in places if w[1:] in row - often for k in range(length)}
            asked = {i for i in own if other[i][0] == PROMPT}
            enough = all(len(inside & part) >= share * len(part) for part in (own, asked))
            if len(asked) >= coverage.SHORT * length and inside and enough:
                expected.append((left, right))
    found = coverage.pairs(examples_of(train), examples_of(held), length, share, 0.0)
    assert list(zip(*(a.tolist() for a in found), strict=True)) == expected


def test_no_match_is_above_every_row():
    match = leakage.Match(2, 3)
    match.add(np.array([1, 1]), np.array([2, 0]))
    assert match.first.tolist() == [NONE, 0] and match.touched.tolist() == [True, False, True]
