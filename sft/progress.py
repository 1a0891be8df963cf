"""What a command is busy with, said to a person who waits and to nobody else."""

import contextlib
import sys
import time
from collections.abc import Generator


@contextlib.contextmanager
def phase(name: str) -> Generator[None]:
    """Shows ``name`` on a terminal while its block runs, and how long it took."""
    if not sys.stderr.isatty():
        yield
        return
    begun = time.perf_counter()
    print(f"{name} …", end="\r", file=sys.stderr, flush=True)
    yield
    print(f"{name}: {time.perf_counter() - begun:.1f} s", file=sys.stderr, flush=True)
