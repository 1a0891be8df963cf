"""One point of a sweep as processes: trained, then scored."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sft.errors import DONE, PREEMPTED
from sft.tune.points import Point

PROGRAM = (sys.executable, "-m", "sft")
PREEMPTIONS = 20  # in a row, without a new checkpoint, after which a point is given up
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux' prctl


class Job:
    """A point, what runs of it, and how it ended.

    Attributes:
      words: ``--config=FILE`` and what is changed for all points.
      failure: why it is given up, or ``""``.
      stopped: why a search had enough of it, or ``""``.
      seconds: of the processes that have ended.
    """

    def __init__(self, point: Point, path: Path, words: Sequence[str]):
        self.point, self.path, self.words = point, path, words
        self.failure, self.stopped, self.seconds = "", "", 0.0
        self._process: subprocess.Popen | None = None
        self._command = ""
        self._begun = 0.0
        self._preempted, self._seen = 0, self._checkpoints()
        self._asked_to_end = False
        self._scored = path / "SCORED"  # on all test sets, not on some of them

    @property
    def todo(self) -> str:
        """The command that comes next; ``""`` = none."""
        if not (self.path / "DONE").exists():
            return "train"
        if self._has_test and not self._scored.exists():
            return "eval"
        return ""

    @property
    def lines(self) -> list[list[str]]:
        """All commands that are still to come."""
        commands = ["train", "eval"] if self._has_test else ["train"]
        return (
            [self.line(each) for each in commands[commands.index(self.todo) :]] if self.todo else []
        )

    @property
    def _has_test(self) -> bool:
        return bool(self.point.config.data.test or self.point.config.data.split.test)

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def is_over(self) -> bool:
        return not self.is_running and (bool(self.failure or self.stopped) or not self.todo)

    @property
    def is_waiting(self) -> bool:
        return not self.is_running and not self.is_over

    @property
    def state(self) -> str:
        if self.is_running:
            return self._command
        if self.failure or self.stopped:
            return "failed" if self.failure else "stopped"
        return "waiting" if self.todo else "done"

    @property
    def running_seconds(self) -> float:
        return self.seconds + (time.monotonic() - self._begun if self.is_running else 0.0)

    def line(self, command: str) -> list[str]:
        """What one would type after ``sft`` for this point."""
        own = [f"--config.{key}={value}" for key, value in self.point.overrides.items()]
        return [command, *self.words, *own, f"--workdir={self.path}"]

    def start(self) -> None:
        """The next command, its output at the end of ``sweep.log``.

        On Linux it gets SIGTERM when this process dies, and saves.
        """
        self._command = self.todo
        words = [*PROGRAM, *self.line(self._command)]
        with (self.path / "sweep.log").open("ab") as log:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with(os.getpid()) if sys.platform == "linux" else None,
                start_new_session=True,  # Ctrl-C in the terminal is for the driver, which says stop
            )
        self._begun = time.monotonic()

    def stop(self) -> None:
        """Asks it to save and end; once."""
        if self._process is not None and not self._asked_to_end:
            self._asked_to_end = True
            self._process.send_signal(signal.SIGTERM)

    def look(self) -> None:
        """Takes note of a process that has ended."""
        if self._process is None or (code := self._process.poll()) is None:
            return
        self.seconds += time.monotonic() - self._begun
        self._process = None
        if code == PREEMPTED:
            now = self._checkpoints()
            self._preempted, self._seen = (0 if now != self._seen else self._preempted + 1), now
            if self._preempted >= PREEMPTIONS:
                self.failure = f"stopped {PREEMPTIONS} times without getting on"
        elif code != DONE:
            self.failure = f"sft {self._command} ended with {code}: {self._last_line()}"
        elif self._command == "eval":
            self._scored.touch()
        elif self.todo == self._command:
            log = self.path / "sweep.log"
            self.failure = f"sft {self._command} ended well and left nothing; see {log}"

    def _checkpoints(self) -> list[str]:
        folder = self.path / "checkpoints"
        return sorted(child.name for child in folder.iterdir()) if folder.is_dir() else []

    def _last_line(self) -> str:
        log = self.path / "sweep.log"
        text = log.read_text(errors="replace") if log.exists() else ""  # somebody removed the run
        lines = [line for line in text.splitlines() if line.strip()]
        return lines[-1].removeprefix("sft: ").rstrip(".") if lines else "it said nothing"


def _die_with(parent: int):
    """For the child, before it becomes ``sft``: SIGTERM when the parent ends, however it does."""
    library = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        library.prctl(_DIE_WITH_PARENT, signal.SIGTERM)
        if os.getppid() != parent:  # it has died already
            with contextlib.suppress(ProcessLookupError):
                os.kill(os.getpid(), signal.SIGTERM)

    return ask
