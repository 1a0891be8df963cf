"""One run at a time in a directory of a bucket."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import fake_bucket
import pytest

from sft.errors import BAD_INPUT, UserError
from sft.run import bucket_lock, lease
from sft.run import holder as holding

server, bucket = fake_bucket.server, fake_bucket.bucket
RUN = "gs://bucket/run"
HOLDER = """
import sys, time
from sft.run import holder, lease
holder.BEAT, holder.PATIENCE = 0.2, 2.0
with lease.held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(holding, "BEAT", 0.2)
    monkeypatch.setattr(holding, "PATIENCE", 2.0)


@pytest.fixture
def holder(bucket):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, RUN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def take():
    with lease.held(RUN):
        pass


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def left_by_another(bucket, beat=0):
    text = json.dumps({"process": 7, "host": "far", "machine": "far 1", "beat": beat, "id": "x"})
    bucket.put("run/lock", text.encode(), {})


def test_it_is_there_with_a_name_while_it_is_held(bucket):
    with lease.held(RUN):
        first = json.loads(bucket.text("run/lock"))
        wait_until(lambda: json.loads(bucket.text("run/lock"))["beat"] >= 2)
        assert first["process"] == os.getpid()
    assert bucket.names() == []


def test_another_process_is_named_and_keeps_it(bucket, holder):
    for _ in range(2):
        with pytest.raises(UserError, match=rf"{RUN}/lock: process {holder.pid} on .* is at work"):
            take()
    assert holder.poll() is None
    assert json.loads(bucket.text("run/lock"))["process"] == holder.pid


def test_a_dead_process_is_followed_after_a_while(bucket, holder, capsys):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    begun = time.monotonic()
    take()
    assert time.monotonic() - begun > holding.PATIENCE
    assert f"left by process {holder.pid}" in capsys.readouterr().err
    assert bucket.names() == []


def test_who_ends_while_it_is_watched_is_followed_at_once(bucket, monkeypatch):
    monkeypatch.setattr(holding, "PATIENCE", 60.0)
    left_by_another(bucket)
    threading.Timer(0.5, lambda: bucket.delete("run/lock", {})).start()
    begun = time.monotonic()
    take()
    assert time.monotonic() - begun < 30


def test_of_two_that_follow_a_dead_one_one_gets_it(bucket, monkeypatch):
    """Both have seen it silent; the object's generation decides."""
    left_by_another(bucket)
    silent = bucket_lock._Lock._silent

    def overtaken(self, found, generation):
        monkeypatch.setattr(bucket_lock._Lock, "_silent", silent)
        left_by_another(bucket, beat=1)
        return generation

    monkeypatch.setattr(bucket_lock._Lock, "_silent", overtaken)
    ours = bucket_lock._taken(RUN)  # the second look finds nobody alive either
    assert json.loads(bucket.text("run/lock"))["process"] == os.getpid()
    ours.release()
    assert [what for what, _ in bucket.log] == ["put", "put", "put", "delete"]


def test_a_process_that_was_stopped_for_long_ends_when_it_finds_another(bucket, holder):
    holder.send_signal(signal.SIGSTOP)
    with lease.held(RUN):
        holder.send_signal(signal.SIGCONT)
        _, err = holder.communicate(timeout=60)
        assert holder.returncode == BAD_INPUT
        assert f"process {os.getpid()} on" in err and "has taken over" in err
        assert json.loads(bucket.text("run/lock"))["process"] == os.getpid()


def test_an_answer_that_is_lost_changes_nothing(bucket):
    """The client asks again, and then the condition of what it has written itself does not hold."""
    lost = iter([True, False, False, True])
    put = bucket.put

    def put_and_lose(name, content, query):
        answer = put(name, content, query)
        return fake_bucket._error(503, "lost") if next(lost, False) else answer

    bucket.put = put_and_lose
    try:
        with lease.held(RUN):
            wait_until(lambda: json.loads(bucket.text("run/lock"))["beat"] >= 4)
    finally:
        del bucket.put
    assert bucket.names() == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (403, "no permission.*roles/storage.objectUser.*roles/storage.legacyBucketReader"),
        (404, "404"),
        (503, "503"),
    ],
)
def test_a_bucket_that_refuses(bucket, monkeypatch, code, said):
    monkeypatch.setattr(bucket_lock, "RETRY", 2.0)
    bucket.refuses = lambda method, address: code
    with pytest.raises(UserError, match=rf"^--workdir={RUN}: ") as caught:
        take()
    assert re.search(said, str(caught.value)) and "\n" not in str(caught.value)
