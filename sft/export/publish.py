"""An export appears whole or not at all, and takes the place of an earlier one in one step."""

import contextlib
import ctypes
import errno
import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path

from sft.errors import UserError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


def check_free(target: Path, overwrite: bool) -> None:
    """Refuses a place that is taken.

    Raises:
      UserError: there is something, and it must stay.
    """
    if target.exists() and not target.is_dir():
        raise UserError(f"{target}: a file, where a folder is to be. Give another --out.")
    if target.exists() and not overwrite:
        raise UserError(f"{target}: there already. Give --overwrite, or another --out.")


@contextlib.contextmanager
def terminated() -> Generator[None]:
    """SIGTERM ends what is inside as Ctrl-C does: what was written is removed."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def published(target: Path, overwrite: bool) -> Generator[Path]:
    """An empty folder that becomes ``target`` when the block ends well, and is gone otherwise.

    Raises:
      UserError: the disk is full, or the place cannot be written to.
    """
    partial = _beside(target)
    try:
        yield partial
        _open_up(partial)
        check_free(target, overwrite)  # another may have been faster
        if target.exists() and not _exchange(partial, target):
            old = _beside(target)
            os.replace(target, old)
            os.replace(partial, target)
            shutil.rmtree(old)
        elif not target.exists():
            os.replace(partial, target)
    except Exception as error:
        # Libraries say it in their own words, and not as an OSError.
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise UserError(
                f"{target}: the disk is full; nothing was left there. Free some space, or give "
                "--out=DIR on another disk."
            ) from None
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError):
            raise UserError(f"{target}: cannot be written ({error.strerror}).") from None
        raise
    finally:
        if partial.is_symlink():  # which stood for the earlier export
            partial.unlink()
        shutil.rmtree(partial, ignore_errors=True)


def _beside(target: Path) -> Path:
    """A new hidden folder in the one that ``target`` will be in.

    Raises:
      UserError: there cannot be one.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise UserError(
            f"{target}: cannot be written ({error.strerror}). Give another --out."
        ) from None


def _open_up(folder: Path) -> None:
    """Gives what is there the usual rights: some libraries write for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def _exchange(one: Path, other: Path) -> bool:
    """Whether two folders could change places in one step: on Linux, and not on every disk."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    paths = os.fsencode(one), os.fsencode(other)
    return bool(rename) and not rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
