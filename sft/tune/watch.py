"""What a sweep is doing: a live table on a terminal, a line for each event elsewhere."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sft.tune.process import Job

STATES = ("train", "eval", "failed", "stopped", "waiting", "done")


class Table:
    """``show`` brings it up to date; used by ``with``."""

    def __init__(self, jobs: Sequence[Job]):
        self._jobs = jobs
        self._states: dict[str, str] = {}
        self._progress: dict[str, str] = {}
        self._live: Any = None

    def __enter__(self) -> "Table":
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(refresh_per_second=2)
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)

    def show(self) -> None:
        if self._live is not None:
            self._live.update(self._table())
            return
        for job in self._jobs:
            before, now = self._states.get(job.point.name, ""), job.state
            if now != before and (now, before) != ("waiting", ""):
                self._states[job.point.name] = now
                over = sum(each.is_over for each in self._jobs)
                why = f": {_why(job)}" if _why(job) else ""
                parts = [job.point.name, f"{now}{why}", *_progress(job)]
                print(f"[{over}/{len(self._jobs)}] {', '.join(parts)}", flush=True)

    def _table(self) -> Any:
        from rich.table import Table as RichTable

        counts = {state: sum(job.state == state for job in self._jobs) for state in STATES}
        said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        table = RichTable("point", "state", "progress", title=said)
        for job in self._jobs:
            name, now = job.point.name, job.state
            if job.is_running or now != self._states.get(name):  # else nothing has been written
                self._states[name], self._progress[name] = now, ", ".join(_progress(job))
            table.add_row(name, _why(job) or now, self._progress[name])
        return table


def _why(job: Job) -> str:
    return job.failure or job.stopped


def _progress(job: Job) -> list[str]:
    """Step, epoch and losses so far, and the minutes it has run."""
    found = []
    rows = last_rows(job.path / "metrics.jsonl")
    if "train" in rows:
        epochs = job.point.config.train.epochs
        found.append(
            f"step {rows['train']['step']}, epoch {rows['train']['epoch']:.2f} of {epochs}"
        )
    if "validation" in rows:
        found.append(f"validation loss {rows['validation']['loss']:.4f}")
    if job.running_seconds >= 1:
        found.append(f"{job.running_seconds / 60:.1f} min")
    return found


def last_rows(path: Path, most: int = 2**16) -> dict[str, dict[str, Any]]:
    """The last whole row of each split, from the end of the file."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - most))
        lines = file.read().split(b"\n")[1 if size > most else 0 : -1]
    found: dict[str, dict[str, Any]] = {}
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found.setdefault(row.get("split", ""), row)
        if {"train", "validation"} <= found.keys():
            break
    return found
