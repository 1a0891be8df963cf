"""The metadata of GGUF files, tensors untouched; and files of tokenizers, opened or refused."""

import contextlib
import struct
from collections.abc import Generator
from typing import Any, BinaryIO, cast

from etils import epath

from sft.errors import UserError
from sft.run import bucket


def gguf_metadata(path: str) -> dict[str, Any]:
    """Key to value of a GGUF file (version 2 or 3, little-endian), tensors untouched.

    ``gguf.GGUFReader`` makes numpy views of each of the 262,144 strings and takes 10 s and 0.7 GB
    for it; this takes a quarter of a second. Layout: the GGUF specification in the ggml repository.

    Raises:
      UserError: missing file, not GGUF, or cut short.
    """
    with open_file(path) as file:
        try:
            magic, version, _, count = struct.unpack("<4sIQQ", _exactly(file, 24))
            if magic != b"GGUF" or version not in (2, 3):
                raise ValueError(f"starts with {magic!r}, version {version}")
            return {_string(file): _value(file, *_unpack(file, "I")) for _ in range(count)}
        except (ValueError, struct.error, RecursionError) as error:
            raise UserError(f"{path}: not a readable GGUF file: {line(error)}.") from None


_SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}  # GGUF type to struct code
_STRING, _ARRAY = 8, 9
_LARGEST = 2**28  # bytes; a longer value means a corrupt length, not a vocabulary


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _unpack(file, _scalar(kind))[0]
    item, count = _unpack(file, "IQ")
    if item in (_STRING, _ARRAY):
        return [_value(file, item) for _ in range(count)]
    return list(_unpack(file, f"{count}{_scalar(item)}"))


def _scalar(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"unknown value type {kind}")
    return _SCALARS[kind]


def _string(file: BinaryIO) -> str:
    return _exactly(file, *_unpack(file, "Q")).decode()


def _unpack(file: BinaryIO, code: str) -> tuple:
    return struct.unpack(f"<{code}", _exactly(file, struct.calcsize(f"<{code}")))


def _exactly(file: BinaryIO, size: int) -> bytes:
    if size > _LARGEST:
        raise ValueError(f"a metadata value of {size} bytes")
    data = file.read(size)
    if len(data) != size:
        raise ValueError(f"cut short, {size} bytes wanted and {len(data)} left")
    return data


@contextlib.contextmanager
def open_file(path: str) -> Generator[BinaryIO]:
    """A file of a tokenizer, local or in a bucket.

    Raises:
      UserError: it is not there, or the bucket refuses.
    """
    try:
        with epath.Path(path).open("rb") as file:
            yield cast(BinaryIO, file)
    except OSError as error:
        if bucket.holds(path):
            raise _unreachable(path, error) from None
        reason = error.strerror or line(error)
        raise UserError(f"{path}: cannot read the tokenizer: {reason}.") from None
    except Exception as error:
        if not bucket.holds(path) or bucket.said(error) is None:
            raise
        raise _unreachable(path, error) from None


def _unreachable(path: str, error: Exception) -> UserError:
    return UserError(
        f"{path}: cannot read the tokenizer: {bucket.said(error) or line(error)}. Check the path, "
        "the network and your credentials (`gcloud auth application-default login`), or copy it to "
        "a local disk."
    )


def line(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
