"""Who holds the lock of a run directory, and the signs of life by which others know it."""

import contextlib
import itertools
import json
import os
import platform
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, Any

from sft.errors import UserError
from sft.run.ticker import ticking

BEAT = 5.0  # seconds between signs of life
PATIENCE = 30.0  # seconds of silence after which a holder on another machine counts as dead


def say_watching(path: Path, holder: dict[str, Any]) -> None:
    """Why nothing happens for a while."""
    print(
        f"{path}: left by {name_of(holder)}. Looking for {PATIENCE:.0f} s whether it is alive.",
        file=sys.stderr,
    )


def taken(path: Path, holder: dict[str, Any]) -> UserError:
    """What to tell who finds the lock held."""
    return UserError(
        f"{path}: {name_of(holder)} is at work in this directory. Wait for it, stop it, or choose "
        "another --workdir."
    )


def name_of(holder: dict[str, Any]) -> str:
    """A holder, for a person."""
    return f"process {holder.get('process', '?')} on {holder.get('host', '?')}"


def read(file: IO[str]) -> dict[str, Any]:
    file.seek(0)
    try:
        found = json.loads(file.read())
    except ValueError:  # empty, or caught while it is written
        return {}
    return found if isinstance(found, dict) else {}


def ourselves(beat: int) -> dict[str, Any]:
    """This process as a holder; ``beat`` is its number of signs of life."""
    return {"process": os.getpid(), "host": platform.node(), "machine": machine(), "beat": beat}


@contextlib.contextmanager
def beating(beat: Callable[[int], object]) -> Generator[None]:
    """Calls ``beat`` with 1, 2, … every ``BEAT`` seconds while the block runs.

    One that fails is passed over: a full disk or a lost network is told by those who need it.
    """
    numbers = itertools.count(1)

    def give_sign() -> None:
        with contextlib.suppress(Exception):
            beat(next(numbers))

    with ticking(BEAT, give_sign):
        yield


def machine() -> str:
    """Unlike that of any other running system, and of this one after a restart."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{platform.node()} {boot.read_text().strip() if boot.exists() else ''}"
