import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.data.batches import pipeline
from sft.data.batches.examples import Examples
from sft.data.chat.encoding import ANSWER, CONTEXT, END, PROMPT, SCAFFOLD, SYSTEM, Example
from sft.errors import UserError

LENGTHS = st.lists(st.integers(1, 32), min_size=1, max_size=80)
BOS = 2


def example(length, first=10):
    """``length`` positions in a row; the second half is trained."""
    tokens = np.array([BOS, *range(first, first + length)], np.int32)
    trained = np.arange(length + 1) > length // 2
    return Example(tokens, np.where(trained, ANSWER, PROMPT).astype(np.uint8))


def examples(lengths):
    return [example(n, 10 + 100 * i) for i, n in enumerate(lengths)]


def plan(found, **changes):
    options: dict[str, Any] = {
        "max_length": 32,
        "batch_size": 4,
        "epochs": 2,
        "seed": 0,
        "packed": True,
    }
    return pipeline.plan_training(Examples.from_list(found).lengths, **options | changes)


def equal(a, b):
    assert jax.tree.all(jax.tree.map(np.array_equal, a, b))


def stack(shares):
    return jax.tree.map(lambda *x: np.concatenate(x), *shares)


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


def test_prompts_weigh_what_is_asked_and_context_nothing():
    ids, kinds = np.arange(6, dtype=np.int32), [SCAFFOLD, PROMPT, CONTEXT, SYSTEM, ANSWER, END]
    found = [Example(ids, np.array(kinds, np.uint8))]
    for weight in (0.0, 0.5, 1.0):
        expected = [weight, 0, weight, 1, 1, 0]  # of tokens 1 to 5, and padding
        (batch,) = pipeline.train_batches(
            plan(found, max_length=6, batch_size=1, epochs=1), found, prompt_weight=weight
        )
        assert batch.weights_BxL.tolist() == [expected]


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


def test_flat_examples_make_the_same_batches(many):
    shape, found, whole = many
    flat = list(pipeline.train_batches(shape, Examples.from_list(found)))
    for a, b in zip(flat, whole, strict=True):
        equal(a, b)
    kept = [2, 2, 0]
    options: dict[str, Any] = {"batch_size": 4, "max_length": 32, "bucket": 8}
    chosen = pipeline.eval_batches(Examples.from_list(found).select(kept), **options)
    for a, b in zip(
        chosen, pipeline.eval_batches([found[i] for i in kept], **options), strict=True
    ):
        equal(a, b)


class Watched(list):
    """Examples that a worker can look at, but has no device for; one of them cannot be read."""

    bad = -1

    def __getitem__(self, index):
        from jax._src import xla_bridge

        if xla_bridge.backends_are_initialized():
            raise AssertionError("a worker took a device")
        if index == self.bad:
            raise UserError(f"example {index}: damaged")
        return super().__getitem__(index)


def test_workers_read_the_same_batches_and_end(many):
    """In a worker's share of one process in two, from the middle, with an iterator left early."""
    shape, found, whole = many
    options = {"start": 3, "process": 1, "processes": 2, "workers": 2}
    batches = pipeline.train_batches(shape, Watched(found), **options)
    for batch in whole[3:8]:
        equal(next(batches), jax.tree.map(lambda x: x[2:], batch))
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []


def test_an_error_in_a_worker_is_raised_here(many):
    shape, found, whole = many
    damaged = Watched(found)
    damaged.bad = shape.examples_of(len(whole) - 1)[0]
    batches = pipeline.train_batches(shape, damaged, start=len(whole) - 2, workers=8)
    equal(next(batches), whole[-2])
    with pytest.raises(UserError) as error:
        next(batches)
    assert str(error.value) == f"example {damaged.bad}: damaged"
    assert multiprocessing.active_children() == []


ORPHANS = """
import multiprocessing, os, signal, sys
sys.path.insert(0, {tests!r})
import test_pipeline

if __name__ == "__main__":
    found = test_pipeline.examples([3] * 90)
    batches = test_pipeline.pipeline.train_batches(test_pipeline.plan(found), found, workers=1)
    next(batches)
    worker = multiprocessing.active_children()[0].pid
    os.kill(worker, signal.SIGINT)  # as Ctrl-C does to the whole group
    next(batches)
    print(worker, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_outlive_a_signal_but_not_the_process_that_started_them(tmp_path):
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS.format(tests=str(Path(__file__).parent)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    worker = Path("/proc", done.stdout.strip())
    end = time.monotonic() + 20
    while worker.exists() and "State:\tZ" not in (worker / "status").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)


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
