"""Names of files as the configuration lists them: globs, ``~``, endings, folders, addresses."""

import itertools
import os
import re
import shlex

from etils import epath

from sft.data.read.opening import one_line
from sft.errors import UserError

ENDINGS = {  # of a file's name → the container that its rows are read from
    **{"jsonl": "jsonl", "ndjson": "jsonl", "json": "json", "csv": "csv", "tsv": "tsv"},
    **{"parquet": "parquet", "arrow": "arrow", "array_record": "arrayrecord"},
    "arrayrecord": "arrayrecord",
}
_UNPACKERS = {"gz": "gunzip", "bz2": "bunzip2", "xz": "unxz"}
_PACKED = r"(?:\.(?:gz|bz2|xz))?"
_ENDING = re.compile(
    rf"\.({'|'.join(ENDINGS)}){_PACKED}(-\d{{5}}-of-\d{{5}})?{_PACKED}$", re.IGNORECASE
)
_GLOB = re.compile(r"[*?\[]")
_ADDRESS = re.compile(r"([A-Za-z][\w+.-]*)://(.*)", re.DOTALL)
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_OTHERS = ("dataset_info.json", "dataset_dict.json", "state.json")  # beside what datasets saves
_DEPTH, _LOOKED_AT, _SHOWN = 3, 1000, 3  # levels of a folder, files of a level; globs shown


def expand(paths: str) -> list[str]:
    """Files of ``paths``, which are joined by commas; those of a glob are sorted by name.

    Raises:
      UserError: an empty path, a folder, an address that cannot be read, or a glob that matches
        nothing.
    """
    found = []
    for path in [part.strip() for part in paths.split(",")]:
        if not path:
            raise UserError(f"data: an empty path in {paths!r}. Expected paths joined by commas.")
        path = _address(path)
        found += _matches(path) if _GLOB.search(path) else [path]
    for path in found:
        _check(path)
    return found


def single(path: str) -> str:
    """The path of one file, without ``~``.

    Raises:
      UserError: an address that cannot be read, or a folder.
    """
    path = _address(path)
    if "://" not in path and os.path.isdir(path):
        raise UserError(f"{path}: a folder, expected a file.")
    return path


def container(path: str) -> str:
    """The container that a name says, ``""`` where it says none. Cases do not matter."""
    found = _ENDING.search(path)
    return ENDINGS[found[1].lower()] if found else ""


def unpacker(path: str) -> str:
    """The program that unpacks a file of this name, ``""`` where it does not say so."""
    return _UNPACKERS.get(path.rsplit(".", 1)[-1].lower(), "")


def folder(path: str) -> UserError:
    """The error that ``path`` is a folder, with globs of what is inside."""
    globs: dict[str, None] = {}
    for depth in range(1, _DEPTH + 1):
        inside = epath.Path(path).glob("/".join("*" * depth))
        for file in sorted(map(str, itertools.islice(inside, _LOOKED_AT))):
            parent, name = file.rsplit("/", 1)
            if name not in _OTHERS and (found := _ENDING.search(name)):
                globs[f"{parent}/*{re.sub('[0-9]{5}', '*', found[0])}"] = None
        if globs:
            listed = ",".join([*globs][:_SHOWN])
            return UserError(f"{path}: a folder. Name the files in it, as in {listed}")
    return UserError(f"{path}: a folder, and no file in it has an ending of rows. Name files.")


def _address(path: str) -> str:
    """The path, which is local, then without ``~``, or in a bucket.

    Raises:
      UserError: it is at another kind of address.
    """
    if "\0" in path:
        raise UserError(f"{path!a}: a zero character in a path. Remove it.")
    address = _ADDRESS.match(path)
    if not address:
        return os.path.expanduser(path)
    scheme, rest = address[1].lower(), address[2]
    if path.startswith("gs://") and rest.partition("/")[0] and rest.partition("/")[2]:
        return path
    remedy = "Expected a local path, or gs://BUCKET/NAME."
    if scheme == "hf":
        name = "/".join(rest.removeprefix("datasets/").split("/")[:2])
        remedy = f"If it is a dataset, {_download(name)}"
    elif scheme in ("http", "https", "ftp"):
        remedy = f"Download it first: curl -LO {shlex.quote(path)}, and give the file's path."
    elif scheme == "file":
        remedy = f"Write the path alone: {rest}."
    elif scheme != "gs":
        remedy = "Copy it to this machine or to gs:// first, and give that path."
    raise UserError(f"{path}: {scheme}:// cannot be read. {remedy}")


def _download(name: str) -> str:
    return (
        f"download it first: hf download --repo-type dataset {name} --local-dir DIR, and give the "
        "paths of its files."
    )


def _check(path: str) -> None:
    """Raises a ``UserError`` for a folder, and for a repository's name."""
    if "://" in path:
        if not container(path):
            with one_line(path):
                if epath.Path(path).is_dir():
                    raise folder(path.rstrip("/"))
    elif os.path.isdir(path):
        raise folder(path.rstrip("/") or "/")
    elif _REPOSITORY.fullmatch(path) and not container(path) and not os.path.exists(path):
        raise UserError(
            f"{path}: cannot read: No such file or directory. If it is a dataset of the Hugging "
            f"Face Hub, {_download(path)}"
        )


def _matches(pattern: str) -> list[str]:
    if "**" in pattern:
        raise UserError(f"{pattern}: ** would walk whole trees. Write one * per folder.")
    parts = pattern.split("/")
    first = next(i for i, part in enumerate(parts) if _GLOB.search(part))
    inside = "/".join(parts[:first]) + "/" if first else "."
    with one_line(pattern):
        if epath.Path(pattern).exists():  # a file whose name has brackets
            return [pattern]
        found = sorted(str(p) for p in epath.Path(inside).glob("/".join(parts[first:])))
    if not found:
        raise UserError(f"{pattern}: no file matches. Looked in {inside}; check the path.")
    return found
