"""Text that many rows share stays, and what they repeat besides it is found."""

import dataclasses

import numpy as np
import plain_beam
import pytest
from substring_rules import lists_of, random_case, stated, tokens_of
from test_dedup_beam import plain  # noqa: F401
from test_dedup_leakage import letters, made, noise
from test_dedup_policy import run, stated_policy

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import ANSWER, END, PROMPT, SCAFFOLD, Example
from sft.data.dedup import leakage, normal, templates
from sft.data.dedup import options as build_options
from sft.data.dedup.beam import policy as beyond
from sft.data.dedup.beam.policy import Layout
from sft.data.dedup.build import build
from sft.data.dedup.substring import Options, policy

LENGTH = 50
FORM, OTHER = np.arange(1000, 1060), np.arange(1100, 1160)  # each longer than a window


DRAW = np.random.default_rng(0)


def fresh(*sizes):
    """Tokens that no other row has, so many for each size."""
    return [DRAW.integers(10_000, 260_000, size) for size in sizes]


def row(*turns):
    """A conversation with these answers, each a list of parts."""
    tokens, kinds = [2], [SCAFFOLD]
    for parts in turns:
        answer = np.concatenate([np.zeros(0, np.int64), *parts]).tolist()
        tokens += [*fresh(6)[0].tolist(), 3, *answer, 1]
        kinds += [PROMPT] * 6 + [SCAFFOLD] + [ANSWER] * len(answer) + [END]
    return Example(np.array(tokens, np.int32), np.array(kinds, np.uint8))


def repeated(rows, origins=None, engine="hash", **options):
    """What ``policy`` would do to the rows: the tokens in spans, of each row, and the forms."""
    given = Examples.from_list(rows)
    origins = np.zeros(len(rows), np.int64) if origins is None else np.array(origins)
    options = Options(**{"length": LENGTH, "engine": engine} | options)
    dropped, found = policy(given, np.arange(len(rows)), origins, options, "report")
    assert not dropped.any()
    spans = [np.zeros(0, np.int32) for _ in rows]
    for i, a, b in zip(found.rows, found.starts, found.stops, strict=True):
        spans[i] = np.concatenate([spans[i], given[i].tokens[a:b]])
    return spans, found.templates


def lengths(rows, **how):
    return [len(tokens) for tokens in repeated(rows, **how)[0]]


LAYOUTS = {
    "start": lambda a, b: [FORM, a, b],
    "middle": lambda a, b: [a, FORM, b],
    "end": lambda a, b: [a, b, FORM],
    "two": lambda a, b: [FORM, a, OTHER, b],
    "twice": lambda a, b: [FORM, a, FORM, b],
    "alone": lambda a, b: [FORM],
    "a word after it": lambda a, b: [FORM, a[:1] % 40],  # as "The" follows it in many rows
    "a word before it": lambda a, b: [b[:1] % 40, FORM],
    "a slot": lambda a, b: [FORM[:30], a[:1] % 25, FORM[30:], b],
    "slots": lambda a, b: [
        *(part for k in (0, 15, 30) for part in (FORM[k : k + 15], a[k : k + 1] % 3)),
        FORM[45:],
        b,
    ],
}  # fmt: skip


@pytest.mark.parametrize("engine", ["hash", "suffix_array"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("count", "share"), [(20, 1.0), (90, 1.0), (400, 0.3)])
def test_a_form_is_not_masked_wherever_it_stands(layout, count, share, engine):
    rows = [row([*LAYOUTS[layout](*fresh(40, 40))]) for _ in range(int(share * count))]
    rows += [row(fresh(80)) for _ in range(count - len(rows))]
    spans, forms = repeated(rows, engine=engine)
    assert not any(map(len, spans))
    assert forms[0]["rows"] == int(share * count)
    assert {*forms[0]["tokens"]} & {*FORM.tolist()}
    assert sum(lengths(rows, engine=engine, template_share=0.0)) > 50


@pytest.mark.parametrize("layout", ["start", "middle", "end", "two", "twice"])
def test_a_copied_answer_is_found_besides_its_form(layout):
    """Also where the form parts what is copied, none of which is long enough by itself."""
    rows = [row([*LAYOUTS[layout](*fresh(40, 40))]) for _ in range(40)]
    said = fresh(25, 25)
    rows += [row([*LAYOUTS[layout](*said)]), row([*LAYOUTS[layout](*said), fresh(5)[0]])]
    spans, _ = repeated(rows)
    assert [i for i, tokens in enumerate(spans) if len(tokens)] == [41]
    assert spans[41].tolist() == np.concatenate(said).tolist()
    shorter = [row([*LAYOUTS[layout](said[0], said[1][:24])]) for _ in range(1)]
    assert not any(lengths([*rows[:41], *shorter]))


@pytest.mark.parametrize("copied", [49, 50, 51])
def test_a_copy_that_goes_on_behind_a_form(copied):
    rows = [row([FORM, *fresh(80)]) for _ in range(40)]
    (said,) = fresh(copied)
    rows += [row([FORM, said, *fresh(20)]), row([*fresh(30), FORM, said, *fresh(10)])]
    rows += [row([*fresh(9), said, *fresh(10)])]  # without the form
    expected = copied if copied >= LENGTH else 0
    assert lengths(rows) == [0] * 41 + [expected] * 2


def test_a_whole_answer_that_is_repeated_goes_with_its_form():
    rows = [row([FORM, *fresh(80)]) for _ in range(40)]
    rows += [rows[0], row([FORM, *fresh(9)])]
    rows += [rows[-1]]  # as short besides the form as a label
    spans, _ = repeated(rows)
    assert [len(tokens) for tokens in spans] == [0] * 40 + [141, 0, 0]


def test_forms_in_every_answer_of_a_conversation():
    rows = [row([FORM, *fresh(70)], [OTHER, *fresh(70)], [FORM, *fresh(70)]) for _ in range(30)]
    assert not any(lengths(rows))
    (said,) = fresh(60)
    rows += [row([FORM, said], [OTHER, *fresh(70)]), row([FORM, *fresh(7)], [OTHER, said])]
    assert lengths(rows) == [0] * 31 + [60]


def test_a_form_of_one_source_is_rare_in_all():
    rows = [row([FORM, *fresh(70)]) for _ in range(12)] + [row(fresh(70)) for _ in range(400)]
    assert not any(lengths(rows, origins=[0] * 12 + [1] * 400))
    assert sum(lengths(rows)) == 11 * 60  # 12 of 412 rows are too few
    assert not any(lengths(rows, template_share=12 / 412))


@pytest.mark.parametrize(("count", "is_form"), [(2, False), (9, False), (10, True), (11, True)])
def test_few_rows_make_copies_and_not_a_form(count, is_form):
    rows = [row([FORM, *fresh(70)]) for _ in range(count)] + [row(fresh(70)) for _ in range(3)]
    assert lengths(rows)[1:count] == [0 if is_form else 60] * (count - 1)
    assert lengths(rows, template_rows=count)[1:count] == [0] * (count - 1)


def test_what_many_rows_have_in_common_and_is_short_is_not_a_form():
    few = FORM[: templates.LENGTH - 1]
    rows = [row([few, *fresh(30), few, *fresh(30)]) for _ in range(30)]
    spans, forms = repeated(rows)
    assert forms == [] and not any(map(len, spans))
    (said,) = fresh(25)
    rows += [row([said, few, said]), row([said, few, said])]
    assert lengths(rows)[-1] == 58  # and its end


@pytest.mark.parametrize("form", [1, 2, 3])
@pytest.mark.parametrize("scope", ["group", "record"])
def test_random_rows_with_forms_shorter_than_a_window(scope, form, monkeypatch):
    rng = np.random.default_rng([ord(scope[0]), form])
    monkeypatch.setattr(templates, "LENGTH", form)
    engines, told = ["hash", "suffix_array"], np.zeros(3, int)
    for number in range(300):
        how = {"scope": scope, "keep": str(rng.choice(["first", "none"]))}
        rows, groups, origins, options = random_case(rng, **how, length=int(rng.integers(2, 4)))
        rows = [with_form(rng, one) for one in rows]
        options = dataclasses.replace(options, template_share=0.6, engine=engines[number % 2])
        how = "mask", float(rng.choice([0.5, 0.8])), int(rng.integers(0, 3))
        dropped, found = run(rows, groups, origins, options, *how)
        expected, tokens, more = stated_policy(rows, groups, origins, options, *how)
        assert {*np.flatnonzero(dropped)} == expected and tokens_of(found) == tokens and not more
        bare = dataclasses.replace(options, template_share=0.0)
        told += [dropped.any(), len(found.rows) > 0, tokens != stated(rows, groups, origins, bare)]
    assert told.min() > 12


def with_form(rng, example):
    """The row with other tokens than the form, which half of the answers get somewhere."""
    tokens, kinds = example.tokens.tolist(), example.kinds.tolist()
    for k in reversed(range(len(kinds))):
        if kinds[k] == ANSWER and rng.random() < 0.25:
            tokens[k:k], kinds[k:k] = [7, 8, 9], [ANSWER] * 3
    return Example(np.array(tokens, np.int32), np.array(kinds, np.uint8))


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("scope", ["group", "record"])
def test_forms_beyond_one_machine(scope, monkeypatch):
    rng = np.random.default_rng(ord(scope[0]))
    told = np.zeros(3, int)
    for number in range(200):
        monkeypatch.setattr(templates, "LENGTH", int(rng.integers(1, 4)))
        how = {"scope": scope, "keep": str(rng.choice(["first", "none"]))}
        rows, groups, origins, options = random_case(rng, **how, length=int(rng.integers(2, 4)))
        given = Examples.from_list([with_form(rng, one) for one in rows]), groups, origins
        options = dataclasses.replace(options, template_share=0.6)
        how = "mask", float(rng.choice([0.5, 0.8])), int(rng.integers(0, 3))
        expected = policy(*given, options, *how)
        layout = Layout(int(rng.integers(5, 60)), int(rng.integers(1, 6)))
        plain_beam.SEED[0] = number
        found = beyond.policy(*given, options, *how, layout)
        assert lists_of(*found) == lists_of(*expected), (rows, groups, options, how, layout)
        told += [expected[0].any(), len(expected[1].rows) > 0, len(expected[1].templates) > 0]
    assert told.min() > 10


def asked(number, answer):
    return noise(2000 + number, 90), answer


def leaks(rows, held, **options):
    found = leakage.find(made(*rows), {"validation": made(*held)}, leakage.Options(**options))
    return [found.reason(row)[0] if found.codes[row] >= 0 else "" for row in range(len(rows))]


def test_a_form_and_a_label_give_no_answer_away():
    form, labels = letters(60, 99), ("yes", "no", "maybe")
    rows = [asked(i, f"{form} {labels[i % 3]}") for i in range(30)]
    held = [asked(100 + i, f"{form} {labels[i]}") for i in range(3)]
    assert leaks(rows, held) == leaks(rows, held, memory=1) == [""] * 30
    assert {*leaks(rows, held, template_rows=31)} == {"leak_answer"}


def test_a_long_form_makes_no_near_duplicates():
    form = letters(150, 99)
    rows = [(noise(i, 12), f"{form} {noise(i + 500, 9)}") for i in range(30)]
    held = [(noise(901, 12), f"{form} {noise(902, 9)}")]
    assert leaks(rows, held) == [""] * 30
    assert "leak_near" in leaks(rows, held, template_rows=31, window=0)


@pytest.mark.parametrize(("tokens", "code"), [(20, ""), (30, "leak_window")])
def test_what_stands_around_a_form_is_one_stretch(tokens, code):
    form, before, after = letters(60, 99), letters(tokens, 7), letters(tokens, 8)
    rows = [asked(i, f"{noise(i, 50)}.{form}.{noise(i + 500, 50)}") for i in range(30)]
    rows += [asked(50, f"{noise(51, 90)}.{before}.{form}.{after}.{noise(52, 90)}")]
    held = [asked(101, f"{noise(902, 200)},{before}.{form}.{after},{noise(904, 200)}")]
    assert leaks(rows, held, coverage=0) == [""] * 30 + [code]


def test_leaks_are_found_in_the_normal_form_of_the_options():
    rows = [(letters(30, i), noise(i + 50, 40)) for i in range(3)]
    held = [(rows[1][0].upper(), rows[1][1].upper()), (f"{rows[2][0][:9]}, {rows[2][0][9:]}!", "x")]
    none = {"coverage": 0, "jaccard": 0}
    assert leaks(rows, held, **none) == ["", "", ""]
    case = normal.Options(case=True)
    assert leaks(rows, held, form=case, **none) == ["", "leak_prompt", ""]
    options = build_options.Options(case=True, leakage="report", exact=False, near=0)
    found = build(*made(*rows), {"validation": made(*held[:1])}, options)
    assert {row: why.other for row, why in found.leaks.items()} == {1: "validation:0"}
