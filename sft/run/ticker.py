"""Something done at a steady pace, on a thread of its own, while a block runs."""

import contextlib
import threading
from collections.abc import Callable, Generator


@contextlib.contextmanager
def ticking(seconds: float, tick: Callable[[], object]) -> Generator[None]:
    """Calls ``tick`` every ``seconds`` while the block runs, for the first time after as many."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            tick()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
