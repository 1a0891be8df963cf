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
    """See ``sft.tune.sweep.run``, whose ``file`` is ``points`` here."""
    return sweeping.run(
        config, workdir, words, sweep, points, trials=trials, jobs=jobs, dry_run=dry_run
    )
