"""A run for every point, one process each, until all are done.

The points are checked before the first one starts. Each has a directory of its own, named by what
it overrides, in which it is trained and scored as ``sft train`` and ``sft eval`` do by hand; what
is there already is not done again. So the state of a sweep is its directories: a driver that was
killed, and the machine with it, loses nothing, and the same command goes on.
"""

import dataclasses
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from sft import config as configs
from sft.errors import Preempted, UserError
from sft.run import directory as workdirs
from sft.run.signals import Signals
from sft.tune import points as making
from sft.tune.points import Point
from sft.tune.process import Job
from sft.tune.watch import Table

if TYPE_CHECKING:
    from sft.tune.search import Search

POLL = 0.5  # seconds between two looks at the processes


def run(
    config: ConfigDict,
    workdir: str,
    words: Sequence[str],
    sweep: Mapping[str, str],
    file: str = "",
    *,
    trials: int = 0,
    jobs: int = 1,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Runs what is not finished of the points, ``jobs`` at once.

    Args:
      workdir: of the sweep; each point has a directory in it.
      words: ``--config=FILE`` and ``--config.KEY=VALUE``, as given; every point gets them too.
      sweep: ``--sweep.KEY=A,B``, the grid.
      file: a file of Python with ``points()``, instead of ``sweep``. Without either, the file of
        the configuration, which has both ``get_config()`` and ``points()``.
      trials: of a search, by ``suggest()`` of that file; 0 = no search.
      dry_run: say what would be run, and run nothing.

    Returns:
      ``{"done", "failed": {name: why}, "points": {name: overrides}}``; of a search also
      ``{"stopped": {name: why}, "best"}``, see ``Search.best``. Of a dry run ``{"points",
      "commands": {name: [command, …]}}``, with those that are still to be run.

    Raises:
      UserError: a point that is not sound, before anything is started; at the end, points that
        failed.
      Preempted: a signal came, and the runs under way have saved.
    """
    if not (sweep or file):
        file = next((w.removeprefix("--config=") for w in words if w.startswith("--config=")), "")
    if bool(sweep) == bool(file):
        raise UserError("sft sweep: give either --sweep.KEY=A,B or --points=FILE.py.")
    if jobs < 1:
        raise UserError(f"--jobs={jobs}: expected 1 or more.")
    if trials < 0:
        raise UserError(f"--trials={trials}: expected 1 or more.")
    path = Path(workdir)

    def job(point: Point) -> Job:
        return Job(point, path / point.name, words)

    if trials:
        return _search(config, path, job, file, trials, jobs, dry_run)
    wanted = making.from_file(file) if file else making.from_flags(sweep)
    found = _as_there(config, path, making.check(config, wanted, file or "--sweep"))
    if dry_run:
        return _said([job(point) for point in found])
    _prepare(config, path, found)
    return _result(_run([job(point) for point in found], jobs))


def _as_there(config: ConfigDict, path: Path, found: list[Point]) -> list[Point]:
    """The points by the names that they have there, so that what was run without ``seed`` is not
    run again as ``seed=0`` once there are to be several."""
    base = dict(configs.flatten(config))
    there = [(base | overrides, name) for name, overrides in _stored(path, base)["points"].items()]

    def name(point: Point) -> str:
        values = dict(configs.flatten(point.config))
        values["model.name"] = point.overrides.get("model.name", base["model.name"])  # as written
        return next((name for others, name in there if others == values), point.name)

    return [dataclasses.replace(point, name=name(point)) for point in found]


def _stored(path: Path, base: dict[str, Any]) -> dict[str, Any]:
    """``sweep.json``: ``{"config", "points": {name: overrides}}``; of ``base`` before a first run.

    Raises:
      UserError: something else is in it.
    """
    file = path / "sweep.json"
    if not file.exists():
        return {"config": base, "points": {}}
    stored = workdirs.read_json(file)
    keys = ("config", "points")
    whole = isinstance(stored, dict) and all(isinstance(stored.get(key), dict) for key in keys)
    if not whole or not all(isinstance(each, dict) for each in stored["points"].values()):
        raise UserError(
            f"{file}: expected a 'config' and the overrides of 'points' in it. Restore it, or "
            "choose another --workdir."
        )
    return stored


def _search(
    config: ConfigDict,
    path: Path,
    job: Callable[[Point], Job],
    file: str,
    trials: int,
    most: int,
    dry_run: bool,
) -> dict[str, Any]:
    from sft.tune.search import Search  # brings what the metrics need

    if not file:
        raise UserError("--trials is of a search by suggest() of a file, not of --sweep.KEY=A,B.")
    if dry_run:
        raise UserError("--dry_run: what a search runs is not known before; leave out --trials.")

    def prepare(point: Point) -> Job:
        _prepare(config, path, [point])
        return job(point)

    suggest = making.function(file, "suggest")
    _prepare(config, path, [])
    search = Search(config, path, suggest, prepare, trials)
    result = _result(_run([], most, search))
    best = search.best()
    if best:
        print(f"best: {best['metric']} {best['value']:.4f} with {making.said(best['overrides'])}")
    return result | {"best": best}


def _prepare(config: ConfigDict, path: Path, found: list[Point]) -> None:
    """The directories, and ``sweep.json`` with every point there has been.

    Raises:
      UserError: the sweep there is of another configuration; names what differs.
    """
    base = dict(configs.flatten(config))
    before = _stored(path, base)
    changed = configs.difference(base, before["config"])
    if changed:
        raise UserError(
            f"{path / 'sweep.json'}: the sweep there is of another configuration "
            f"({'; '.join(changed.values())}). Choose another --workdir, or undo the change."
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={path}: {error.strerror}. Choose another place.") from None
    for point in found:
        workdirs.prepare(point.config, str(path / point.name))
    points = before["points"] | {point.name: point.overrides for point in found}
    workdirs.write_json(path / "sweep.json", {"config": base, "points": points})


def _run(jobs: list[Job], most: int, search: "Search | None" = None) -> list[Job]:
    """Runs them, in order, and what a search adds to them, ``most`` at once; all of them.

    Raises:
      Preempted: a signal came; all that ran have ended.
    """
    with Signals() as asked, Table(jobs) as table:
        while any(not job.is_over for job in jobs) or (search and not search.is_over):
            for job in jobs:
                job.look()
            if search:
                search.look()
            running = [job for job in jobs if job.is_running]
            if asked.caught:
                for job in running:
                    job.stop()
                if not running:
                    raise Preempted(f"{asked.caught}: {_count(jobs)} of {len(jobs)} points done.")
            elif len(running) < most:
                waiting = next((job for job in jobs if job.is_waiting), None)
                if waiting:
                    waiting.start()
                elif search and (new := search.next()) and new not in jobs:
                    jobs.append(new)
            table.show()
            time.sleep(POLL)
        table.show()
    return jobs


def _result(jobs: list[Job]) -> dict[str, Any]:
    """What ``main`` returns.

    Raises:
      UserError: some failed.
    """
    failed = {job.point.name: job.failure for job in jobs if job.failure}
    if failed:
        said = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise UserError(
            f"{len(failed)} of {len(jobs)} points failed, the others are done. {said}. "
            "The same command tries these again."
        )
    stopped = {job.point.name: job.stopped for job in jobs if job.stopped}
    found = {
        "done": _count(jobs),
        "failed": failed,
        "points": {job.point.name: job.point.overrides for job in jobs},
    }
    return found | ({"stopped": stopped} if stopped else {})


def _said(jobs: list[Job]) -> dict[str, Any]:
    """Prints the commands of each point, those that are still to be run."""
    commands = {job.point.name: [shlex.join(["sft", *line]) for line in job.lines] for job in jobs}
    for name, lines in commands.items():
        print("\n  ".join([name, *(lines or ["done"])]))
    return {"points": {job.point.name: job.point.overrides for job in jobs}, "commands": commands}


def _count(jobs: list[Job]) -> int:
    return sum(job.is_over and not (job.failure or job.stopped) for job in jobs)
