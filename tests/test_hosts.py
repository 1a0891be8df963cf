"""Training on several hosts, as real processes through the real command line.

They are compared with one process to the tolerance that devices are (tests/test_steps.py), not bit
for bit: the sums over hosts are taken in the order of another collective.
"""

import json
import re
import signal

import hosts_run
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
