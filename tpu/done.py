"""The marks of a run that is over: ``DONE`` of ``sft train``, and ``SCORED`` beside it.

``python -m tpu.done DIR`` leaves ``SCORED``, which says that all test sets were scored, as
``sft sweep`` does. ``python -m tpu.done --json DIR …`` prints which marks there are.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tpu.job import ROOT, Job

MARKS = ("DONE", "SCORED")


def of(jobs: Sequence[Job], seconds: float = 90) -> tuple[set[str], str]:
    """Names of the jobs that are over, and why that is not known (``""`` = it is).

    Buckets are asked by a process of its own, which can be ended when no network answers.
    """
    far = [job.workdir for job in jobs if "://" in job.workdir]
    marks = {job.workdir: _marks(Path(job.workdir)) for job in jobs if job.workdir not in far}
    why = ""
    if far:
        command = [sys.executable, "-m", "tpu.done", "--json", *far]
        try:
            run = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
            )
            if run.returncode:
                why = " ".join(run.stderr.split())[-300:]
            else:
                marks |= json.loads(run.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired:
            why = f"no answer in {seconds:.0f} s"
    over = {
        job.name
        for job in jobs
        if set(MARKS if job.has_test else MARKS[:1]) <= set(marks.get(job.workdir, ()))
    }
    return over, why


def _marks(path) -> list[str]:
    return [mark for mark in MARKS if (path / mark).exists()]


def main(words: Sequence[str]) -> None:
    from etils import epath  # reads buckets, and takes seconds to import

    if words[0] == "--json":
        print(json.dumps({word: _marks(epath.Path(word)) for word in words[1:]}))
    else:
        (epath.Path(words[0]) / "SCORED").write_text("")


if __name__ == "__main__":
    main(sys.argv[1:])
