"""``sft sweep``: a run for every point, one process each, until all are done.

The points are checked before the first one starts. Each has a directory of its own, named by what
it overrides, in which it is trained and scored as ``sft train`` and ``sft eval`` do by hand; what
is there already is not done again. So the state of a sweep is its directories: a driver that was
killed, and the machine with it, loses nothing, and the same command goes on.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft import config as configs
from sft import workdir as workdirs
from sft.errors import Preempted, UserError
from sft.signals import Signals
from sft.tune import points as making
from sft.tune.points import Point
from sft.tune.process import Job
from sft.tune.watch import Table

POLL = 0.5  # seconds between two looks at the processes


def main(
    config: ConfigDict,
    workdir: str,
    words: Sequence[str],
    sweep: Mapping[str, str],
    file: str = "",
    jobs: int = 1,
) -> dict[str, Any]:
    """Runs what is not finished of the points, ``jobs`` at once.

    Args:
      workdir: of the sweep; each point has a directory in it.
      words: ``--config=FILE`` and ``--config.KEY=VALUE``, as given; every point gets them too.
      sweep: ``--sweep.KEY=A,B``, the grid.
      file: of Python, with ``points()``; instead of ``sweep``.

    Returns:
      ``{"done", "failed": {name: why}, "points": {name: overrides}}``.

    Raises:
      UserError: a point that is not sound, before anything is started; at the end, points that
        failed.
      Preempted: a signal came, and the runs under way have saved.
    """
    if bool(sweep) == bool(file):
        raise UserError("sft sweep: give either --sweep.KEY=A,B or --points=FILE.py.")
    if jobs < 1:
        raise UserError(f"--jobs={jobs}: expected 1 or more.")
    wanted = making.from_file(file) if file else making.from_flags(sweep)
    found = making.check(config, wanted, file or "--sweep")
    path = _prepared(config, workdir, found)
    failed = _run([Job(point, path / point.name, words) for point in found], jobs)
    result = {
        "done": len(found) - len(failed),
        "failed": failed,
        "points": {point.name: point.overrides for point in found},
    }
    if failed:
        said = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise UserError(
            f"{len(failed)} of {len(found)} points failed, the others are done. {said}. "
            "The same command tries these again."
        )
    return result


def _prepared(config: ConfigDict, workdir: str, found: list[Point]) -> Path:
    """The directories, and ``sweep.json`` with every point there has been.

    Raises:
      UserError: the sweep there is of another configuration; names what differs.
    """
    path, base = Path(workdir), dict(configs.flatten(config))
    stored = path / "sweep.json"
    points = {}
    if stored.exists():
        before = workdirs.read_json(stored)
        changed = configs.difference(base, before["config"])
        if changed:
            raise UserError(
                f"{stored}: the sweep there is of another configuration ({'; '.join(changed)}). "
                "Choose another --workdir, or undo the change."
            )
        points = before["points"]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: {error.strerror}. Choose another place.") from None
    for point in found:
        workdirs.prepare(point.config, str(path / point.name))
    points |= {point.name: point.overrides for point in found}
    workdirs.write_json(stored, {"config": base, "points": points})
    return path


def _run(jobs: list[Job], most: int) -> dict[str, str]:
    """Runs them, in order; why those failed that did.

    Raises:
      Preempted: a signal came; all that ran have ended.
    """
    with Signals() as asked, Table(jobs) as table:
        while any(not job.is_over for job in jobs):
            for job in jobs:
                job.look()
            running = [job for job in jobs if job.is_running]
            if asked.caught:
                for job in running:
                    job.stop()
                if not running:
                    raise Preempted(f"{asked.caught}: {_count(jobs)} of {len(jobs)} points done.")
            else:
                ready = [job for job in jobs if job.is_waiting]
                for job in ready[: most - len(running)]:
                    job.start()
            table.show()
            time.sleep(POLL)
        table.show()
    return {job.point.name: job.failure for job in jobs if job.failure}


def _count(jobs: list[Job]) -> int:
    return sum(job.is_over and not job.failure for job in jobs)
