"""``sft train --profile``: an XProf trace of a few steps after warm-up."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax

from sft.run import bucket
from sft.run.directory import path_of, write_bytes
from sft.types import Batch

FIRST, LAST = 3, 5  # steps of this process; the first compiles, the second may still settle


def traced(batches: Iterable[Batch], workdir: str) -> Iterator[Batch]:
    """The batches; while steps ``FIRST`` to ``LAST`` run, a trace is written to ``profile/``.

    The loop reads the metrics of a step when the next one is under way. So when the second batch
    after that of step ``LAST`` is asked for, that step has finished, and the trace holds all of
    it without a wait of its own. A run that ends before closes its trace.
    """
    target, is_on = path_of(workdir) / "profile", False
    # The profiler writes to a disk.
    directory = tempfile.mkdtemp(prefix="sft-profile.") if bucket.holds(target) else str(target)
    try:
        for number, batch in enumerate(batches, start=1):
            if number == FIRST:
                jax.profiler.start_trace(directory)
                is_on = True
            if number == LAST + 2:
                _stop(directory, target)
                is_on = False
                print(f"{target}: trace of steps {FIRST} to {LAST} of this process, for XProf.")
            yield batch
    finally:
        if is_on:
            _stop(directory, target)
        if bucket.holds(target):
            shutil.rmtree(directory, ignore_errors=True)


def _stop(directory: str, target: Path) -> None:
    jax.profiler.stop_trace()
    if bucket.holds(target):
        for file in (file for file in Path(directory).rglob("*") if file.is_file()):
            write_bytes(target / file.relative_to(directory), file.read_bytes())
