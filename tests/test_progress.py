"""What is seen of a long command, on a terminal and in a log file."""

import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
import types

import pytest

from sft.run import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self, monkeypatch):
        self.now = 0.0
        fake = types.SimpleNamespace(
            monotonic=lambda: self.now, strftime=lambda _: "12:00:00", sleep=time.sleep
        )
        monkeypatch.setattr(progress, "time", fake)


@pytest.fixture
def log(capsys):
    return lambda: capsys.readouterr().err.splitlines()


def test_a_log_gets_a_line_at_a_steady_pace(monkeypatch, log):
    clock = Clock(monkeypatch)
    with progress.Progress(600, "train", "step", done=100) as shown:
        for step in range(100):
            clock.now += 1
            shown.update(1, "epoch 0.5", f"loss {step}")
    assert log() == [
        "[12:00:00] train: step 130 of 600, epoch 0.5, loss 29, 7 min 50 s left",
        "[12:00:00] train: step 160 of 600, epoch 0.5, loss 59, 7 min 20 s left",
        "[12:00:00] train: step 190 of 600, epoch 0.5, loss 89, 6 min 50 s left",
    ]


def test_what_is_quick_says_nothing_to_a_log(monkeypatch, log):
    clock = Clock(monkeypatch)
    with progress.Progress(3, "validation", "example") as shown:
        for _ in range(3):
            clock.now += 9
            shown.update()
    with progress.phase("reading train"):
        clock.now += 5
    assert log() == []


def test_a_long_phase_is_seen_to_go_on(monkeypatch, log):
    monkeypatch.setattr(progress, "EVERY", 0.05)
    with progress.phase("looking for duplicates"):
        time.sleep(0.18)
    *during, last = log()
    assert len(during) >= 2
    assert all(
        re.fullmatch(r"\[[\d:]+\] looking for duplicates: 0\.\d s so far", x) for x in during
    )
    assert re.fullmatch(r"\[[\d:]+\] looking for duplicates: done in 0\.\d s", last)


def test_a_phase_on_a_terminal(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    with progress.phase("reading train"):
        during = sys.stderr.getvalue()
    assert during == "reading train …\r"
    assert screen(sys.stderr.getvalue()) == [""]  # what took no time leaves no line
    monkeypatch.setattr(progress, "WORTH_SAYING", 0.0)
    with progress.phase("reading train"):
        pass
    assert re.fullmatch(r"reading train: 0\.\d s", screen(sys.stderr.getvalue())[0])


def test_other_hosts_show_nothing(monkeypatch, log):
    monkeypatch.setattr("sft.run.hosts.is_first", lambda: False)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with progress.phase("reading"), progress.Progress(2, "train", "step") as shown:
        shown.update()
    assert log() == []


ON_A_TERMINAL = """
import sys, warnings
from sft.run.progress import Progress
with Progress(3, "train", "step", done=1) as outer:
    print("printed")
    with Progress(2, "validation", "example") as inner:
        print("inside", file=sys.stderr)
        inner.update(2)
        warnings.warn("mind")
    outer.update(1, "loss 0.5")
    print("half a line, ", end="")
    print("and the rest")
print("after")
"""


def screen(text):
    """What a terminal shows in the end: a bar goes back to the start of its line, or one up."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[AK]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\x1b[A":
            row -= 1
        elif part == "\x1b[K":
            lines[row] = lines[row][:column]
        elif part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        else:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + part + line[column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]


def test_on_a_terminal_lines_stand_above_the_bar():
    """Seen as a terminal shows it: no line has anything of a bar, which is gone at the end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL], stdout=theirs, stderr=theirs, close_fds=True
    )
    os.close(theirs)
    raw = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            piece = os.read(ours, 4096)
        except OSError:
            break
        raw += piece
        if not piece:
            break
    assert process.wait() == 0
    lines = [line for line in screen(raw.decode()) if line]
    assert "train:" in raw.decode() and "validation:" in raw.decode()
    assert lines[0] == "printed" and lines[1] == "inside"
    assert any(line.endswith("UserWarning: mind") for line in lines)
    assert lines[-2:] == ["half a line, and the rest", "after"]
    assert not any("%|" in line for line in lines)
