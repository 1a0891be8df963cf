"""Real processes, joined as hosts are: each reads its share, and a run goes on with any number.

Four processes read every batch and, separately, stop after some and write their position down. Two
processes read every batch, and go on from that position. Compared with one process's reading.
"""

import itertools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from sft.data.batches import pipeline
from sft.data.batches.examples import Examples
from sft.data.chat.encoding import ANSWER, PROMPT, Example

TESTS = Path(__file__).parent
BATCH, STOP = 8, 7  # in the middle of the second epoch
FIELDS = ("tokens_BxL", "targets_BxL", "weights_BxL", "positions_BxL", "segments_BxL")

PROCESS = """
import json, pathlib, sys
import jax

port, rank, count, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
jax.distributed.initialize(f"localhost:{port}", num_processes=count, process_id=rank)
assert (jax.process_index(), jax.process_count()) == (rank, count)
import test_shards as shards

shards.read(pathlib.Path(folder), jax.process_index(), jax.process_count())
jax.distributed.shutdown()
"""


def make():
    """A plan of three epochs and its examples; the first token names the example."""
    rng = np.random.default_rng(0)
    examples = []
    for index in range(101):
        kinds = np.repeat([PROMPT, ANSWER], rng.integers(2, 16, 2)).astype(np.uint8)
        tokens = rng.integers(1, 200, len(kinds)).astype(np.int32)
        tokens[0] = 1000 + index
        examples.append(Example(tokens, kinds))
    flat = Examples.from_list(examples)
    origins = np.arange(len(examples)) % 2
    plan = pipeline.plan_training(
        flat.lengths, max_length=48, batch_size=BATCH, epochs=3, seed=7, packed=True,
        origins=origins, weights=np.ones(2),
    )  # fmt: skip
    return plan, flat


def stack(batches):
    """field → ``[batches, rows, L]``."""
    rows = [jax.tree.map(np.asarray, batch) for batch in batches]
    return {field: np.stack([getattr(batch, field) for batch in rows]) for field in FIELDS}


def read(folder, process, processes):
    """What one process of ``processes`` does, see the top."""
    plan, examples = make()
    options = {"process": process, "processes": processes}
    whole = pipeline.train_batches(plan, examples, **options)
    np.savez(folder / f"whole {processes} {process}.npz", **stack(whole))
    position = folder / f"position {process}.json"
    if processes == 4:
        batches = pipeline.train_batches(plan, examples, **options)
        part = [next(batches) for _ in range(STOP)]
        batches.close()  # what was read ahead is lost, as when a run is stopped
        position.write_text(json.dumps({"batches": len(part)}))
    else:
        start = json.loads(position.read_text())["batches"]
        part = pipeline.train_batches(plan, examples, start=start, **options)
    np.savez(folder / f"part {processes} {process}.npz", **stack(part))


def launch(count, folder):
    """Runs ``count`` processes to their end."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(TESTS)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, port, str(rank), str(count), str(folder)],
            env=environment,
            cwd=TESTS.parent,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        for process in running:
            _, errors = process.communicate(timeout=150)
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("shards")
    launch(4, found)
    launch(2, found)
    return found


@pytest.fixture(scope="module")
def single():
    plan, examples = make()
    return plan, stack(pipeline.train_batches(plan, examples))


def shares(folder, name, processes):
    return [dict(np.load(folder / f"{name} {processes} {p}.npz")) for p in range(processes)]


def joined(parts):
    """The global batches: shares side by side, in the order of the processes."""
    return {field: np.concatenate([part[field] for part in parts], axis=1) for field in FIELDS}


def names(part, batches=slice(None)):
    """The examples in a share, each by its first token."""
    first = (part["positions_BxL"] == 0) & (part["segments_BxL"] > 0)
    return (part["tokens_BxL"][batches][first[batches]] - 1000).tolist()


@pytest.mark.parametrize("processes", [2, 4])
def test_the_shards_of_an_epoch_are_the_set_each_example_once(folder, single, processes):
    plan, _ = single
    parts = shares(folder, "whole", processes)
    starts = [0, *plan.epoch_ends]
    for first, last in zip(starts, plan.epoch_ends, strict=False):
        read_by = [names(part, slice(first, last)) for part in parts]
        assert sorted(itertools.chain(*read_by)) == list(range(101))
        assert all(read_by)


@pytest.mark.parametrize("processes", [2, 4])
def test_the_shards_side_by_side_are_the_batches_of_one_process(folder, single, processes):
    _, whole = single
    parts = shares(folder, "whole", processes)
    assert all(part["tokens_BxL"].shape[1] == BATCH // processes for part in parts)
    for field, values in joined(parts).items():
        np.testing.assert_array_equal(values, whole[field], err_msg=field)


def test_stopped_with_four_and_continued_with_two_is_the_uninterrupted_order(folder, single):
    plan, whole = single
    before, after = (joined(shares(folder, "part", processes)) for processes in (4, 2))
    assert len(before["tokens_BxL"]) == STOP
    assert len(after["tokens_BxL"]) == plan.epoch_ends[-1] - STOP
    assert plan.epoch_ends[0] < STOP < plan.epoch_ends[1]
    for field in FIELDS:
        ours = np.concatenate([before[field], after[field]])
        np.testing.assert_array_equal(ours, whole[field], err_msg=field)
    assert sorted(names(before) + names(after)) == sorted(list(range(101)) * 3)
