"""The order of training, without a token: packing, epochs, sources, batches."""

import itertools
import pickle
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.data.batches import packing
from sft.errors import UserError

LENGTHS = st.lists(st.integers(1, 32), min_size=1, max_size=80)


def plan(lengths, **changes):
    """Of examples with so many positions, which have one token more."""
    options: dict[str, Any] = {
        "max_length": 32,
        "batch_size": 4,
        "epochs": 2,
        "seed": 0,
        "packed": True,
    }
    return packing.plan_training(np.array(lengths) + 1, **options | changes)


def epochs(found):
    """Example indices of each epoch, in order."""
    ends = [0, *(end * found.batch_size for end in found.epoch_ends)]
    return [np.concatenate(found.rows[first:last]) for first, last in itertools.pairwise(ends)]


@given(LENGTHS, st.integers(1, 70))
def test_pack_never_exceeds_and_numbers_rows_in_order_of_opening(lengths, window):
    row_of = packing.pack(np.array(lengths), 32, window)
    assert np.all(np.bincount(row_of, weights=lengths) <= 32)
    newest = np.maximum.accumulate(row_of)
    assert newest[0] == 0 and set(np.diff(newest)) <= {0, 1}
    assert np.all(newest - row_of < window)


@given(LENGTHS, st.integers(1, 8))
def test_pack_is_best_fit_over_the_open_rows(lengths, window):
    """Against a plain statement of the rule."""
    expected, free = [], []
    for length in lengths:
        start = max(len(free) - window, 0)
        fits = [r for r in range(start, len(free)) if free[r] >= length]
        row = min(fits, key=lambda r: (free[r], r)) if fits else len(free)
        free += [] if fits else [32]
        free[row] -= length
        expected.append(row)
    assert packing.pack(np.array(lengths), 32, window).tolist() == expected


def test_packing_a_large_set_is_quick_and_leaves_little_padding():
    lengths = np.random.default_rng(0).integers(8, 400, 200_000)
    start = time.process_time()
    found = plan(lengths, max_length=512, epochs=1, batch_size=16)
    assert time.process_time() - start < 3  # 0.2 s; a search through every open row takes 60
    assert lengths.sum() / (len(found.rows) * 512) > 0.97
    assert len(pickle.dumps(found)) < 16 * len(lengths) + 1000


@given(LENGTHS, st.booleans(), st.integers(0, 3))
def test_plan_has_every_example_once_an_epoch(lengths, packed, seed):
    found = plan(lengths, packed=packed, seed=seed, epochs=3)
    for epoch in epochs(found):
        assert sorted(epoch.tolist()) == list(range(len(lengths)))
    assert packed or max(map(len, found.rows)) == 1
    assert all(np.array(lengths)[row].sum() <= 32 for row in found.rows)
    assert len(found.rows) == found.epoch_ends[-1] * 4
    for batch in range(found.epoch_ends[-1]):
        rows = found.rows[batch * 4 : batch * 4 + 4]
        assert found.examples_of(batch) == sorted(i for row in rows for i in row.tolist())
        sizes = [len(row) for row in rows]
        assert sizes[0] and sizes == sorted(sizes, key=lambda n: n == 0)  # empty ones are last


def test_batches_of_an_epoch_are_filled_evenly():
    found = plan([32] * 9, epochs=1)
    assert [len(found.examples_of(batch)) for batch in range(3)] == [3, 3, 3]


def test_order_depends_on_seed_and_epoch_only():
    lengths = np.random.default_rng(0).integers(1, 32, 60)
    first, again, other = plan(lengths), plan(lengths), plan(lengths, seed=1)
    assert [r.tolist() for r in first.rows] == [r.tolist() for r in again.rows]
    assert [r.tolist() for r in first.rows] != [r.tolist() for r in other.rows]
    unpacked = epochs(plan(lengths, packed=False))
    assert not np.array_equal(*unpacked)
    wider = epochs(plan(lengths, packed=False, batch_size=2))
    assert np.array_equal(wider, unpacked)


def test_rows_are_a_sequence():
    rows = packing.Rows(np.array([5, 3, 4]), np.array([0, 2, 2, 3]))
    assert [row.tolist() for row in rows] == [[5, 3], [], [4]]
    assert rows[-1].tolist() == [4] and [r.tolist() for r in rows[1:]] == [[], [4]]
    with pytest.raises(IndexError):
        rows[3]


def test_epoch_at():
    found = plan([32] * 10)
    assert found.epoch_ends == [3, 6]
    assert [found.epoch_at(n) for n in (0, 3, 6)] == [0, 1, 2]
    assert found.epoch_at(4) == pytest.approx(1 + 1 / 3)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.lists(st.sampled_from([0.5, 0.7, 1.0, 1.5, 2.0, 3.2]), min_size=3, max_size=3),
    st.integers(0, 3),
)
def test_sources_have_their_weight_in_every_epoch(counts, weights, seed):
    """And over the epochs no example of a source is seen much more often than another."""
    weights = [max(w, 1.0) if n == 1 else w for w, n in zip(weights, counts, strict=False)]
    origins = np.repeat(np.arange(len(counts)), counts)
    origins = np.random.default_rng(seed).permutation(origins)
    found = plan(
        np.ones_like(origins), epochs=5, seed=seed, origins=origins, weights=np.array(weights)
    )
    seen = np.zeros(len(origins), int)
    for epoch in epochs(found):
        sizes = np.bincount(origins[epoch], minlength=len(counts))
        wanted = [round(w * n) for w, n in zip(weights, counts, strict=True)]
        assert sizes.tolist() == wanted
        seen += np.bincount(epoch, minlength=len(origins))
        for source in range(len(counts)):
            assert np.ptp(seen[origins == source]) <= 1


def test_weight_one_everywhere_is_the_order_without_weights():
    lengths = np.random.default_rng(0).integers(1, 32, 60)
    origins = np.arange(60) % 3
    weighted = plan(lengths, origins=origins, weights=np.ones(3))
    assert [r.tolist() for r in weighted.rows] == [r.tolist() for r in plan(lengths).rows]


def test_half_a_source_is_another_half_in_the_next_epoch():
    found = plan([1] * 40, origins=np.zeros(40, int), weights=np.array([0.5]))
    first, second = epochs(found)
    assert sorted([*first, *second]) == list(range(40))
    assert np.abs(np.diff(first)).max() > 1  # drawn, not cut in file order


def test_what_cannot_be_planned():
    plan([32])
    with pytest.raises(UserError, match=r"data\.max_length = 32: 2 of 3 .* longest has 40"):
        plan([3, 33, 40])
    with pytest.raises(UserError, match=r"data\.train: no example"):
        plan([])
    with pytest.raises(UserError, match=r"weight 0\.1 of source 2 with 3 training rows"):
        plan([1] * 6, origins=np.repeat([0, 1], 3), weights=np.array([1.0, 0.1]))
