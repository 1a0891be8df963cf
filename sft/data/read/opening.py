"""Files as bytes, local or in a bucket, with every failure as an error of one line.

Of an open file only ``read(size)`` is used: the backends of epath have little else in common.
"""

import bz2
import contextlib
import gzip
import lzma
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

from etils import epath

from sft.data.read import recognise
from sft.errors import UserError

_CHUNK = 2**20  # bytes read at a time


class Misnamed(Exception):
    """A table in a container that its name does not say. ``container``: which it is."""

    def __init__(self, container: str):
        super().__init__(container)
        self.container = container


class Peeked:
    """A file that is read once, from its beginning. ``head``: its first bytes, read already."""

    def __init__(self, file: Any):
        self._read = file.read
        self.head = self._ahead = _exactly(file, recognise.HEAD)

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes, ``b""`` at the end."""
        if not self._ahead:
            return self._read(size)
        found, self._ahead = self._ahead[:size], self._ahead[size:]
        return found


def _exactly(file: Any, size: int) -> bytes:
    found = b""
    while len(found) < size and (more := file.read(size - len(found))):
        found += more
    return found


@contextlib.contextmanager
def open_bytes(path: str) -> Generator[Peeked]:
    """The file, unpacked if need be. What goes wrong until its end is a ``UserError``.

    Raises:
      Misnamed: it is not text but a table.
    """
    with one_line(path), epath.Path(path).open("rb") as raw:
        file = Peeked(raw)
        packed = recognise.packed(file.head)
        if not packed and path.endswith(".gz") and file.head:
            packed = "gzip"
        if not packed:
            _look(path, file.head)
            yield file
            return
        try:
            file = Peeked(_UNPACK[packed](file))
            if container := recognise.table(file.head):
                what = f"a {container} file compressed with {packed}"
                raise UserError(f"{path}: {what}. Unpack it with {_UNPACKERS[packed]}.")
            recognise.refuse(path, file.head)
            yield file
        except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, OSError) as error:
            if type(error) is OSError and str(error) != "Invalid data stream":  # bzip2 says so
                raise
            raise UserError(f"{path}: damaged {packed} file: {message(error)}.") from None


_UNPACK: dict[str, Callable[[Any], Any]] = {
    "gzip": lambda file: gzip.GzipFile(fileobj=file),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}
_UNPACKERS = {"gzip": "gunzip", "bzip2": "bunzip2", "xz": "unxz"}


def _look(path: str, head: bytes, container: str = "") -> None:
    """Raises ``Misnamed`` for a table in another container, and what ``recognise.refuse`` does."""
    found = recognise.table(head)
    if found and found != container:
        raise Misnamed(found)
    if not found:
        recognise.refuse(path, head, is_text=not container)


def lines(file: Any, longest: int) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line with its end) of a file, without a byte order mark.

    Of a line of over ``longest`` bytes come some more than that, and the rest is dropped.
    """
    number, begun = 1, b""
    while chunk := file.read(_CHUNK):
        *whole, last = chunk.split(b"\n")
        for line in whole:
            yield number, _marked(begun + line + b"\n", number)
            number, begun = number + 1, b""
        begun = (begun + last)[: longest + 1]
    if begun:
        yield number, _marked(begun, number)


def _marked(line: bytes, number: int) -> bytes:
    return line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


@contextlib.contextmanager
def one_line(path: str) -> Generator[None]:
    """What goes wrong with a file, as an error of one line."""
    try:
        yield
    except (UserError, Misnamed, UnicodeDecodeError):
        raise
    except FileNotFoundError:  # the message of a bucket's library does not say so
        raise UserError(f"{path}: cannot read: No such file or directory.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror or message(error)}.") from None
    except Exception as error:
        if "://" not in path:
            raise
        # Each backend of epath has errors of its own.
        need = " Install tensorflow-cpu or gcsfs." if isinstance(error, ImportError) else ""
        raise UserError(f"{path}: cannot read: {message(error)}.{need}") from None


def message(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


@contextlib.contextmanager
def on_disk(path: str, container: str) -> Generator[str]:
    """A name under which libraries that jump about in a file can open it.

    What lies in a bucket is copied to a temporary file, which is gone at the end.

    Raises:
      Misnamed: it is a table in another container than ``container``.
    """
    if "://" not in path:
        with open(path, "rb") as file:  # libraries say less clearly that there is no such file
            _look_packed(path, _exactly(file, recognise.HEAD), container)
        yield path
        return
    with tempfile.NamedTemporaryFile() as copy, epath.Path(path).open("rb") as remote:
        while chunk := remote.read(_CHUNK):
            copy.write(chunk)
        copy.flush()
        copy.seek(0)
        _look_packed(path, copy.read(recognise.HEAD), container)
        yield copy.name


def _look_packed(path: str, head: bytes, container: str) -> None:
    if packed := recognise.packed(head):
        remedy = f"Unpack it with {_UNPACKERS[packed]}."
        raise UserError(f"{path}: compressed with {packed} as a whole. {remedy}")
    _look(path, head, container)
