import itertools

import numpy as np
import pytest
from substring_rules import (
    form_windows,
    plain_classes,
    random_case,
    stated,
    tokens_of,
    window_classes,
)
from test_dedup_substring import row

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import ANSWER, CONTEXT, Example
from sft.data.dedup import engines, hash_windows
from sft.data.dedup.substring import ACTIONS, Options, policy
from sft.errors import UserError

SCOPES_KEEPS = [*itertools.product(("group", "record"), ("first", "none"))]


def run(rows, groups, origins, options, *how):
    return policy(Examples.from_list(rows), groups, origins, options, *how)


def stated_policy(rows, groups, origins, options, action, drop_share, min_trained):
    """(dropped rows, repeated tokens of the others, the rows that a third search would drop)."""
    everything = np.ones(len(rows), bool)
    forms = form_windows(rows, origins, options, everything)

    def to_drop(repeated):
        for i, example in enumerate(rows):
            trained, gone = sum(example.is_target), sum(j == i for j, _ in repeated)
            mostly = gone >= drop_share * trained or trained - gone < max(1, min_trained)
            if gone and (action == "drop" or (action != "report" and mostly)):
                yield i

    first = stated(rows, groups, origins, options, everything, forms)
    dropped = {*to_drop(first)}
    kept = np.array([i not in dropped for i in range(len(rows))], bool)
    second = {token for token in first if token[0] not in dropped}
    if options.keep == "first":
        second = stated(rows, groups, origins, options, kept, forms)
    return dropped, second, {*to_drop(second)} - dropped


def masked(rows, dropped, repeated):
    """The rows that are kept, with their repeated tokens made context."""
    for i, example in enumerate(rows):
        kinds = example.kinds.copy()
        kinds[[k for j, k in repeated if j == i]] = CONTEXT
        if not dropped[i]:
            yield Example(example.tokens, kinds)


@pytest.fixture
def plain(monkeypatch):
    """A stand-in for the engines, which take their time to start."""
    monkeypatch.setattr(engines, "classes", plain_classes)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(("scope", "keep"), SCOPES_KEEPS)
def test_random_rows_against_the_rules(scope, keep, action):
    rng = np.random.default_rng([ord(scope[0]), ord(keep[0]), ord(action[0])])
    drops = spans = 0
    for _ in range(600):
        rows, groups, origins, options = random_case(rng, scope=scope, keep=keep)
        how = action, float(rng.choice([0.5, 0.8, 1.0, 2.0])), int(rng.integers(0, 4))
        dropped, found = run(rows, groups, origins, options, *how)
        expected, repeated, more = stated_policy(rows, groups, origins, options, *how)
        assert {*np.flatnonzero(dropped)} == expected, (rows, groups, options, how)
        assert tokens_of(found) == repeated, (rows, groups, options, how)
        assert not more
        drops += dropped.any()
        spans += len(repeated) > 0
    assert drops > 60 if action != "report" else drops == 0
    assert spans > 60 if action != "drop" else spans == 0


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(("scope", "keep"), SCOPES_KEEPS)
def test_a_second_run_changes_nothing(scope, keep):
    rng = np.random.default_rng(1)
    changed = 0
    for _ in range(1200):
        rows, groups, origins, options = random_case(rng, scope=scope, keep=keep, forms=False)
        dropped, found = run(rows, groups, origins, options)
        left = [*masked(rows, dropped, tokens_of(found))]
        again, more = run(left, groups[~dropped], origins[~dropped], options)
        assert not again.any() and len(more.rows) == 0, (rows, groups, options)
        changed += dropped.any() or len(found.rows) > 0
    assert changed > 300


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(("scope", "keep"), SCOPES_KEEPS)
def test_two_searches_are_enough(scope, keep):
    rng = np.random.default_rng(2)
    dropping = 0
    for _ in range(1200):
        rows, groups, origins, options = random_case(rng, scope=scope, keep=keep, forms=False)
        dropped, found = run(rows, groups, origins, options, "mask", 0.6, 2)
        kept = np.flatnonzero(~dropped)
        left = [rows[i] for i in kept]
        again, once_more = run(left, groups[kept], origins[kept], options, "mask", 0.6, 2)
        assert not again.any()
        same = {(int(kept[i]), k) for i, k in tokens_of(once_more)}
        # Nothing makes up for a copy that went with its row when none is to stay.
        assert same == tokens_of(found) if keep == "first" else same <= tokens_of(found)
        dropping += dropped.any()
    assert dropping > 200


def leading_to_trained(tokens, classes, groups, options):
    """Those of the repeated ``tokens`` from which equal windows of lower rank lead to others."""

    def rank(i, k):
        return groups[i] if options.scope == "group" else (i, k)

    found = set()
    text_at = {place: text for text, places in classes.items() for place in places}
    for i, k in sorted(tokens, key=lambda token: (rank(*token), token)):
        for offset in range(k - options.length + 1, k + 1):
            for j, start in classes.get(text_at.get((i, offset)), []):
                copy = (j, start + k - offset)
                if rank(j, start) < rank(i, offset) and (copy not in tokens or copy in found):
                    found.add((i, k))
    return found


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("scope", ["group", "record"])
def test_a_repeated_token_leads_to_a_trained_one_and_trained_windows_are_not_equal(scope):
    rng = np.random.default_rng(3)
    led = 0
    for _ in range(1200):
        rows, groups, origins, options = random_case(
            rng, scope=scope, forms=False, whole_turns=False, max_copies=1
        )
        dropped, found = run(rows, groups, origins, options)
        found_in = window_classes(rows, options.length, ~dropped)
        classes = {w: [(i, k[0]) for i, _, k in places] for w, places in found_in.items()}
        repeated = tokens_of(found)
        answers = {(i, k) for i, k in repeated if rows[i].kinds[k] == ANSWER}
        assert leading_to_trained(answers, classes, groups, options) == answers
        led += len(answers) > 0
        for places in classes.values():
            windows_of = {(i, o): {(i, o + k) for k in range(options.length)} for i, o in places}
            trained = [place for place, tokens in windows_of.items() if not tokens & repeated]
            for (i, a), (j, b) in itertools.combinations(trained, 2):
                overlap = i == j and abs(b - a) < options.length
                assert groups[i] == groups[j] if scope == "group" else overlap
    assert led > 50


def test_results_do_not_depend_on_the_engine_or_its_memory():
    rng = np.random.default_rng(4)
    for _ in range(300):
        rows, groups, origins, options = random_case(
            rng, scope=str(rng.choice(["group", "record"]))
        )
        results = []
        for engine, memory in (("suffix_array", 1), ("hash", 2**30), ("hash", 0)):
            memory = memory or hash_windows.least_memory(options.length)
            engine_options = {"engine": engine, "memory": memory}
            given = Options(**{**vars(options), **engine_options})
            dropped, found = run(rows, groups, origins, given)
            results.append([array.tolist() for array in (dropped, *spans(found))])
            results[-1].append(found.templates)
        assert results[0] == results[1] == results[2]


def spans(found):
    return found.rows, found.starts, found.stops, found.owners


def lists(rows, groups, action="mask", drop_share=0.8, min_trained=1, **options):
    """(dropped rows, spans) with windows of three tokens."""
    origins = np.zeros(len(rows), np.int64)
    options = Options(**{"length": 3, **options})
    dropped, found = run(rows, np.array(groups), origins, options, action, drop_share, min_trained)
    return np.flatnonzero(dropped).tolist(), [
        *zip(*map(np.ndarray.tolist, spans(found)), strict=True)
    ]


def test_a_copy_is_trained_again_when_the_row_with_the_first_is_dropped():
    rows = [row("abcd"), row("abcd" + "efgh"), row("efghuvwxyz1234")]
    assert lists(rows, [0, 1, 2], drop_share=0.4) == ([1], [])
    assert lists(rows, [0, 1, 2], drop_share=0.9) == ([], [(1, 1, 5, 0), (2, 1, 5, 1)])


def test_every_copy_goes_though_the_row_with_the_other_is_dropped():
    rows = [row("abcd"), row("abcdefghijklmn")]
    assert lists(rows, [0, 1], keep="none") == ([0], [(1, 1, 5, -1)])


def test_a_short_answer_is_not_dropped_for_being_short():
    rows = [row("a"), row("b"), row("abcxyz"), row("abcuvw")]
    assert lists(rows, range(4), min_trained=4)[0] == []
    assert lists(rows, range(4), min_trained=5)[0] == [3]


def test_a_row_with_nothing_left_is_always_dropped():
    assert lists([row("abc"), row("abc")], [0, 1], drop_share=9.0, min_trained=0)[0] == [1]


def test_drop_and_report():
    rows = [row("abcuvw"), row("abcxyz12345"), row("678")]
    assert lists(rows, range(3), "drop") == ([1], [])
    assert lists(rows, range(3), "report", drop_share=0.0) == ([], [(1, 1, 4, 0)])


def test_forms_stay_those_of_all_rows_when_some_are_dropped():
    """Of eight rows with "abc", two go as copies: the others keep their form."""
    rows = [row("abcuvw")] * 3 + [row(f"{i}abc") for i in "12345"]
    options = {"template_share": 1.0, "template_rows": 8}
    assert lists(rows, range(8), **options) == ([1, 2], [])
    assert lists(rows[1:], range(7), **options)[1] == [(i, 2, 5, 0) for i in range(2, 7)]


def test_an_unknown_action():
    with pytest.raises(UserError, match=r"config\.data\.dedup\.action = 'hide': expected one of m"):
        lists([row("abc")], [0], "hide")
