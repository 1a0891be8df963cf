"""``sft train --profile``: an XProf trace of a few steps after warm-up."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import jax

from sft.types import Batch

FIRST, LAST = 3, 5  # steps of this process; the first compiles, the second may still settle


def traced(batches: Iterable[Batch], workdir: str) -> Iterator[Batch]:
    """The batches; while steps ``FIRST`` to ``LAST`` run, a trace is written to ``profile/``.

    The loop reads the metrics of a step when the next one is under way. So when the second batch
    after that of step ``LAST`` is asked for, that step has finished, and the trace holds all of
    it without a wait of its own. A run that ends before closes its trace.
    """
    directory, is_on = str(Path(workdir) / "profile"), False
    try:
        for number, batch in enumerate(batches, start=1):
            if number == FIRST:
                jax.profiler.start_trace(directory)
                is_on = True
            if number == LAST + 2:
                jax.profiler.stop_trace()
                is_on = False
                print(f"{directory}: trace of steps {FIRST} to {LAST} of this process, for XProf.")
            yield batch
    finally:
        if is_on:
            jax.profiler.stop_trace()
