"""Settings as strangers may see them: paths without the folders, users and buckets in them."""

import re
from collections.abc import Mapping
from typing import Any

# Where a text is what the user wrote for the model, or a name in the data; elsewhere a slash is of
# a path.
_TEXTS = re.compile(
    r"data\.reading\..*|data\.sources\..*\.(?!path$)\w+|lora\.targets|eval\.(?:pattern|stop|labels)"
)
# What changes no number, and may name machines and accounts.
_PRIVATE = (
    *("judge.", "mine.", "data.cache", "data.workers", "data.dedup.beam", "data.dedup.memory"),
    *("train.compilation_cache", "train.log_every", "eval.cache"),
)
# The folders of an absolute path, a home's or an address.
_ROOTED = re.compile(r"(?<![\w./\\~:])(?:[a-z]\w+:/|~\w*)?/(?:[^\s,;()'\"/]+/)*(?=[^\s/])")


def settings(changed: list[tuple[str, Any, Any]]) -> list[tuple[str, Any, Any]]:
    """Those of ``(key, value, default)`` that could change a number, as they may be shown."""
    return [
        (key, value if _TEXTS.fullmatch(key) else file_names(value), default)
        for key, value, default in changed
        if not key.startswith(_PRIVATE)
    ]


def file_names(value: Any) -> Any:
    """Paths, joined by commas, without what is before their last names; ``5% of`` may lead."""
    if not isinstance(value, str):
        return value
    share, of, paths = value.rpartition("% of ")
    return share + of + ",".join(map(_last, paths.split(",")))


def _last(path: str) -> str:
    return re.split(r"[/\\]", path.strip().rstrip("/\\"))[-1]


def sentence(text: str, config: Mapping[str, Any]) -> str:
    """Prose in which paths may stand: those of the configuration, and all that start at a root.

    Args:
      config: of the run, flattened.
    """
    paths = [
        path.strip()
        for key, value in config.items()
        if isinstance(value, str) and not _TEXTS.fullmatch(key)
        for path in value.split(",")
        if re.search(r"[/\\]", path)
    ]
    for path in sorted(paths, key=len, reverse=True):
        text = text.replace(path, _last(path))
    return _ROOTED.sub("", text)
