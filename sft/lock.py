"""One run at a time in a directory: a lock that a dead process cannot keep.

The operating system holds it (``flock``) and lets go when the process ends, in any way. Whether
another machine sees that depends on the file system. So the holder also writes into the file every
few seconds, and who finds the name of another machine there watches for that before taking it.
In a bucket there is nothing else to go by: see ``sft.bucket_lock``.
"""

import contextlib
import fcntl
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, Any

from sft import bucket, hosts
from sft.errors import UserError

BEAT = 5.0  # seconds between signs of life
PATIENCE = 30.0  # seconds of silence after which a holder on another machine counts as dead


@contextlib.contextmanager
def held(workdir: str) -> Generator[None]:
    """Holds ``workdir/lock`` while the block runs; the first host does, for all of them.

    Raises:
      UserError: another run holds it; names the process. The directory cannot be made.
    """
    if not hosts.is_first():
        yield
        return
    if bucket.holds(workdir):
        from sft import bucket_lock  # it imports this module

        with bucket_lock.held(workdir):
            yield
        return
    path = Path(workdir) / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _open(path)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: {error.strerror}. Choose another place.") from None
    with file:
        try:
            with beating(lambda number: _write(file, number)):
                yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def _open(path: Path) -> IO[str]:
    """The file, locked, with this process as its holder."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+")
        try:
            _lock(file, path)
            _watch_stranger(file, path)
            # Whoever held it may have removed it between our opening and locking it.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    _write(file, 0)
                    return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: IO[str], path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise taken(path, _read(file)) from None
    except OSError:  # a file system without locks: the signs of life are what there is
        pass


def _watch_stranger(file: IO[str], path: Path) -> None:
    """Waits for a sign of life where the holder is not of this machine.

    Raises:
      UserError: there is one.
    """
    first = _read(file)
    if not first or first.get("machine") == machine():
        return  # released, or of a dead process: the operating system gave us the lock
    say_watching(path, first)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(min(BEAT, PATIENCE) / 5)
        try:
            with path.open() as again:  # opened again: a network file system keeps what it knew
                alive = _read(again) != first
        except FileNotFoundError:
            return  # it has just ended
        if alive:
            raise taken(path, first)


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


def _read(file: IO[str]) -> dict[str, Any]:
    file.seek(0)
    try:
        found = json.loads(file.read())
    except ValueError:  # empty, or caught while it is written
        return {}
    return found if isinstance(found, dict) else {}


def _write(file: IO[str], beat: int) -> None:
    # Padded to one length and written at once: there is never half of it.
    os.pwrite(file.fileno(), f"{json.dumps(ourselves(beat)):<400}\n".encode(), 0)
    os.ftruncate(file.fileno(), 401)


def ourselves(beat: int) -> dict[str, Any]:
    """This process as a holder; ``beat`` is its number of signs of life."""
    return {"process": os.getpid(), "host": platform.node(), "machine": machine(), "beat": beat}


@contextlib.contextmanager
def beating(beat: Callable[[int], object]) -> Generator[None]:
    """Calls ``beat`` with 1, 2, … every ``BEAT`` seconds while the block runs.

    One that fails is passed over: a full disk or a lost network is told by those who need it.
    """
    ended = threading.Event()

    def run() -> None:
        number = 0
        while not ended.wait(BEAT):
            number += 1
            with contextlib.suppress(Exception):
                beat(number)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def machine() -> str:
    """Unlike that of any other running system, and of this one after a restart."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{platform.node()} {boot.read_text().strip() if boot.exists() else ''}"
