"""One run at a time in a directory."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from sft.errors import UserError
from sft.run import holder as holding
from sft.run import lock

HOLDER = """
import sys, time
from sft.run import lock
with lock.held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(holding, "BEAT", 0.1)
    monkeypatch.setattr(holding, "PATIENCE", 2.0)


def test_another_process_is_named_and_keeps_it(tmp_path, holder):
    for _ in range(2):
        with (
            pytest.raises(UserError, match=rf"lock: process {holder.pid} on .* is at work in this"),
            lock.held(str(tmp_path)),
        ):
            pass
    assert holder.poll() is None and (tmp_path / "lock").exists()


def test_a_dead_process_keeps_nothing(tmp_path, holder, monkeypatch):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert json.loads((tmp_path / "lock").read_text())["process"] == holder.pid
    monkeypatch.setattr(holding, "PATIENCE", None)  # would fail if it waited
    with lock.held(str(tmp_path)):
        assert json.loads((tmp_path / "lock").read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def left_by_another_machine(path, beat=0):
    text = json.dumps({"process": 7, "host": "far", "machine": "far 1", "beat": beat})
    path.write_text(f"{text:<400}\n")


def test_a_dead_process_of_another_machine_is_waited_for_then_followed(tmp_path, quick, capsys):
    left_by_another_machine(tmp_path / "lock")
    with lock.held(str(tmp_path)):
        pass
    assert (
        "left by process 7 on far. Looking for 2 s whether it is alive" in capsys.readouterr().err
    )


def test_a_process_at_work_on_another_machine_is_left_alone(tmp_path, quick):
    """Where locks do not reach from one machine to the other."""
    path, ended = tmp_path / "lock", threading.Event()
    left_by_another_machine(path)

    def beat():
        for count in range(1, 1000):
            if ended.wait(0.3):
                return
            left_by_another_machine(path, count)

    other = threading.Thread(target=beat)
    other.start()
    try:
        with (
            pytest.raises(UserError, match="process 7 on far is at work"),
            lock.held(str(tmp_path)),
        ):
            pass
    finally:
        ended.set()
        other.join()
    assert json.loads(path.read_text())["host"] == "far"


def test_the_holder_gives_signs_of_life(tmp_path, quick):
    path = tmp_path / "lock"
    with lock.held(str(tmp_path)):
        first = json.loads(path.read_text())
        end = time.monotonic() + 60
        while json.loads(path.read_text()) == first:
            assert time.monotonic() < end
            time.sleep(0.02)
        now = json.loads(path.read_text())
    assert now["beat"] > first["beat"]
    assert {**now, "beat": 0} == {**first, "beat": 0}


def test_where_there_can_be_no_directory(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"--workdir=.*file: "), lock.held(str(tmp_path / "file")):
        pass
