"""Directories in a bucket, ``gs://bucket/run``: which paths those are, and what their errors say.

Files there are written whole (an object appears complete or not at all) through etils' epath and
gcsfs, checkpoints by Orbax through TensorStore, and the lock by Google's own client. Each of them
tries again by itself what a bucket refuses for a while (408, 429, 5xx), and each has errors of
its own.
"""

import os
import re
from pathlib import PurePath

SCHEME = "gs://"
_CLIENTS = ("gcsfs.", "google.api_core.", "google.auth.", "google.cloud.", "aiohttp.", "requests.")
_BARE = (OSError, FileNotFoundError, FileExistsError)
_TENSORSTORE = re.compile(r"gs://|storage/v1/|GCS|http request", re.IGNORECASE)


def holds(path: str | PurePath) -> bool:
    """Whether the path is of a bucket."""
    return os.fspath(path).startswith(SCHEME)


def said(error: BaseException) -> str | None:
    """What the client of a bucket complains of, on one line; ``None`` where it is no such error."""
    seen: BaseException | None = error
    while seen is not None:
        text = " ".join(str(seen).split())
        # gcsfs raises OSErrors without a number, which the operating system never does.
        bare = isinstance(seen, OSError) and seen.errno is None and type(seen) in _BARE
        if f"{type(seen).__module__}.".startswith(_CLIENTS) or bare or _TENSORSTORE.search(text):
            return _clear(text, type(seen).__name__)
        seen = seen.__cause__
    return None


def _clear(text: str, name: str) -> str:
    short = re.sub(r"https?://\S+?/storage/v1/", "", text)[:300].rstrip(" .") or name
    if name == "FileNotFoundError":
        return f"no such bucket or object: {short}"
    if re.search(r"\b40[13]\b|forbidden|permission|credential", short, re.IGNORECASE):
        return (
            f"{short}. Its service account needs to list, read, write and delete objects there "
            "(roles/storage.objectUser) and to see the bucket (roles/storage.legacyBucketReader)"
        )
    return short
