import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.data import pipeline
from sft.data.chat import Example
from sft.errors import UserError

LENGTHS = st.lists(st.integers(1, 32), min_size=1, max_size=80)
BOS = 2


def example(length, first=10):
    """``length`` positions in a row; the second half is trained."""
    tokens = np.array([BOS, *range(first, first + length)], np.int32)
    return Example(tokens, np.arange(length + 1) > length // 2)


def examples(lengths):
    return [example(n, 10 + 100 * i) for i, n in enumerate(lengths)]


def plan(found, **changes):
    options = {"max_length": 32, "batch_size": 4, "epochs": 2, "seed": 0, "packed": True}
    return pipeline.plan_training(found, **options | changes)


def equal(a, b):
    assert jax.tree.all(jax.tree.map(np.array_equal, a, b))


def stack(shares):
    return jax.tree.map(lambda *x: np.concatenate(x), *shares)


@given(LENGTHS, st.integers(1, 70))
def test_pack_holds_every_example_once_and_never_exceeds(lengths, window):
    lengths = np.array(lengths)
    rows = pipeline.pack(lengths, 32, window)
    assert sorted(int(i) for row in rows for i in row) == list(range(len(lengths)))
    assert all(lengths[row].sum() <= 32 for row in rows)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)


@given(LENGTHS, st.integers(1, 8))
def test_pack_is_best_fit_over_the_open_rows(lengths, window):
    """Against a plain statement of the rule."""
    rows, free = [], []
    for index, length in enumerate(lengths):
        start = max(len(rows) - window, 0)
        fits = [r for r in range(start, len(rows)) if free[r] >= length]
        if fits:
            best = min(fits, key=lambda r: (free[r], r))
            rows[best].append(index)
            free[best] -= length
        else:
            rows.append([index])
            free.append(32 - length)
    assert [row.tolist() for row in pipeline.pack(np.array(lengths), 32, window)] == rows


def test_packing_leaves_little_padding():
    lengths = np.random.default_rng(0).integers(8, 200, 5000)
    rows = pipeline.pack(lengths, 512)
    assert lengths.sum() / (len(rows) * 512) > 0.97


@given(LENGTHS, st.booleans(), st.integers(0, 3))
def test_plan_has_every_example_once_an_epoch(lengths, packed, seed):
    found = plan(examples(lengths), packed=packed, seed=seed, epochs=3)
    starts = [0, *found.epoch_ends]
    for first, last in zip(starts, found.epoch_ends, strict=False):
        rows = found.rows[first * 4 : last * 4]
        assert sorted(int(i) for row in rows for i in row) == list(range(len(lengths)))
        assert packed or max(len(row) for row in rows) == 1
    assert len(found.rows) == found.epoch_ends[-1] * 4


def test_order_depends_on_seed_and_epoch_only():
    found = examples(np.random.default_rng(0).integers(1, 32, 60))
    first, again, other = plan(found), plan(found), plan(found, seed=1)
    assert [r.tolist() for r in first.rows] == [r.tolist() for r in again.rows]
    assert [r.tolist() for r in first.rows] != [r.tolist() for r in other.rows]
    unpacked = plan(found, packed=False)
    orders = np.concatenate(unpacked.rows).reshape(2, -1)
    assert not np.array_equal(*orders)
    wider = plan(found, packed=False, batch_size=2)
    assert np.array_equal(np.concatenate(wider.rows), np.concatenate(unpacked.rows))


def test_epoch_at():
    found = plan(examples([32] * 10))
    assert found.epoch_ends == [3, 6]
    assert [found.epoch_at(n) for n in (0, 3, 6)] == [0, 1, 2]
    assert found.epoch_at(4) == pytest.approx(1 + 1 / 3)


def test_over_long_is_an_error_and_a_full_row_is_not():
    plan(examples([32]))
    with pytest.raises(UserError, match=r"data\.max_length = 32: 2 of 3 .* longest has 40"):
        plan(examples([3, 33, 40]))


def test_targets_are_the_next_token_of_the_same_example():
    rows = [[example(3, 10), example(2, 20)], []]
    batch = pipeline.make_batch(rows, 8)
    zeros = [0] * 8
    assert batch.tokens_BxL.tolist() == [[BOS, 10, 11, BOS, 20, 0, 0, 0], zeros]
    assert batch.targets_BxL.tolist() == [[10, 11, 12, 20, 21, 0, 0, 0], zeros]
    assert batch.positions_BxL.tolist() == [[0, 1, 2, 0, 1, 0, 0, 0], zeros]
    assert batch.segments_BxL.tolist() == [[1, 1, 1, 2, 2, 0, 0, 0], zeros]
    # is_target of [BOS 10 11 12] is [0 0 1 1], of [BOS 20 21] it is [0 0 1].
    assert batch.weights_BxL.tolist() == [[0, 1, 1, 0, 1, 0, 0, 0], zeros]


@settings(max_examples=25, deadline=None)
@given(LENGTHS, st.booleans())
def test_batches_hold_every_trained_token(lengths, packed):
    found = examples(lengths)
    batches = list(pipeline.train_batches(plan(found, packed=packed), found))
    assert {x.shape for batch in batches for x in jax.tree.leaves(batch)} == {(4, 32)}
    trained = sum(int(e.is_target.sum()) for e in found)
    assert sum(batch.weights_BxL.sum() for batch in batches) == 2 * trained
    for batch in batches:
        assert not np.any(batch.targets_BxL == BOS)
        assert not np.any(batch.weights_BxL[batch.segments_BxL == 0])


@pytest.fixture(scope="module")
def many():
    found = examples(np.random.default_rng(1).integers(1, 32, 90))
    return plan(found), found, list(pipeline.train_batches(plan(found), found))


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_same_batches(many, processes):
    shape, found, whole = many
    shares = [
        list(pipeline.train_batches(shape, found, process=p, processes=processes))
        for p in range(processes)
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert all(part.tokens_BxL.shape == (4 // processes, 32) for part in parts)
        equal(batch, stack(parts))


@pytest.mark.parametrize("start", [1, 5, -1, None])
def test_start_goes_on_with_that_batch(many, start):
    shape, found, whole = many
    start = len(whole) if start is None else start % len(whole)
    rest = list(pipeline.train_batches(shape, found, start=start))
    assert len(rest) == len(whole) - start
    for a, b in zip(rest, whole[start:], strict=True):
        equal(a, b)


def test_reading_ahead_equals_direct_indexing(many):
    shape, found, whole = many
    for index, batch in enumerate(whole):
        rows = shape.rows[index * 4 : index * 4 + 4]
        equal(batch, pipeline.make_batch([[found[i] for i in row] for row in rows], 32))


def test_indivisible_batch():
    found = examples([3])
    with pytest.raises(UserError, match=r"train\.batch_size = 4 .* 3 hosts"):
        pipeline.train_batches(plan(found), found, processes=3)


@given(LENGTHS, st.sampled_from([4, 8]), st.sampled_from([1, 2, 4]))
def test_eval_has_every_example_once(lengths, batch_size, processes):
    found = examples(lengths)
    options = {"batch_size": batch_size, "max_length": 32, "bucket": 8, "processes": processes}
    shares = [list(pipeline.eval_batches(found, process=p, **options)) for p in range(processes)]
    batches = [stack(parts) for parts in zip(*shares, strict=True)]
    firsts = [int(b.targets_BxL[r, 0]) for b in batches for r in range(batch_size)]
    assert sorted(f for f in firsts if f) == [10 + 100 * i for i in range(len(lengths))]
    assert max(int(b.segments_BxL.max()) for b in batches) == 1
    assert all(b.tokens_BxL.shape[1] % 8 == 0 for b in batches)
    trained = sum(int(e.is_target.sum()) for e in found)
    assert sum(b.weights_BxL.sum() for b in batches) == trained


def test_eval_never_cuts():
    with pytest.raises(UserError, match=r"data\.eval_max_length = 16.* has 17"):
        list(pipeline.eval_batches(examples([17]), batch_size=2, max_length=16))
