"""Training on several hosts, as real processes through the real command line.

They are compared with one process to the tolerance that devices are (tests/test_steps.py), not bit
for bit: the sums over hosts are taken in the order of another collective.
"""

import json
import re
import shutil
import signal

import hosts_run
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny_run
from test_loop import EPOCH_ENDS, TOTAL, lines

shared, registered = tiny_run.shared, tiny_run.registered


def check_losses(project, run):
    """The rows of ``metrics.jsonl`` against those of one process."""
    ours, theirs = project.rows(run), project.rows("done")
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"split"}:
            loose = 1e-4 if name == "grad_norm" else 1e-5
            assert one[name] == pytest.approx(other[name], rel=loose), (one, other)


def stop_one(project, run, folder, number=signal.SIGTERM, host=1, count=2):
    """Sends a signal to one host at work; returns the step after which all stopped."""
    with hosts_run.started(
        project, "train", run, "--json", folder=folder, count=count, SLOW_BATCHES="1"
    ) as hosts:
        hosts.wait_until(lambda: lines(run / "metrics.jsonl") >= 4)
        hosts.processes[host].send_signal(number)
        assert hosts.codes() == [42] * count, hosts.errors()
    assert not any("Traceback" in text for text in hosts.errors())
    assert hosts.output()[0].count("{") == 0
    steps = [int(re.search(r"at step (\d+) of", text)[1]) for text in hosts.errors()]
    assert len(set(steps)) == 1 and 0 < steps[0] < TOTAL
    assert number.name in hosts.errors()[host]
    assert [int(p.name) for p in (run / "checkpoints").iterdir()][-1:] == steps[:1]
    assert [path.name for path in run.glob("*lock*")] == []
    return steps[0]


@pytest.mark.timeout(3600)  # a busy machine is not a failing test
def test_two_hosts_stop_at_one_step_and_go_on_to_the_losses_of_one(shared, tmp_path):
    run = tmp_path / "run"
    stopped = stop_one(shared, run, tmp_path / "stopped")
    before = shared.rows(run)
    assert max(row["step"] for row in before) == stopped
    hosts = hosts_run.run(shared, "train", run, "--json", folder=tmp_path / "resumed")
    assert hosts.codes() == [0, 0], hosts.errors()
    assert shared.rows(run)[: len(before)] == before
    check_losses(shared, run)
    chosen = json.loads((run / "selection.json").read_text())
    assert [hosts.output()[1], json.loads(hosts.output()[0].splitlines()[-1])] == ["", chosen]
    assert [epoch["step"] for epoch in chosen["epochs"]] == EPOCH_ENDS
    assert len(list(run.glob("events.out.*"))) == 2  # one a start, of the first host
    assert not list(run.glob(".shared*"))


def final(run):
    """Every array of the last checkpoint, whatever devices saved it."""
    checkpointer, path = ocp.PyTreeCheckpointer(), run / "checkpoints" / str(TOTAL) / "state"
    saved = checkpointer.metadata(path).item_metadata.tree
    plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
    return checkpointer.restore(path, restore_args=plain)


def check_same_run(project, run, other):
    """Bit for bit: every row and every array of the last checkpoint."""
    assert project.rows(run) == project.rows(other)
    ours, theirs = final(run), final(other)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert jax.tree.all(jax.tree.map(np.array_equal, ours, theirs))
    assert any(np.any(x) for x in jax.tree.leaves(ours["trainable"]))


@pytest.fixture(scope="module")
def two(shared, tmp_path_factory):
    """A whole uninterrupted run on two hosts; tests only read it."""
    folder = tmp_path_factory.mktemp("two")
    hosts = hosts_run.run(shared, "train", folder / "run", folder=folder)
    assert hosts.codes() == [0, 0], hosts.errors()
    return folder / "run"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_uninterrupted_has_the_losses_of_one_process(shared, two):
    check_losses(shared, two)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "number, host", [(signal.SIGTERM, 0), (signal.SIGTERM, 1), (signal.SIGINT, 1)]
)
def test_stopped_and_resumed_equals_uninterrupted(shared, two, tmp_path, number, host):
    run = tmp_path / "run"
    stop_one(shared, run, tmp_path / "stopped", number, host)
    hosts = hosts_run.run(shared, "train", run, folder=tmp_path / "resumed")
    assert hosts.codes() == [0, 0], hosts.errors()
    check_same_run(shared, run, two)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("host", ["0", "1"])
def test_killed_while_saving_goes_on_from_the_last_whole_checkpoint(shared, two, tmp_path, host):
    run = tmp_path / "run"
    killed = hosts_run.run(
        shared,
        "train",
        run,
        "--config.train.save_every=3",
        folder=tmp_path / "killed",
        program=("tests/killing.py",),
        KILL_STEP="12",
        KILL_HOST=host,
    )
    codes = killed.codes()  # the other has not hung
    assert codes[int(host)] == -signal.SIGKILL and codes[1 - int(host)] not in (0, 2, 42)
    left = sorted(p.name for p in (run / "checkpoints").iterdir())
    assert "9" in left and "12" not in left and any(name.startswith("12.") for name in left)
    hosts = hosts_run.run(shared, "train", run, folder=tmp_path / "resumed")
    assert hosts.codes() == [0, 0], hosts.errors()
    check_same_run(shared, run, two)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("before, after", [(2, 1), (1, 2), (4, 2)])
def test_another_number_of_hosts_goes_on(shared, tmp_path, before, after):
    run = tmp_path / "run"
    stop_one(shared, run, tmp_path / "stopped", host=before - 1, count=before)
    hosts = hosts_run.run(shared, "train", run, folder=tmp_path / "resumed", count=after)
    assert set(hosts.codes()) == {0}, hosts.errors()
    check_losses(shared, run)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("axis", ["fsdp", "tensor"])
def test_weights_divided_between_hosts(shared, tmp_path, axis):
    """Under ``tensor`` both hosts read the same rows; all of a batch are trained nevertheless."""
    run = tmp_path / "run"
    line = [f"--config.mesh.{axis}=2"]
    hosts = hosts_run.run(shared, "train", run, *line, folder=tmp_path)
    assert hosts.codes() == [0, 0], hosts.errors()
    check_losses(shared, run)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_evaluation_on_two_hosts(shared, tmp_path):
    run = shared.copy("done", tmp_path / "run")
    shutil.rmtree(run / "eval", ignore_errors=True)
    hosts = hosts_run.run(shared, "eval", run, "--json", folder=tmp_path)
    assert hosts.codes() == [0, 0], hosts.errors()
    ours = json.loads(hosts.output()[0].splitlines()[-1])["test"]
    assert hosts.output()[1] == ""
    shutil.rmtree(run / "eval")  # it would do for one host too
    assert shared.main("eval", tmp_path / "run", "--config.eval.batch_size=7") == 0
    theirs = json.loads((run / "eval" / "best.test.json").read_text())
    assert ours["fingerprint"] == theirs["fingerprint"]
    assert ours["exact_match"] == theirs["exact_match"]
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
