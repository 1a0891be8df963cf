import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_dedup_ngrams import example, said, similarity

from sft.data.batches.examples import Examples
from sft.data.dedup import near, ngrams
from sft.errors import UserError

CERTAIN = {"bands": 64, "rows": 2}  # misses a pair of 0.8 with probability 1e-28


def examples_of(rows) -> Examples:
    return Examples.from_list([example(row) for row in rows])


def sides(row, length):
    grams = said(row, length)
    return [{gram for gram in grams if gram[0] == side} for side in (0, 1)]


def clusters(rows, length, threshold, together=False) -> list[int]:
    """By definition: components of all pairs whose sets of both sides are alike."""
    sets = [[said(row, length)] if together else sides(row, length) for row in rows]
    labels = [*range(len(rows))]
    for i, j in itertools.combinations(range(len(rows)), 2):
        if all(similarity(a, b) >= threshold for a, b in zip(sets[i], sets[j], strict=True)):
            low, high = sorted((labels[i], labels[j]))
            labels = [low if label == high else label for label in labels]
    return labels


def pairs(left, right, length, threshold) -> dict[tuple[int, int], float]:
    found = {}
    theirs = [said(row, length) for row in right]
    for i, row in enumerate(left):
        ours = said(row, length)
        for j, other in enumerate(theirs):
            if (alike := similarity(ours, other)) >= threshold:
                found[i, j] = alike
    return found


TURN = st.sampled_from([[4], [4, 5], [4, 5, 6, 7, 8], [4, 5, 6, 7, 7], [5, 4], [6] * 7, [4, 5] * 4])
ROWS = st.lists(st.lists(st.tuples(TURN, TURN), min_size=1, max_size=2), max_size=8)


@settings(deadline=None)
@given(ROWS, st.integers(1, 4), st.sampled_from([0.3, 0.5, 0.8, 1.0]), st.booleans())
def test_clusters_are_those_of_all_pairs(rows, length, threshold, together):
    options = near.Options(length, bands=200, rows=2, jaccard=threshold)
    found = near.find(examples_of(rows), options, together)
    expected = clusters(rows, length, threshold, together)
    assert found.dtype == np.int64 and found.tolist() == expected


@settings(deadline=None)
@given(ROWS, ROWS, st.integers(1, 4), st.sampled_from([0.5, 0.8, 1.0]))
def test_pairs_between_sets_are_all_there_are(left, right, length, threshold):
    options = near.Options(length, bands=200, rows=2, jaccard=threshold)
    a, b, alike = near.pairs_between(examples_of(left), examples_of(right), options)
    assert (a.dtype, b.dtype, alike.dtype) == (np.int64, np.int64, np.float64)
    found = [*zip(a.tolist(), b.tolist(), strict=True)]
    expected = pairs(left, right, length, threshold)
    assert found == sorted(expected)
    assert np.allclose(alike, [expected[pair] for pair in found])


def corpus(draw, count=150, low=60, high=200):
    """Rows, and after each a copy in which some tokens are others."""
    rows = []
    for _ in range(count):
        row = [(draw.integers(10, 3000, draw.integers(low, high)).tolist() for _ in range(2))]
        row = [tuple(turns) for turns in row]
        rows += [row, [tuple(changed(draw, turn) for turn in row[0])]]
    return rows


def changed(draw, turn):
    turn = np.array(turn)
    places = draw.choice(len(turn), draw.integers(0, 1 + len(turn) // 25), replace=False)
    turn[places] = draw.integers(3000, 4000, len(places))
    return turn.tolist()


def chance(alike, options):
    return 1 - (1 - alike**options.rows) ** options.bands


def test_as_many_pairs_are_found_as_the_formula_says():
    left, right = corpus(np.random.default_rng(2), 250)[::2], []
    draw = np.random.default_rng(3)
    right = [[tuple(changed(draw, turn) for turn in row[0])] for row in left]
    options = near.Options(bands=9, rows=13, jaccard=0.6)
    a, b, _ = near.pairs_between(examples_of(left), examples_of(right), options)
    expected = pairs(left, right, 5, 0.6)
    found = {*zip(a.tolist(), b.tolist(), strict=True)}
    assert found <= expected.keys() and all(i == j for i, j in expected)
    p = np.array([chance(alike, options) for alike in expected.values()])
    spread = np.sqrt((p * (1 - p)).sum())
    assert abs(len(found) - p.sum()) < 4 * spread and spread > 4


def test_the_usual_options_find_nearly_all():
    rows = corpus(np.random.default_rng(4), 200)
    found, expected = near.find(examples_of(rows)), clusters(rows, 5, 0.8)
    wanted = [row for row, label in enumerate(expected) if row != label]
    assert len(wanted) > 60
    assert all(found[row] in (row, expected[row]) for row in range(len(rows)))
    assert sum(found[row] == expected[row] for row in wanted) >= 0.95 * len(wanted)


def test_datasketch_finds_the_same():
    from datasketch import MinHash, MinHashLSH

    rows = corpus(np.random.default_rng(5), 100)
    options = near.Options(bands=32, rows=4, jaccard=0.7)
    index = MinHashLSH(num_perm=128, params=(options.bands, options.rows))
    hashes = []
    for number, row in enumerate(rows):
        hashes.append(MinHash(num_perm=128))
        hashes[-1].update_batch([repr(gram).encode() for gram in said(row, 5)])
        index.insert(number, hashes[-1])
    expected = pairs(rows, rows, 5, 0.7)
    theirs = {(i, j) for i, minhash in enumerate(hashes) for j in index.query(minhash)}
    a, b, _ = near.pairs_between(examples_of(rows), examples_of(rows), options)
    assert {*zip(a.tolist(), b.tolist(), strict=True)} == theirs & expected.keys()
    assert len(theirs & expected.keys()) > len(rows) + 100


def test_the_order_of_the_rows_decides_only_the_names():
    rows = corpus(np.random.default_rng(6), 40)
    order = np.random.default_rng(7).permutation(len(rows))
    options = near.Options(**CERTAIN)
    here = near.find(examples_of(rows), options)
    there = near.find(examples_of([rows[i] for i in order]), options)
    assert len({*here.tolist()}) < len(rows)
    same = here[order][:, None] == here[order][None]
    assert np.array_equal(same, there[:, None] == there[None])
    assert all(there[label] == label <= row for row, label in enumerate(there))
    assert np.array_equal(here, near.find(examples_of(rows), options))


@pytest.mark.parametrize("batch", [1, 500])
def test_batches_change_nothing(monkeypatch, batch):
    rows = examples_of(corpus(np.random.default_rng(8), 30))
    whole = near.find(rows), near.pairs_between(rows[:20], rows)
    monkeypatch.setattr(ngrams, "_BATCH", batch)
    monkeypatch.setattr(near, "_ROWS_AT_ONCE", 3)
    assert np.array_equal(near.find(rows), whole[0]) and len({*whole[0].tolist()}) < len(rows)
    for found, expected in zip(near.pairs_between(rows[:20], rows), whole[1], strict=True):
        assert np.array_equal(found, expected)


LONG = [*range(100, 300)]


@pytest.mark.parametrize(
    ("left", "right", "is_near", "is_together"),
    [
        ((LONG, [7]), (LONG, [8]), False, True),  # another answer to the same prompt
        (([7], LONG), ([8], LONG), False, True),  # the same answer to another prompt
        ((LONG, [7]), ([*LONG[:-1], 7], [7]), True, True),
        ((LONG, [7]), ([*LONG[:-1], 7], [7, 7]), False, True),  # short: alike when equal
        ((LONG[:9], LONG), (LONG, LONG[:9]), False, False),  # the other way round
    ],
)
def test_within_a_set_both_sides_must_be_alike(left, right, is_near, is_together):
    rows = examples_of([[left], [right]])
    assert near.find(rows, near.Options(**CERTAIN)).tolist() == [0, 1 - is_near]
    together = near.find(rows, near.Options(**CERTAIN), together=True)
    assert together.tolist() == [0, 1 - is_together]


def test_between_sets_all_of_it_counts_together():
    left, right = examples_of([[(LONG, [7])], [([7], LONG)]]), examples_of([[(LONG, [8])]])
    a, b, alike = near.pairs_between(left, right, near.Options(**CERTAIN))
    assert (a.tolist(), b.tolist()) == ([0], [0]) and alike[0] == pytest.approx(196 / 198)


def test_a_common_instruction_does_not_make_rows_alike():
    draw = np.random.default_rng(9)
    rows = [[(LONG + draw.integers(300, 999, 8).tolist(), [5 + i % 3])] for i in range(120)]
    assert near.find(examples_of(rows)).tolist() == [*range(120)]
    assert near.find(examples_of(rows[:60])).tolist() == [*range(60)]
    few = near.find(examples_of(rows[:9]), near.Options(**CERTAIN))
    assert len({*few.tolist()}) == 3  # of a few rows, it may be what they are about


def test_rows_that_repeat_more_often_than_an_instruction_are_one_cluster():
    draw = np.random.default_rng(10)
    rows = [[(LONG, changed(draw, [*range(500, 900)]))] for _ in range(300)]
    assert not near.find(examples_of(rows), near.Options(jaccard=0.5, **CERTAIN)).any()


def test_no_rows_and_one():
    none, one = examples_of([]), examples_of([[([4], [5])]])
    assert near.find(none).shape == (0,) and near.find(one).tolist() == [0]
    for left, right in ((none, one), (one, none), (none, none)):
        assert [len(part) for part in near.pairs_between(left, right)] == [0, 0, 0]
    assert [part.tolist() for part in near.pairs_between(one, one)] == [[0], [0], [1.0]]


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"ngram": 0}, "near-duplicates: ngram = 0: expected 1 or more."),
        ({"rows": 1}, "near-duplicates: rows = 1: expected 2 or more."),
        ({"bands": 0}, "near-duplicates: bands = 0: expected 1 or more."),
        ({"jaccard": 0}, "near-duplicates: jaccard = 0: expected above 0 and at most 1."),
        ({"jaccard": 80}, "near-duplicates: jaccard = 80: expected above 0 and at most 1."),
        ({"jaccard": float("nan")}, "near-duplicates: jaccard = nan: expected above 0"),
    ],
)
def test_options_out_of_range(given_, message):
    with pytest.raises(UserError) as error:
        near.Options(**given_)
    assert str(error.value).startswith(message)
