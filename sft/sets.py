"""From the configuration to the sets: rows read, split, augmented, tokenised, cut to length.

Training is the only set that weights, augmentation, the over-long policy and ``data.max_length``
touch. Validation and test are what the files say, whatever is tuned.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sft.data import audit, augment, chat, examples, fit, records, splits
from sft.data.tokenizer import Tokenizer
from sft.errors import UserError
from sft.model.specs import Spec
from sft.workdir import read_json, write_json

NAMES = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Split:
    """One set, ready.

    Attributes:
      files: as configured.
      records: everything that was read, with what was rejected and why.
      encoded: ids and kinds of ``records.conversations``, in their order.
      kept: int64 indices into ``records.conversations`` of what the policy for long rows keeps.
      examples: ids and kinds of the kept ones, cut where the policy says so.
      fit: what that policy did; ``None`` where none applies.
      augmented: copies made and copies left out as unchanged, or ``None``.
      passes: over the rows of each source in an epoch of training.
    """

    files: list[str]
    records: records.Records
    encoded: examples.Examples
    kept: np.ndarray
    examples: examples.Examples
    fit: dict[str, Any] | None
    augmented: dict[str, int] | None
    passes: dict[str, float]

    @property
    def conversations(self) -> list[records.Conversation]:
        """The kept ones, one for each of ``examples``."""
        return [self.records.conversations[i] for i in self.kept]

    @property
    def report(self) -> dict[str, Any]:
        """Counts for ``data/report.json``."""
        kept = dataclasses.replace(self.records, conversations=self.conversations)
        counts = audit.count(self.files, kept, self.examples, self.fit, self.passes)
        counts["content"] = self.content
        return counts | ({"augmented": self.augmented} if self.augmented else {})

    @functools.cached_property
    def content(self) -> str:
        """Twelve hex digits that change when any id or any trained position does."""
        digest = hashlib.sha256()
        for array in (self.examples.starts, self.examples.tokens, self.examples.kinds):
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()[:12]


def load(config: ConfigDict, names: Sequence[str], spec: Spec, tok: Tokenizer) -> dict[str, Split]:
    """The sets of these names, in order.

    Raises:
      UserError: one is not configured, missing, malformed, or longer than allowed; names the file
        and line, or the key.
    """
    found = _records(config, names)
    return {name: _split(config, name, found[name], spec, tok) for name in names}


def production(config: ConfigDict) -> records.Records | None:
    """The sample of production prompts, or ``None`` where ``data.production`` is not set."""
    if not config.data.production:
        return None
    ungrouped = {"group": "", "group_regex": "", "category": ""}  # production knows no such columns
    sources = [
        dataclasses.replace(source, reading=dataclasses.replace(source.reading, **ungrouped))
        for source in _sources(config, "production")
    ]
    return records.read(sources, config.data.max_rejected, answers=False)


def tests(config: ConfigDict, spec: Spec, tok: Tokenizer) -> dict[str, Split]:
    """The test sets: each file or source of ``config.data.test`` is one, under a short name.

    Raises:
      UserError: as ``load``, or two of the same short name.
    """
    if config.data.split.test:
        return load(config, ["test"], spec, tok)
    listed = [name.strip() for name in config.data.test.split(",")]
    labels = [Path(name).name.split(".")[0] for name in listed]
    found = {}
    for name, label in zip(listed, labels, strict=True):
        if labels.count(label) > 1:
            raise UserError(
                f"config.data.test: {name}: more than one file is called {label!r}, and results "
                f"are kept by that name. Rename one."
            )
        part = config.copy_and_resolve_references()
        part.data.test = name
        found |= {label: load(part, ["test"], spec, tok)["test"]}
    return found


def told_apart(tests: dict[str, Split]) -> dict[str, Split]:
    """A test file may be called train or validation; in a report these names are taken."""
    taken = ("train", "validation")
    return {f"test {name}" if name in taken else name: split for name, split in tests.items()}


def everything(config: ConfigDict, spec: Spec, tok: Tokenizer) -> dict[str, Split]:
    """Every set that the configuration gives or cuts from training rows, by name.

    Raises:
      UserError: as ``tests``, or there is none.
    """
    data = config.data
    names = [name for name in NAMES if data[name] or data.split.get(name)]
    if not names:
        raise UserError("config.data.train, validation and test are all empty: nothing to read.")
    if data.split.test or not data.test:
        return load(config, names, spec, tok)
    return load(config, names[:-1], spec, tok) | told_apart(tests(config, spec, tok))


def chat_format(config: ConfigDict, spec: Spec) -> str:
    """The format of the turns: ``config.data.chat``, or the model's own."""
    return config.data.chat or spec.family


def weights(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """For ``plan_training``: the source of each example, int ``[n]``, and each source's passes."""
    index = {name: i for i, name in enumerate(split.passes)}
    origins = np.array([index[c.origin] for c in split.conversations], np.int64)
    return origins, np.array(list(split.passes.values()))


def write_report(workdir: Path, splits: dict[str, Split]) -> None:
    """Adds the counts of these sets to ``data/report.json``.

    What ``sft data`` found out about a set that has not changed since stays there.
    """
    path = workdir / "data" / "report.json"
    report = read_json(path) if path.exists() else {}
    known = report.get("sets", {})
    for name, split in splits.items():
        ours = split.report
        if known.get(name, {}).get("content") != ours["content"]:
            known[name] = ours
            for stale in ("skew", "labels", "warnings"):
                report.pop(stale, None)
    write_json(path, report | {"sets": known})


def _records(config: ConfigDict, names: Sequence[str]) -> dict[str, records.Records]:
    """Every set is read once; those cut from the training rows come out of one split."""
    found = {}
    shares = {name: float(share) for name, share in config.data.split.items() if name in NAMES}
    shares = {name: share for name, share in shares.items() if share}
    if "train" in names or any(name in shares for name in names):
        found["train"] = _read(config, "train")
    if shares:
        whole, cut = found["train"], config.data.split
        parts = splits.assign(whole.conversations, shares, cut.seed, cut.stratify)
        for name, indices in parts.items():
            rows = [whole.conversations[i] for i in indices]
            # What was rejected is told once, with the training rows.
            found[name] = (
                dataclasses.replace(whole, conversations=rows)
                if name == "train"
                else records.Records(rows, [], {}, {}, {}, {})
            )
    for name in names:
        if name not in found:
            found[name] = _read(config, name)
    return found


def _read(config: ConfigDict, name: str) -> records.Records:
    return records.read(_sources(config, name), config.data.max_rejected)


def _sources(config: ConfigDict, name: str) -> list[records.Source]:
    """What ``config.data.<name>`` lists: names of ``data.sources``, or files.

    Raises:
      UserError: nothing is listed.
    """
    listed = [part.strip() for part in config.data[name].split(",")]
    if not any(listed):
        raise UserError(
            f"config.data.{name} is not set. Give the path of a file (JSONL, JSON, CSV, TSV, "
            "Parquet or ArrayRecord), or the name of one of config.data.sources."
        )
    if not all(listed):
        raise UserError(
            f"config.data.{name} = {config.data[name]!r}: a name between commas is empty."
        )
    usual = dict(config.data.reading)
    found = []
    for part in listed:
        given = dict(config.data.sources[part]) if part in config.data.sources else {"path": part}
        path = given.pop("path")
        found.append(records.Source(part, path, records.Reading(**usual | given)))
    return found


def _split(
    config: ConfigDict, name: str, found: records.Records, spec: Spec, tok: Tokenizer
) -> Split:
    data, augmented = config.data, None
    if name == "train" and data.augment.copies:
        found, augmented = _augment(config, found)
    encoded = examples.encode_all(
        found.conversations,
        tok,
        chat_format(config, spec),
        data.train_on if name == "train" else data.eval_on,
        workers=data.workers,
        cache=data.cache,
    )
    kept, fitted, outcome, passes = np.arange(len(encoded)), encoded, None, {}
    if name == "train":
        where = [conversation.source for conversation in found.conversations]
        fitted, kept, outcome = fit.fit(
            encoded, data.max_length, data.over_long, data.max_over_long, where
        )
        passes = {source.name: source.reading.weight for source in _sources(config, name)}
    files = (
        [part.strip() for part in data[name].split(",")]
        if data[name]
        else [f"{data.split[name]:.1%} of {data.train}"]
    )
    return Split(files, found, encoded, kept, fitted, outcome, augmented, passes)


def _augment(config: ConfigDict, found: records.Records) -> tuple[records.Records, dict[str, int]]:
    given = config.data.augment
    options = augment.Options(
        copies=given.copies,
        casing=given.casing,
        whitespace=given.whitespace,
        punctuation=given.punctuation,
        templates=augment.load_templates(given.templates) if given.templates else (),
    )
    made = augment.augment(found.conversations, options, config.seed)
    return (
        dataclasses.replace(found, conversations=made.conversations),
        {"made": made.made, "unchanged": made.unchanged},
    )


def prompts(
    config: ConfigDict, spec: Spec, tok: Tokenizer, conversations: Sequence[records.Conversation]
) -> list[np.ndarray]:
    """What serving would send for each conversation, int32 ids."""
    form = chat_format(config, spec)
    return [chat.encode_prompt(conversation, tok, form) for conversation in conversations]
