"""The marks of a run that is over: ``DONE`` of ``sft train``, and ``SCORED`` beside it.

``python -m tpu.done DIR`` leaves ``SCORED``, which says that all test sets were scored, as
``sft sweep`` does. ``python -m tpu.done --json BUCKET DIGITS …`` prints which marks there are.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tpu.job import ROOT, Job

MARKS = ("DONE", "SCORED")


def there(bucket: str, digits: Sequence[str], seconds: float = 90) -> tuple[dict[str, Any], str]:
    """Names of the runs in a bucket, each with its marks, and why they are not known (``""`` = they
    are).

    A bucket is asked by a process of its own, which can be ended when no network answers.

    Args:
      digits: of the configurations that are asked for; those end the names.
    """
    if "://" not in bucket:
        return _marks(Path(bucket), digits), ""
    command = [sys.executable, "-m", "tpu.done", "--json", bucket, *digits]
    try:
        run = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return {}, f"no answer in {seconds:.0f} s"
    if run.returncode:
        return {}, " ".join(run.stderr.split())[-300:] or f"it ended with {run.returncode}"
    return json.loads(run.stdout.splitlines()[-1]), ""


def is_over(job: Job, marks: Sequence[str]) -> bool:
    """Whether it is trained, and scored if it is to be."""
    return set(MARKS if job.has_test else MARKS[:1]) <= set(marks)


def _marks(bucket: Any, digits: Sequence[str]) -> dict[str, list[str]]:
    wanted = set(digits)
    try:
        runs = [path for path in bucket.iterdir() if path.name.rpartition("-")[2] in wanted]
    except FileNotFoundError:  # before the first run
        return {}
    return {run.name: [mark for mark in MARKS if (run / mark).exists()] for run in runs}


def main(words: Sequence[str]) -> None:
    from etils import epath  # reads buckets, and takes seconds to import

    if words[0] == "--json":
        print(json.dumps(_marks(epath.Path(words[1]), words[2:])))
    else:
        (epath.Path(words[0]) / "SCORED").write_text("")


if __name__ == "__main__":
    main(sys.argv[1:])
