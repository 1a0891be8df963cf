"""Every reply of a judge, kept as soon as it comes: nothing is asked, or paid for, twice."""

import dataclasses
import fcntl
import hashlib
import json
import threading
from pathlib import Path
from typing import IO, Any

from sft.errors import UserError
from sft.eval.judge.backend import Reply


class Cache:
    """A file to which one line is added for each reply, or with no path only this process' memory.

    Closed by ``with``. Replies may be put from several threads.

    Raises:
      UserError: the file is damaged or cannot be written, or another process is using it.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        self._replies: dict[str, Reply] = {}
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        if path is not None:
            self._file = _open(path)
            try:
                self._read(self._file, path)
            except BaseException:
                self._file.close()
                raise

    @classmethod
    def of_run(cls, workdir: Path | str) -> "Cache":
        """The run's own, ``eval/judge.cache.jsonl``."""
        return cls(Path(workdir) / "eval" / "judge.cache.jsonl")

    def __enter__(self) -> "Cache":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def get(self, identity: dict[str, Any], prompt: str) -> Reply | None:
        return self._replies.get(key(identity, prompt))

    def put(self, identity: dict[str, Any], prompt: str, reply: Reply) -> None:
        """Keeps the reply; it is with the operating system when this returns."""
        name = key(identity, prompt)
        line = json.dumps({"key": name} | dataclasses.asdict(reply)) + "\n"
        with self._lock:
            self._replies[name] = reply
            if self._file is not None:
                try:
                    self._file.write(line.encode())
                    self._file.flush()
                except OSError as error:
                    raise UserError(f"{self.path}: {error.strerror}.") from None

    def _read(self, file: IO[bytes], path: Path) -> None:
        *lines, torn = file.read().split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                values = json.loads(line)
                name = values.pop("key")
                self._replies[name] = Reply(**values)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise UserError(
                    f"{path}:{number}: not a reply that was kept ({error}). Remove this line; "
                    "what it held is asked for again."
                ) from None
        if torn:  # killed while it was written: the next line must not continue it
            file.truncate(file.tell() - len(torn))
            file.seek(0, 2)


def key(identity: dict[str, Any], prompt: str) -> str:
    """Of everything that could change the reply. The prompt is the template with all its values."""
    text = json.dumps([identity, prompt], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _open(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        file = path.open("r+b")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(f"{path}: another judge is at work here. Wait for it.") from None
    except OSError:
        pass  # a file system without locks
    return file
