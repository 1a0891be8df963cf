"""Files as bytes, local or in a bucket, with every failure as an error of one line.

Of an open file only ``read(size)`` is used: the backends of epath have little else in common.
"""

import contextlib
import gzip
import re
import tempfile
import zlib
from collections.abc import Generator, Iterator
from typing import Any

from etils import epath

from sft.errors import UserError

_CHUNK = 2**20  # bytes read at a time


def expand(paths: str) -> list[str]:
    """Files of ``paths``, which are joined by commas; those of a glob are sorted by name.

    Raises:
      UserError: an empty path, or a glob that matches nothing.
    """
    found = []
    for path in [part.strip() for part in paths.split(",")]:
        if not path:
            raise UserError(f"data: an empty path in {paths!r}. Expected paths joined by commas.")
        found += _matches(path) if re.search(r"[*?\[]", path) else [path]
    return found


def _matches(pattern: str) -> list[str]:
    parts = pattern.split("/")
    first = next(i for i, part in enumerate(parts) if re.search(r"[*?\[]", part))
    folder = "/".join(parts[:first]) + "/" if first else "."
    with one_line(pattern):
        if epath.Path(pattern).exists():  # a file whose name has brackets
            return [pattern]
        if "**" in pattern:
            raise UserError(f"{pattern}: ** would walk whole trees. Write one * per folder.")
        found = sorted(str(p) for p in epath.Path(folder).glob("/".join(parts[first:])))
    if not found:
        raise UserError(f"{pattern}: no file matches. Looked in {folder}; check the path.")
    return found


@contextlib.contextmanager
def open_bytes(path: str) -> Generator[Any]:
    """The file, unpacked if it is ``.gz``. What goes wrong until its end is a ``UserError``."""
    with one_line(path), epath.Path(path).open("rb") as raw:
        yield gzip.GzipFile(fileobj=raw) if path.endswith(".gz") else raw


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
    except UserError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged gzip file: {error}.") from None
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
def on_disk(path: str) -> Generator[str]:
    """A name under which libraries that jump about in a file can open it.

    What lies in a bucket is copied to a temporary file, which is gone at the end.
    """
    if "://" not in path:
        with open(path, "rb"):  # libraries say less clearly that there is no such file
            yield path
        return
    with tempfile.NamedTemporaryFile() as copy, epath.Path(path).open("rb") as remote:
        while chunk := remote.read(_CHUNK):
            copy.write(chunk)
        copy.flush()
        yield copy.name
