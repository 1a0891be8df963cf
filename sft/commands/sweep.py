"""``sft sweep``: a run for every point, one process each, until all are done."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from sft.tune import sweep as sweeping


def main(
    config: ConfigDict,
    workdir: str,
    words: Sequence[str],
    sweep: Mapping[str, str],
    points: str,
    trials: int,
    jobs: int,
    dry_run: bool,
) -> dict[str, Any]:
    """Runs what is not finished of the points, ``jobs`` at once.

    Args:
      workdir: of the sweep; each point has a directory in it.
      words: ``--config=FILE`` and ``--config.KEY=VALUE``, as given; every point gets them too.
      sweep: ``--sweep.KEY=A,B``, the grid.
      points: a file of Python, with ``points()``; instead of ``sweep``. Without either, the file of
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
    return sweeping.run(
        config, workdir, words, sweep, points, trials=trials, jobs=jobs, dry_run=dry_run
    )
