"""Several real processes of one ``sft`` command, as several hosts would run it."""

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import tiny_run


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Processes under way; what they print goes to files, so that none waits for a reader.

    Waits are long, for a busy machine: they end when what is waited for does.
    """

    processes: list[subprocess.Popen]
    folder: Path

    def errors(self) -> list[str]:
        return [(self.folder / f"{i}.err").read_text() for i in range(len(self.processes))]

    def output(self) -> list[str]:
        """Without what the collectives of the CPU print from C++."""
        texts = [(self.folder / f"{i}.out").read_text() for i in range(len(self.processes))]
        return ["\n".join(s for s in t.splitlines() if "[Gloo]" not in s) for t in texts]

    def wait_until(self, condition: Callable[[], bool], seconds: float = 900) -> None:
        end = time.monotonic() + seconds
        while not condition():
            ended = [error[-1500:] for error in self.errors()]
            assert all(p.poll() is None for p in self.processes), ended
            assert time.monotonic() < end, ended
            time.sleep(0.02)

    def codes(self, seconds: float = 900) -> list[int]:
        end = time.monotonic() + seconds
        return [p.wait(timeout=max(1, end - time.monotonic())) for p in self.processes]


@contextlib.contextmanager
def started(
    project: tiny_run.Project,
    command: str,
    workdir: Path,
    *words: str,
    folder: Path,
    count: int = 2,
    come: int | None = None,
    each: Callable[[int], list[str]] = lambda host: [],
    program: tuple[str, ...] = ("-m", "sft"),
    script: tuple[str, ...] = (),
    **environment: str,
) -> Iterator[Hosts]:
    """Starts ``come`` of ``count`` processes with one device each; kills what is left of them.

    Args:
      each: words of the command line for one host only.
      program: what Python runs.
      script: what runs the command instead of Python.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shared = {
        "SFT_COORDINATOR": f"127.0.0.1:{_free_port()}",
        "SFT_PROCESSES": str(count),
        "XLA_FLAGS": "",
        "PYTHONDONTWRITEBYTECODE": "",
    }
    processes = []
    try:
        for host in range(count if come is None else come):
            with (
                (folder / f"{host}.out").open("w") as out,
                (folder / f"{host}.err").open("w") as err,
            ):
                line = project.words(command, workdir, *words, *each(host))
                process = subprocess.Popen(
                    [*(script or (sys.executable, *program)), *line],
                    cwd=tiny_run.ROOT,
                    env=os.environ | shared | {"SFT_PROCESS": str(host)} | environment,
                    stdout=out,
                    stderr=err,
                )
            processes.append(process)
        yield Hosts(processes, folder)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(project: tiny_run.Project, command: str, workdir: Path, *words: str, **options) -> Hosts:
    """The same, to the end."""
    with started(project, command, workdir, *words, **options) as hosts:
        hosts.codes()
    return hosts


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
