"""How far a command is, for a person: a bar on a terminal, elsewhere a line now and then.

Elsewhere is a log file, ``nohup`` or the log of a job. A line comes every ``EVERY`` seconds: what
takes less says nothing, and what takes long is seen to move. Only the first host shows any.
"""

import contextlib
import sys
import time
from collections.abc import Generator
from typing import IO, cast

import tqdm
from tqdm.contrib import DummyTqdmFile

from sft.run import hosts
from sft.run.ticker import ticking

EVERY = 30.0  # seconds between two lines
WORTH_SAYING = 1.0  # seconds that a phase took
# Short, for facts stand behind it; the rate is that of the steps, which they have.
_BAR = "{desc}: |{bar:10}| {unit} {n_fmt} of {total_fmt}, {remaining} left{postfix}"


class Progress:
    """Of work with a known number of parts.

    What is printed while a bar is on the terminal goes above it.

    Args:
      total: parts in all.
      what: is done, as in ``train``.
      unit: of a part, as in ``step``.
      done: parts that were done before, for which no time is counted.
      delay: seconds after which the bar appears, for what is mostly quick.
    """

    def __init__(self, total: int, what: str, unit: str, done: int = 0, delay: float = 0.0):
        self._total, self._what, self._unit, self._done = total, what, unit, done
        self._before, self._begun = done, time.monotonic()
        self._told = self._begun
        self._silent = not hosts.is_first()
        self._ending = contextlib.ExitStack()
        self._bar: tqdm.tqdm | None = None
        if self._silent or not sys.stderr.isatty():
            return
        nested = isinstance(sys.stderr, _Above)
        self._bar = self._ending.enter_context(
            tqdm.tqdm(
                total=total,
                desc=what,
                unit=unit,
                bar_format=_BAR,
                initial=done,
                delay=delay,
                file=sys.stderr._wrapped if nested else sys.stderr,
                leave=False,
                dynamic_ncols=True,
                smoothing=0,  # what comes now and then, such as validation, is in the mean
            )
        )
        if not nested:
            for redirect, stream in (
                (contextlib.redirect_stdout, sys.stdout),
                (contextlib.redirect_stderr, sys.stderr),
            ):
                self._ending.enter_context(redirect(cast(IO[str], _Above(stream))))

    def update(self, count: int = 1, *facts: str) -> None:
        """Counts parts as done.

        Args:
          facts: what else there is to know, as in ``loss 0.123``.
        """
        self._done += count
        self._total = max(self._total, self._done)  # what failed may have to be done again
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(facts), refresh=False)
            self._bar.total = self._total
            self._bar.update(count)
            return
        now = time.monotonic()
        if self._silent or now - self._told < EVERY:
            return
        self._told = now
        each = (now - self._begun) / max(self._done - self._before, 1)
        left = duration(each * max(self._total - self._done, 0))
        count_text = f"{self._unit} {self._done:,} of {self._total:,}"
        print_line(f"{self._what}: {', '.join([count_text, *facts])}, {left} left")

    def close(self) -> None:
        """Takes the bar away."""
        self._ending.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Above(DummyTqdmFile):
    """A stream whose lines are written above the bars. It equals the stream behind it: so tqdm
    finds that both are the terminal with its bars."""

    def __eq__(self, other: object) -> bool:
        return self._wrapped == getattr(other, "_wrapped", other)

    def __hash__(self) -> int:
        return hash(self._wrapped)


@contextlib.contextmanager
def phase(name: str) -> Generator[None]:
    """Shows ``name`` while its block runs, and how long it took.

    On a terminal at once, and afterwards if it took ``WORTH_SAYING`` seconds; elsewhere once it has
    taken ``EVERY`` seconds, and again after each more.
    """
    if not hosts.is_first():
        yield
        return
    begun = time.monotonic()
    if sys.stderr.isatty():
        print(f"{name} …", end="\r", file=sys.stderr, flush=True)
        yield
        seconds = time.monotonic() - begun
        said = f"{name}: {duration(seconds)}\n" if seconds >= WORTH_SAYING else "\r\x1b[K"
        print(said, end="", file=sys.stderr, flush=True)
        return

    def tell() -> None:
        print_line(f"{name}: {duration(time.monotonic() - begun)} so far")

    with ticking(EVERY, tell):
        yield
    if time.monotonic() - begun >= EVERY:
        print_line(f"{name}: done in {duration(time.monotonic() - begun)}")


def print_line(text: str) -> None:
    """With the time of day, on standard error."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
