"""From the configuration to conversations: which files, and which rows are whose."""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sft.data.dedup import embeddings, graph
from sft.data.read import records
from sft.data.sets import splits
from sft.errors import UserError
from sft.run.progress import phase

Clusters = Callable[[Sequence[records.Conversation]], np.ndarray]


def listed(config: ConfigDict, name: str) -> list[records.Source]:
    """What ``config.data.<name>`` lists: names of ``data.sources``, or files.

    Raises:
      UserError: nothing is listed.
    """
    parts = [part.strip() for part in config.data[name].split(",")]
    if not any(parts):
        raise UserError(
            f"config.data.{name} is not set. Give the path of a file (JSONL, JSON, CSV, TSV, "
            "Parquet, Arrow or ArrayRecord), or the name of one of config.data.sources."
        )
    if not all(parts):
        raise UserError(
            f"config.data.{name} = {config.data[name]!r}: a name between commas is empty."
        )
    usual = dict(config.data.reading)
    found = []
    for part in parts:
        given: dict[str, Any] = {"path": part}
        if part in config.data.sources:
            given = dict(config.data.sources[part]) | {"setting": f"config.data.sources.{part}"}
        elif config.data.sources and re.fullmatch(r"[\w-]+", part) and not os.path.exists(part):
            known = ", ".join(config.data.sources)
            raise UserError(
                f"config.data.{name}: {part!r} is neither a file nor one of config.data.sources: "
                f"{known}. Correct it."
            )
        path = given.pop("path")
        found.append(records.Source(part, path, records.Reading(**usual | given)))
    return found


def production(config: ConfigDict) -> records.Records | None:
    """The sample of production prompts, or ``None`` where ``data.production`` is not set."""
    if not config.data.production:
        return None
    sources = _without(listed(config, "production"), "group", "group_regex", "category")
    return records.read(sources, config.data.max_rejected, answers=False)


def read(
    config: ConfigDict, names: Sequence[str], clusters: Clusters | None = None
) -> dict[str, records.Records]:
    """The sets of these names, those cut from the training rows as one split.

    Args:
      clusters: int64 ``[n]`` for conversations, a number for those that must stay in one set
        besides those of one group.

    Raises:
      UserError: a set is not configured, missing, or malformed; names the file and line.
    """
    shares = {name: float(config.data.split[name]) for name in ("validation", "test")}
    shares = {name: share for name, share in shares.items() if share}
    found = {}
    if "train" in names or any(name in shares for name in names):
        with phase("reading train"):
            train = records.read(listed(config, "train"), config.data.max_rejected)
            found = {"train": _alike(config, train)}
        if shares:
            found = _cut(config, found["train"], shares, clusters)
    for name in names:
        if name not in found:
            # Groups are for splitting training rows: files that are a set already need none.
            sources = _without(listed(config, name), "group", "group_regex")
            with phase(f"reading {name}"):
                found[name] = records.read(sources, config.data.max_rejected, training=False)
    return found


def _alike(config: ConfigDict, train: records.Records) -> records.Records:
    """The rows with their clusters by ``data.dedup.embeddings``; without it, as they are.

    Raises:
      UserError: the file does not have a vector for each row that was read.
    """
    options = config.data.dedup
    if not options.embeddings:
        return train
    count = len(train.conversations) + len(train.rejected)
    vectors = embeddings.read(options.embeddings, count)[train.numbers]
    labels = embeddings.clusters(vectors, options.cosine, source=options.embeddings)
    sizes = np.bincount(labels, minlength=len(labels))
    rows = [
        dataclasses.replace(row, cluster=str(label)) if sizes[label] > 1 else row
        for row, label in zip(train.conversations, labels.tolist(), strict=True)
    ]
    return dataclasses.replace(train, conversations=rows)


def _without(sources: Sequence[records.Source], *columns: str) -> list[records.Source]:
    none = dict.fromkeys(columns, "")
    return [
        dataclasses.replace(source, reading=dataclasses.replace(source.reading, **none))
        for source in sources
    ]


def _cut(
    config: ConfigDict,
    whole: records.Records,
    shares: Mapping[str, float],
    clusters: Clusters | None,
) -> dict[str, records.Records]:
    rows = whole.conversations
    together = grouped(rows, np.arange(len(rows)) if clusters is None else clusters(rows))
    parts = splits.assign(together, shares, config.data.split.seed, config.data.split.stratify)
    chosen = {name: [rows[i] for i in indices] for name, indices in parts.items()}
    # What was rejected is told once, with the training rows.
    return {
        name: dataclasses.replace(whole, conversations=part)
        if name == "train"
        else records.Records(part)
        for name, part in chosen.items()
    }


def grouped(
    rows: Sequence[records.Conversation], clusters: np.ndarray
) -> list[records.Conversation]:
    """The rows with a group for all that hang together by group, embeddings or ``clusters``.

    It is called by what a row of it says, so that the order of the rows does not matter; where
    nothing but groups holds rows together, they keep theirs.
    """
    every = np.arange(len(rows))
    labels = graph.merge(clusters, every, graph.firsts(c.cluster for c in rows))
    if (labels == every).all():
        return [*rows]
    labels = graph.merge(labels, every, graph.firsts(c.group for c in rows))
    names: dict[int, str] = {}
    for row, label in zip(rows, labels.tolist(), strict=True):
        names[label] = min(splits.content(row), names.get(label, "~"))
    return [
        dataclasses.replace(row, group=names[label])
        for row, label in zip(rows, labels.tolist(), strict=True)
    ]
