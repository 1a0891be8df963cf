import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import ANSWER, CONTEXT, END, PROMPT, SCAFFOLD, SYSTEM, Example
from sft.data.dedup import graph, ngrams

STOP = 9


def example(exchanges, system=(), context=()) -> Example:
    """What the chat format makes of (prompt, answer) pairs of token lists."""
    parts = [([2, 1], SCAFFOLD), (system, SYSTEM)]
    for index, (prompt, answer) in enumerate(exchanges):
        trained = index not in context
        parts += [(prompt, PROMPT), ([STOP, 1], SCAFFOLD)]
        parts += [(answer, ANSWER if trained else CONTEXT), ([STOP], END if trained else CONTEXT)]
        parts += [([3, 1], SCAFFOLD)] if index + 1 < len(exchanges) else []
    tokens = [token for text, _ in parts for token in text]
    kinds = [kind for text, kind in parts for _ in text]
    return Example(np.array(tokens, np.int32), np.array(kinds, np.uint8))


def said(exchanges, length) -> set:
    """The sets by their definition: (side, n-gram), none across turns, a short turn whole."""
    found = set()
    for side, turn in enumerate(itertools.chain(*exchanges)):
        turn = tuple(turn)
        windows = [turn[i : i + length] for i in range(max(len(turn) - length, 0) + 1)]
        found |= {(side % 2, window) for window in windows if window}
    return found


def similarity(left: set, right: set) -> float:
    return len(left & right) / len(left | right) if left | right else 1.0


def reader(rows, length, **given) -> ngrams.Reader:
    examples = Examples.from_list([example(row, **given) for row in rows])
    return ngrams.Reader(examples, length, np.array([STOP]), np.zeros(0, np.uint64))


def tokens(low=0):
    return st.lists(st.sampled_from([4, 5, 6, 70_000, 262_143]), min_size=low, max_size=6)


ROWS = st.lists(st.lists(st.tuples(tokens(), tokens(1)), max_size=3), max_size=5)


@given(ROWS, ROWS, st.integers(1, 6))
def test_shared_counts_are_those_of_the_sets(left, right, length):
    pairs = [*itertools.product(range(len(left)), range(len(right)))]
    a, b = np.array(pairs, np.int64).reshape(-1, 2).T
    both, either = ngrams.shared(reader(left, length), reader(right, length), a, b)
    for (i, j), common, union in zip(pairs, both, either, strict=True):
        one, other = said(left[i], length), said(right[j], length)
        for side in (0, 1):
            assert common[side] == sum(gram[0] == side for gram in one & other)
            assert union[side] == sum(gram[0] == side for gram in one | other)


@given(ROWS, st.integers(1, 6))
def test_only_what_is_said_counts(rows, length):
    rows = [row for row in rows if row]
    plain = reader(rows, length)
    everything = np.arange(len(rows))
    first = plain.read(everything)
    for other in ({"system": [4, 5, 4]}, {"context": [0]}, {"system": [6], "context": [0, 1, 2]}):
        again = reader(rows, length, **other).read(everything)
        assert np.array_equal(first.hashes, again.hashes)
        assert np.array_equal(first.rows, again.rows) and np.array_equal(first.sides, again.sides)


def test_ends_of_turns_are_known_from_any_trained_answer():
    rows = [[([4, 5], [6, 7])], [([4, 5], [6, 7])]]
    sets = [
        Examples.from_list([example(rows[0])]),
        Examples.from_list([example(rows[1], context=[0])]),
    ]
    left, right = ngrams.readers(sets, 2, 0)
    assert left.ends.tolist() == right.ends.tolist() == [STOP]
    both, either = ngrams.shared(left, right, np.array([0]), np.array([0]))
    assert both.tolist() == either.tolist() == [[1, 1]]


def test_turns_and_rows_without_headers_are_kept_apart():
    bare = [
        Example(
            np.array([4, 5, 6, 7], np.int32), np.array([PROMPT, PROMPT, ANSWER, ANSWER], np.uint8)
        ),
        Example(np.array([8, 9], np.int32), np.array([ANSWER, ANSWER], np.uint8)),
    ]
    found = ngrams.of(Examples.from_list(bare), 2, np.zeros(0, np.int32))
    assert found.rows.tolist() == [0, 0, 1] and found.sides.tolist() == [0, 1, 1]


@pytest.mark.parametrize("batch", [1, 7, 30, 2**20])
def test_batches_change_nothing(monkeypatch, batch):
    draw = np.random.default_rng(0)
    rows = [
        [(draw.integers(4, 7, draw.integers(9)).tolist(), draw.integers(4, 7, 4).tolist())]
        for _ in range(30)
    ]
    monkeypatch.setattr(ngrams, "_BATCH", batch)
    read = reader(rows, 3)
    parts = [*read.batches()]
    assert np.concatenate(parts).tolist() == [*range(30)] and (len(parts) == 1) == (batch == 2**20)
    left, right = np.divmod(np.arange(900), 30)
    both, either = ngrams.shared(read, read, left, right)
    expected = [
        similarity(said(rows[i], 3), said(rows[j], 3)) for i in range(30) for j in range(30)
    ]
    assert np.allclose(ngrams.jaccard(both.sum(1), either.sum(1)), expected)


@pytest.mark.parametrize("count", [99, 100])
def test_an_instruction_around_many_prompts_says_nothing(count):
    draw = np.random.default_rng(1)
    instruction = [*range(10, 40)]
    rows = [[(instruction + draw.integers(50, 999, 6).tolist(), [60, 61])] for _ in range(count)]
    rows += [[(draw.integers(50, 999, 6).tolist(), instruction)] for _ in range(150)]
    (read,) = ngrams.readers([Examples.from_list([example(row) for row in rows])], 5, 0)
    found = read.read(np.arange(len(rows)))
    of_user = np.bincount(found.rows[found.sides == 0], minlength=len(rows))
    left_out = 26 if count >= ngrams.TEMPLATE_ROWS else 0
    assert set(of_user[:count]) == {32 - left_out} and set(of_user[count:]) == {2}
    # Said by the model, it is an answer like any other.
    assert set(np.bincount(found.rows[found.sides == 1])[count:]) == {26}


@pytest.mark.parametrize(
    ("count", "others", "says_nothing"),
    [
        (9, 0, False),
        (10, 0, True),
        (30, 31, False),
        (30, 30, True),
        (99, 99, True),
        (99, 102, False),
    ],
)
def test_an_instruction_around_half_of_few_prompts_says_nothing(count, others, says_nothing):
    draw = np.random.default_rng(1)
    instruction = [*range(10, 40)]
    asked = [instruction + draw.integers(50, 999, 6).tolist() for _ in range(count)]
    asked += [draw.integers(1000, 9999, 36).tolist() for _ in range(others)]
    examples = Examples.from_list([example([(prompt, [60, 61])]) for prompt in asked])
    (read,) = ngrams.readers([examples], 5, 0)
    assert len(read.template) == 26 * says_nothing


def test_of_many_rows_a_sample_is_looked_at(monkeypatch):
    monkeypatch.setattr(ngrams, "_LOOKED_AT", 200)
    rows = [[([4, 5, 6], [7, index])] for index in range(10, 1000)]
    rows += [[([8, index], [7, 7])] for index in range(10, 1000)]
    examples = Examples.from_list([example(row) for row in rows])
    found = [ngrams.readers([examples], 3, seed)[0].template for seed in range(20)]
    sizes = [len(template) for template in found]
    assert set(sizes) == {0, 1} and 4 <= sum(sizes) <= 16  # half the rows have it: 100 of 200
    again = [ngrams.readers([examples], 3, seed)[0].template for seed in range(20)]
    assert [t.tolist() for t in found] == [t.tolist() for t in again]


BUCKETS = st.lists(st.sets(st.integers(0, 9), min_size=2, max_size=6), max_size=6)


@given(BUCKETS, st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=15))
def test_components_are_those_of_all_pairs(buckets, edges):
    edges = {(min(edge), max(edge)) for edge in edges}
    asked = []

    def is_edge(left, right):
        asked.extend(zip(left.tolist(), right.tolist(), strict=True))
        return np.array([pair in edges for pair in zip(left, right, strict=True)], bool)

    members = np.array([row for bucket in buckets for row in sorted(bucket)], np.int64)
    stop = np.cumsum([len(bucket) for bucket in buckets], dtype=np.int64)
    first = stop - [len(bucket) for bucket in buckets]
    found = graph.components(10, members, first.astype(np.int64), stop, is_edge)

    inside = {pair for bucket in buckets for pair in itertools.combinations(sorted(bucket), 2)}
    labels = [*range(10)]
    for _ in range(10):
        for i, j in edges & inside:
            labels[i] = labels[j] = min(labels[i], labels[j])
    assert found.tolist() == labels
    assert len(asked) == len(set(asked)) and set(asked) <= inside


def test_a_large_cluster_takes_few_comparisons():
    asked = []

    def is_edge(left, right):
        asked.append(len(left))
        return np.ones(len(left), bool)

    keys = np.zeros((5000, 4), np.uint64)
    assert not graph.components(5000, *graph.buckets(keys), is_edge).any()
    assert sum(asked) == 4999


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), max_size=9))
def test_buckets_hold_the_rows_of_equal_keys(keys):
    table = np.array(keys, np.uint64).reshape(-1, 2)
    members, first, stop = graph.buckets(table)
    found = [members[a:b].tolist() for a, b in zip(first, stop, strict=True)]
    expected = [
        [row for row in range(len(keys)) if keys[row][band] == key]
        for band in (0, 1)
        for key in range(4)
    ]
    assert found == [bucket for bucket in expected if len(bucket) > 1]
