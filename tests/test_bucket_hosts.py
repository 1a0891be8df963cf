"""Two hosts whose run directory is in a bucket: the same as on a disk that both see."""

import json
import re
import signal

import fake_bucket
import hosts_run
import pytest
import test_hosts
import tiny_run
from test_bucket_runs import RUN, TOTAL, rows, steps

shared, registered, two = tiny_run.shared, tiny_run.registered, test_hosts.two
server, bucket = fake_bucket.server, fake_bucket.bucket
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def start(project, folder, **environment):
    return hosts_run.started(project, "train", RUN, folder=folder, **environment)


def check_equals_uninterrupted(project, bucket, two):
    assert rows(bucket) == project.rows(two)
    ours = json.loads(bucket.text("run/selection.json"))
    assert ours == json.loads((two / "selection.json").read_text())
    assert steps(bucket) == sorted(int(path.name) for path in (two / "checkpoints").iterdir())
    names = bucket.names("run/")
    assert "run/DONE" in names and not any("lock" in name or ".shared" in name for name in names)


@pytest.mark.parametrize("host", [0, 1])
def test_preempted_then_resumed(shared, two, bucket, tmp_path, host):
    with start(shared, tmp_path / "first", SLOW_BATCHES="4") as hosts:
        hosts.wait_until(lambda: steps(bucket))
        hosts.processes[host].send_signal(signal.SIGTERM)
        assert hosts.codes() == [42, 42], hosts.errors()
    found = {re.search(rf"at step (\d+) of {TOTAL}", text)[1] for text in hosts.errors()}
    (stopped,) = map(int, found)
    assert stopped < TOTAL and steps(bucket)[-1] == stopped
    assert rows(bucket)[-1]["step"] == stopped and "run/lock" not in bucket.names()
    with start(shared, tmp_path / "second") as hosts:
        assert hosts.codes() == [0, 0], hosts.errors()
    check_equals_uninterrupted(shared, bucket, two)


def test_a_host_without_access(shared, two, bucket, tmp_path):
    """The bucket refuses a checkpoint: all hosts end and say why, and what was saved is whole."""
    bucket.refuses = lambda method, address: (
        403 if method == "POST" and "checkpoints/16/" in address else None
    )
    with start(shared, tmp_path / "first") as hosts:
        assert hosts.codes() == [2, 2], hosts.errors()
    assert all("the bucket refuses" in text for text in hosts.errors()), hosts.errors()
    assert steps(bucket) == [8]
    bucket.refuses = lambda method, address: None
    with start(shared, tmp_path / "second") as hosts:
        assert hosts.codes() == [0, 0], hosts.errors()
    check_equals_uninterrupted(shared, bucket, two)
