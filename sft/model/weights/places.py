"""What a path in the configuration stands for: a file or folder here, or one in a bucket."""

import difflib
import functools
import importlib.util
import os
import pathlib
import re
import types
from pathlib import Path
from typing import Any, cast

from etils import epath

from sft.errors import UserError
from sft.model.specs import SPECS
from sft.model.weights import package
from sft.run import bucket

_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_GEMMA = re.compile(r"gemma-\w.*", re.IGNORECASE)  # as on Hugging Face: gemma-3-1b-it
_OFFICIAL = re.compile(r"GEMMA\d\w*")


def resolve(path: str, sha256: str = "", setting: str = "config.model.weights") -> Path:
    """The file or folder that ``path`` stands for, of weights, a tokenizer or adapters.

    ``package:NAME`` becomes a file in the cache (see ``package.unpack``); a checkpoint name of the
    ``gemma`` package becomes its ``gs://`` directory. A path in a bucket is one of epath, which has
    the methods of ``Path`` but ``rglob``; it is returned unchecked: opening it tells.

    Args:
      sha256: expected digest of a file; ``""`` = not checked.
      setting: which setting the path is from, for messages.

    Raises:
      UserError: nothing there, a place that cannot be read from, or a digest other than ``sha256``.
    """
    if not path:
        raise UserError(f"{setting} = '': expected the path of {setting.rpartition('.')[2]}.")
    if path.startswith("package:"):
        found = package.unpack(path.removeprefix("package:"))
    elif _OFFICIAL.fullmatch(path) and not os.path.exists(path):
        found = cast(Path, epath.Path(official(path)))
    elif bucket.holds(path):
        found = cast(Path, epath.Path(path.rstrip("/")))
    else:
        found = Path(os.path.expanduser(path))
    if is_remote(found):
        if sha256:
            raise UserError(
                f"config.model.sha256: cannot be checked for {found}. Copy it to a local disk, or "
                "set config.model.sha256 = ''."
            )
        return found
    if not found.exists():
        raise UserError(_missing(path, setting))
    if sha256:
        _verify(found, sha256)
    return found


def exists(path: str) -> bool:
    """Whether something is there; of a bucket that is not asked."""
    return is_remote(path) or os.path.exists(os.path.expanduser(path))


def is_remote(path: str | os.PathLike) -> bool:
    """True for ``gs://…``."""
    return bucket.holds(os.fspath(path))


def official(name: str) -> str:
    """The ``gs://`` directory of ``gemma.gm.ckpts.CheckpointPath[name]``.

    Raises:
      UserError: no such checkpoint, or one of a model that is not supported.
    """
    known = _table().CheckpointPath.__members__
    if name in known and official_model(name):
        return str(known[name].value)
    names = [other for other in known if official_model(other)]
    what = "a checkpoint of a model that is not supported" if name in known else (
        "no such file, and no such gemma checkpoint")  # fmt: skip
    raise UserError(f"{name}: {what}. Known: {', '.join(names)}.")


def official_model(name: str) -> str | None:
    """``gemma3_1b`` for ``GEMMA3_1B_IT``: the row of the model table a checkpoint name is of."""
    found = re.fullmatch(r"(GEMMA\d\w*_\w+)_(IT|PT)", name)
    return found[1].lower() if found and found[1].lower() in SPECS else None


@functools.cache
def _table() -> types.ModuleType:
    """The file with the table of checkpoints: importing ``gemma.gm`` takes many seconds."""
    found = importlib.util.find_spec("gemma")
    if found is None or not found.submodule_search_locations:
        raise UserError(
            "config.model.weights: names of checkpoints need the gemma package: uv sync."
        )
    file = pathlib.Path(found.submodule_search_locations[0], "gm/ckpts/_paths.py")
    table = importlib.util.spec_from_file_location("_gemma_paths", file)
    assert table is not None and table.loader is not None
    module = importlib.util.module_from_spec(table)
    table.loader.exec_module(module)
    return module


def _missing(path: str, setting: str) -> str:
    """What to say of a path where nothing is."""
    scheme, separator, rest = path.partition("://")
    hub = re.fullmatch(r"(?:www\.)?huggingface\.co/([^/]+/[^/]+).*", rest)
    if scheme == "hf" or hub:
        return _on_hub(path, hub[1] if hub else "/".join(rest.split("/")[:2]), setting)
    if scheme == "file":
        return f"{path}: expected a plain path. Set {setting} = {rest!r}."
    if separator or path.startswith("kaggle:"):
        how = _HOW.get(path.partition(":")[0], "Copy it to a local disk")
        return (
            f"{path}: not read from there, expected a local path or gs://BUCKET/PATH. {how} and "
            f"set {setting} to where it then is."
        )
    if _HUB.fullmatch(path) and not path.startswith(".") and not Path(path).parent.exists():
        return _on_hub(path, path, setting)
    if _GEMMA.fullmatch(path):
        return _on_hub(path, f"google/{path.lower()}", setting)
    if path in SPECS:
        return (
            f"{path}: the name of a model, which is config.model.name. {setting} is where its "
            "files are."
        )
    packages = [f"package:{name}" for name in package.PACKAGES]
    return (
        f"{path}: no such file or directory (from {os.getcwd()}).{_nearest(path)} Expected a local "
        f"path, gs://…, a gemma checkpoint name, or one of {packages}."
    )


_HOW = {
    "s3": "Copy it, `aws s3 cp --recursive`,",
    "http": "Download it, `curl -LO`,",
    "https": "Download it, `curl -LO`,",
    "kaggle": "Download it, `kagglehub.model_download(NAME)` in Python,",
}


def _on_hub(path: str, name: str, setting: str) -> str:
    return (
        f"{path}: a name on Hugging Face, from where nothing is downloaded, and no such path here. "
        f"Download it (`pip install huggingface_hub`, `hf download {name} --local-dir DIR`) and "
        f"set {setting} = DIR."
    )


def _nearest(path: str) -> str:
    """The checkpoint name that was meant, in other letters or with a slip in it."""
    if "/" in path or not path.upper().startswith("GEMMA"):
        return ""
    names = [name for name in _table().CheckpointPath.__members__ if official_model(name)]
    near = difflib.get_close_matches(path.upper().replace("-", "_"), names, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _verify(path: Path, expected: str) -> None:
    if path.is_dir():
        raise UserError(
            f"config.model.sha256: {path} is a directory; a digest belongs to a file. Set "
            "config.model.sha256 = ''."
        )
    found = package.digest(path)
    if found != expected.lower():
        raise UserError(
            f"{path}: SHA-256 is {found}, expected {expected}. The file is damaged or another one: "
            "fetch it again, or correct config.model.sha256."
        )


def objects(path: Path) -> list[list[Any]]:
    """Name, bytes and generation of every object in a bucket at or below ``path``.

    Raises:
      UserError: the bucket refuses, or nothing is there.
    """
    import fsspec

    try:
        found = fsspec.filesystem("gcs").find(str(path), detail=True)
    except Exception as error:
        said = bucket.said(error)
        if said is None:
            raise
        raise UserError(f"{path}: cannot be listed ({said}).") from None
    return [
        [f"{bucket.SCHEME}{name}", about["size"], about.get("generation") or str(about["mtime"])]
        for name, about in sorted(found.items())
    ]
