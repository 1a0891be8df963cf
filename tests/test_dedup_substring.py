import itertools
import subprocess
import sys

import numpy as np
import pytest
from substring_rules import (
    form_classes,
    form_windows,
    is_copy,
    plain_classes,
    random_case,
    sources_of,
    stated,
    tokens_of,
    turn_copies,
    window_classes,
)

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import ANSWER, CONTEXT, END, PROMPT, SCAFFOLD, Example
from sft.data.dedup import engines, substring, templates
from sft.data.dedup.substring import Options, find
from sft.errors import UserError

LETTERS = {"answer": ANSWER, "context": CONTEXT, "prompt": PROMPT}


def row(*turns, end=True):
    """An example: ``"text"`` is an answer, ``("prompt", "text")`` is not; a letter is a token."""
    tokens, kinds = [2], [SCAFFOLD]
    for turn in turns:
        kind, text = turn if isinstance(turn, tuple) else ("answer", turn)
        tokens += [*map(ord, text), 1, 9]
        after = END if kind == "answer" and end else SCAFFOLD
        kinds += [LETTERS[kind]] * len(text) + [after, SCAFFOLD]
    return Example(np.array(tokens, np.int32), np.array(kinds, np.uint8))


def search(rows, groups=None, origins=None, **options):
    """(row, text of the span, owner) of each span; ``$`` is an end of turn."""
    examples = Examples.from_list(rows)
    groups = np.arange(len(rows)) if groups is None else np.array(groups)
    origins = np.zeros(len(rows), np.int64) if origins is None else np.array(origins)
    found = find(examples, groups, origins, Options(**{"length": 3, **options}))
    assert found.rows.dtype == found.starts.dtype == found.owners.dtype == np.int64
    spans = zip(found.rows, found.starts, found.stops, found.owners, strict=True)
    return [
        (int(i), "".join(map(chr, examples[i].tokens[a:b])).replace("\x01", "$"), int(owner))
        for i, a, b, owner in spans
    ]


# On few tokens, most of the time is that in which the real engines start.
COUNTS = {"plain": 3000, "hash": 400, "suffix_array": 150}


@pytest.mark.parametrize("engine", COUNTS)
@pytest.mark.parametrize("keep", ["first", "none"])
@pytest.mark.parametrize("scope", ["group", "record"])
def test_random_rows_against_the_rules(scope, keep, engine, monkeypatch):
    rng = np.random.default_rng([ord(scope[0]), ord(keep[0]), ord(engine[0])])
    how = {"scope": scope, "keep": keep, "engine": engine}
    if engine == "plain":
        monkeypatch.setattr(engines, "classes", plain_classes)
        how["engine"] = "hash"
    repeats = listed = 0
    for _ in range(COUNTS[engine]):
        rows, groups, origins, options = random_case(rng, **how)
        kept = rng.random(len(rows)) < 0.8 if rng.random() < 0.3 else np.ones(len(rows), bool)
        found = find(Examples.from_list(rows), groups, origins, options, kept)
        repeated = tokens_of(found)
        forms = form_windows(rows, origins, options, kept)
        expected = stated(rows, groups, origins, options, kept, forms)
        assert repeated == expected, (rows, groups, options)
        check_owners(found, rows, groups, options, kept, forms)
        check_forms(found, rows, origins, options, kept, forms)
        repeats += len(repeated) > 0
        listed += len(found.templates) > 0
    assert repeats > COUNTS[engine] / 5 and listed > COUNTS[engine] / 8


def check_owners(found, rows, groups, options, kept, forms):
    """Each owner has what its span starts with, and no row that comes before it does."""
    classes = window_classes(rows, options.length, kept, forms)
    turns = [*turn_copies(rows, groups, options, kept, forms)]
    copies = {}  # of each token in a copy of a window, who owns the last such window
    for places in classes.values():
        order = (lambda j: (groups[j], j)) if options.scope == "group" else (lambda j: j)
        owner = min((j for j, *_ in places), key=order)
        for place in places:
            if is_copy(place, places, groups, options):
                for k in place[2]:
                    copies[place[0], k] = max(copies.get((place[0], k), (-1, 0)), (place[1], owner))
    for i, start, owner in zip(found.rows, found.starts, found.owners, strict=True):
        whole = [first for j, a, _, first in turns if (j, a) == (i, start)]
        by_window = copies.get((int(i), int(start)), (-1, -1))[1]
        if options.keep == "none":
            assert owner == -1
        elif whole:
            assert owner in (by_window, *whole)
        else:
            assert owner == by_window


def check_forms(found, rows, origins, options, kept, expected):
    """The listing holds every window of a form, no other, and no text that longer ones hold."""
    length = min(templates.LENGTH, options.length)
    texts = [tuple(form["tokens"]) for form in found.templates]
    parts = [{t[k : k + length] for k in range(len(t) - length + 1)} for t in texts]
    assert set().union(*parts) == expected
    for text, windows_of in zip(texts, parts, strict=True):
        longer = [p for t, p in zip(texts, parts, strict=True) if len(t) > len(text)]
        assert not windows_of <= set().union(*longer)
    classes = form_classes(rows, options, kept)
    for form, windows_of in zip(found.templates, parts, strict=True):
        most = [max(sources_of(classes[w], origins, options, kept)) for w in windows_of]
        rows_of, source = form["rows"], -form["origin"]
        assert (rows_of, source) in most and rows_of == max(held for held, _ in most)


def test_the_lowest_group_keeps_its_copy_wherever_it_stands():
    rows = [row("xyz"), row("abcd"), row("abcd"), row("abcd")]
    spans = search(rows, [0, 1, 0, 2], whole_turns=False)
    assert spans == [(1, "abcd$", 2), (3, "abcd$", 2)]


@pytest.mark.parametrize(("shared", "expected"), [("ab", []), ("abc", ["abc"]), ("abcd", ["abcd"])])
def test_lengths_around_that_of_a_window(shared, expected):
    for before, after in itertools.product(["", "xy"], ["", "uv"]):
        spans = search([row(shared), row(before + shared + after)])
        ended = [text + "$" * (before + after == "") for text in expected]
        assert spans == [(1, text, 0) for text in ended]


def test_no_window_crosses_a_turn_or_a_row_or_leaves_the_answers():
    assert search([row("ab", "cd"), row("abcd")]) == []
    assert search([row("ab"), row("cd"), row("abcd")]) == []
    context, prompt = row(("context", "abcd")), row(("prompt", "abcd"), "xy")
    assert search([context, prompt, row("abcd"), context, prompt]) == []


def test_a_turn_that_follows_another_row_without_any_token_between():
    tail = Example(np.array([7, 8], np.int32), np.array([ANSWER] * 2, np.uint8))
    found = find(
        Examples.from_list([tail, tail, tail, tail]),
        *(np.arange(4), np.zeros(4, np.int64), Options(length=3)),
    )
    assert len(found.rows) == 0


def test_a_system_instruction_or_prompt_in_every_row_changes_nothing():
    answers = ["abcdx", "abcdy", "uvwxyz", "uvwxyz"]
    bare = search([row(answer) for answer in answers])
    assert search([row(("prompt", "a prompt" * 9), answer) for answer in answers]) == bare != []


def test_what_a_group_prints_again_stays_but_for_whole_answers_of_another_row():
    rows = [row("abcdx", "abcdy", "abcdy"), row("abcdz", "abcdx"), row("uabc")]
    assert search(rows, [0, 0, 1]) == [(1, "abcdx$", 0), (2, "abc", 0)]
    assert search(rows, [0, 0, 1], whole_turns=False) == [(2, "abc", 0)]
    assert search([row("ab"), row("ab")], [0, 0]) == []


def test_scope_record_keeps_the_first_of_places_that_do_not_overlap():
    assert search([row("aaaaaaaa")], scope="record") == [(0, "aaaaa", 0)]
    assert search([row("aaaaa")], scope="record") == []
    assert search([row("xabcyabc")], scope="record") == [(0, "abc", 0)]
    assert search([row("a" * 1000)]) == []


def test_keep_none_in_scope_record_is_the_reference_without_its_defects():
    rows = [row("aaaaaaaaaaaabbbccccc"), row("aaaaaaaaaaaaccccc")]
    spans = search(rows, scope="record", keep="none")
    assert spans == [(0, "aaaaaaaaaaaa", -1), (0, "ccccc", -1), (1, "aaaaaaaaaaaaccccc$", -1)]
    assert search([row("a" * 9)], scope="record", keep="none") == [(0, "a" * 9 + "$", -1)]


def test_max_copies_counts_groups():
    rows = [row("abc"), row("abc"), row("abc"), row("abc")]
    groups = [0, 1, 1, 2]
    alone = {"whole_turns": False}
    assert [i for i, *_ in search(rows, groups, max_copies=1, **alone)] == [1, 2, 3]
    assert [i for i, *_ in search(rows, groups, max_copies=2, **alone)] == [3]
    assert search(rows, groups, max_copies=3, **alone) == []
    assert [i for i, *_ in search(rows, max_copies=3)] == [3]
    assert search(rows, max_copies=10**6) == []


def test_the_end_of_a_turn_goes_with_the_whole_turn_only():
    assert search([row("abcd"), row("abcd")]) == [(1, "abcd$", 0)]
    assert search([row("abcd"), row("abcdx")]) == [(1, "abcd", 0)]
    assert search([row("abcd"), row("abcd", end=False)]) == [(1, "abcd", 0)]


def test_a_form_stays_and_is_listed():
    rows = [row(f"call({i})") for i in "abcdefgh"] + [row("xcall(a"), row("uvw"), row("uvw")]
    rows += [row("call(mnop"), row("call(mnopq"), row("mncall(op")]
    origins = [0] * 8 + [1] * 6
    options = {"template_rows": 5, "template_share": 0.5, "length": 4}
    spans = search(rows, origins=origins, **options)
    # "ll(a" is a form and a letter; what is copied besides the form is found, in pieces too.
    assert spans == [(12, "mnop", 11), (13, "mn", 11), (13, "op", 11)]
    examples = Examples.from_list(rows)
    found = find(examples, np.arange(14), np.array(origins), Options(**options))
    assert found.templates == [{"tokens": [*map(ord, "call(")], "rows": 8, "origin": 0}]
    too_few = search(rows, origins=origins, **{**options, "template_rows": 9})
    assert (7, "call(", 0) in too_few and (8, "call(a", 0) in too_few


def test_forms_are_the_same_whatever_the_engine():
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice([*"ab"], 30)) for _ in range(12)]
    rows = Examples.from_list([row(text) for text in texts])
    listings = [
        find(
            rows,
            *(np.arange(12), np.zeros(12, np.int64)),
            Options(length=3, template_rows=7, template_share=0.1, engine=engine),
        ).templates
        for engine in engines.ENGINES
    ]
    assert listings[0] == listings[1] and len(listings[0]) > 1


def test_a_listed_form_ends_with_its_row():
    """Windows of one token follow each other across rows without a token between their answers."""
    tail = Example(np.array([7, 8], np.int32), np.array([ANSWER] * 2, np.uint8))
    options = Options(length=1, template_share=1.0, template_rows=1)
    given = Examples.from_list([tail, tail, tail])
    found = find(given, np.arange(3), np.zeros(3, np.int64), options)
    assert found.templates == [{"tokens": [7, 8], "rows": 3, "origin": 0}]


def test_nothing_to_look_at():
    for rows in ([], [row()], [row(""), row(("prompt", "abc"))]):
        assert search(rows) == []


def test_read_only_rows_and_ids_of_a_large_vocabulary(tmp_path):
    ids = np.array([262_143, 65_536, 131_072, 0, 1, 2], np.int32)
    rows = [np.roll(ids, k) for k in range(6)] + [ids % 65_536]
    example = Examples.from_list([Example(r, np.full(6, ANSWER, np.uint8)) for r in rows])
    np.save(tmp_path / "tokens.npy", example.tokens)
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    for tokens, engine in itertools.product([example.tokens, mapped], engines.ENGINES):
        options = Options(length=6, engine=engine)
        given = Examples(tokens, example.kinds, example.starts)
        found = find(given, np.arange(7), np.zeros(7, np.int64), options)
        assert len(found.rows) == 0
        options = Options(length=5, engine=engine)
        found = find(given, np.arange(7), np.zeros(7, np.int64), options)
        assert tokens_of(found) == stated([*given], np.arange(7), np.zeros(7), options) != set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "row"}, r"config\.data\.dedup\.scope = 'row': expected one of group, record\."),
        ({"keep": "all"}, r"config\.data\.dedup\.keep = 'all': expected one of first, none\."),
        ({"engine": "rust"}, r"config\.data\.dedup\.engine = 'rust': expected one of suffix_array"),
        ({"length": 0}, r"config\.data\.dedup\.substring = 0: expected at least 1 token\."),
        ({"max_copies": 0}, r"config\.data\.dedup\.max_copies = 0: expected at least 1\."),
        ({"template_share": 5}, r"config\.data\.dedup\.template_share = 5: expected 0 to 1\."),
    ],
)
def test_options_that_cannot_be_used(options, message):
    with pytest.raises(UserError, match=message):
        Options(**options)


def test_importing_is_light():
    heavy = "jax", "gemma", "pydivsufsort", "scipy", "grain", "pyarrow", "sentencepiece"
    code = f"import sys, {substring.__name__}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
