"""The lock of a run directory on a disk: a file that a dead process cannot keep locked.

The operating system holds it (``flock``) and lets go when the process ends, in any way. Whether
another machine sees that depends on the file system. So the holder also writes into the file every
few seconds, and who finds the name of another machine there watches for that before taking it.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import IO

from sft.errors import UserError
from sft.run import holder


@contextlib.contextmanager
def held(workdir: str) -> Generator[None]:
    """Holds ``workdir/lock`` while the block runs.

    Raises:
      UserError: another run holds it; names the process. The directory cannot be made.
    """
    path = Path(workdir) / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _open(path)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: {error.strerror}. Choose another place.") from None
    with file:
        try:
            with holder.beating(lambda number: _write(file, number)):
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
        raise holder.taken(path, holder.read(file)) from None
    except OSError:  # a file system without locks: the signs of life are what there is
        pass


def _watch_stranger(file: IO[str], path: Path) -> None:
    """Waits for a sign of life where the holder is not of this machine.

    Raises:
      UserError: there is one.
    """
    first = holder.read(file)
    if not first or first.get("machine") == holder.machine():
        return  # released, or of a dead process: the operating system gave us the lock
    holder.say_watching(path, first)
    end = time.monotonic() + holder.PATIENCE
    while time.monotonic() < end:
        time.sleep(min(holder.BEAT, holder.PATIENCE) / 5)
        try:
            with path.open() as again:  # opened again: a network file system keeps what it knew
                alive = holder.read(again) != first
        except FileNotFoundError:
            return  # it has just ended
        if alive:
            raise holder.taken(path, first)


def _write(file: IO[str], beat: int) -> None:
    # Padded to one length and written at once: there is never half of it.
    os.pwrite(file.fileno(), f"{json.dumps(holder.ourselves(beat)):<400}\n".encode(), 0)
    os.ftruncate(file.fileno(), 401)
