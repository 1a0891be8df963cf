"""From the configuration to the sets: rows read, split and tokenised.

What is done to training rows alone is in ``sft.data.sets.training``; validation and test are what
the files say, whatever is tuned.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sft.data import audit
from sft.data.batches import examples
from sft.data.chat import encoding
from sft.data.dedup import near, plan
from sft.data.read import records
from sft.data.sets import sources
from sft.data.tokenizer.sentencepiece import Tokenizer
from sft.errors import UserError
from sft.model.specs import Spec
from sft.run.directory import read_json, write_json

NAMES = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Split:
    """One set, ready.

    Attributes:
      files: as configured.
      records: what deduplication leaves, with copies by augmentation, and what was rejected.
      encoded: ids and kinds of ``records.conversations``, in their order.
      kept: int64 indices into ``records.conversations`` of what the policy for long rows keeps.
      examples: ids and kinds of the kept ones, cut where the policy says so.
      fit: what that policy did; ``None`` where none applies.
      augmented: copies made and copies left out as unchanged, or ``None``.
      passes: over the rows of each source in an epoch of training.
      plan: of deduplication, and what it was made from; ``None`` for other sets than training.
    """

    files: list[str]
    records: records.Records
    encoded: examples.Examples
    kept: np.ndarray
    examples: examples.Examples
    fit: dict[str, Any] | None
    augmented: dict[str, int] | None
    passes: dict[str, float]
    plan: "Planned | None" = None

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


@dataclasses.dataclass(frozen=True)
class Planned:
    """A plan of deduplication, the training rows it is for, and the sets it compared them with."""

    plan: plan.Plan
    conversations: list[records.Conversation]
    encoded: examples.Examples
    evaluation: dict[str, tuple[list[records.Conversation], examples.Examples]]


class Sets:
    """The sets of a configuration, each of which is read and tokenised once."""

    def __init__(self, config: ConfigDict, spec: Spec, tokenizer: Tokenizer):
        self.config, self.spec, self.tokenizer = config, spec, tokenizer
        self._rows: dict[str, records.Records] = {}
        self._splits: dict[str, Split] = {}
        self._tests: dict[str, Split] = {}

    def rows(self, names: Sequence[str]) -> dict[str, records.Records]:
        """The rows of these sets as they were read, those cut from the training rows apart.

        Raises:
          UserError: as ``sources.read``.
        """
        missing = [name for name in names if name not in self._rows]
        if missing:
            together = clusters(self.config, self.spec, self.tokenizer)
            self._rows |= sources.read(self.config, missing, together)
        return {name: self._rows[name] for name in names}

    def load(self, names: Sequence[str]) -> dict[str, Split]:
        """The sets of these names, in order, training as it was read.

        Raises:
          UserError: one is not configured, missing, malformed, or longer than allowed; names the
            file and line, or the key.
        """
        for name, found in self.rows(names).items():
            if name not in self._splits:
                self._splits[name] = _split(self.config, name, found, self.spec, self.tokenizer)
        return {name: self._splits[name] for name in names}

    def tests(self) -> dict[str, Split]:
        """The test sets: each file or source of ``config.data.test`` is one, by a short name.

        Raises:
          UserError: as ``load``, or two of the same short name.
        """
        if self.config.data.split.test:
            return self.load(["test"])
        if not self._tests:
            self._tests = self._listed_tests()
        return dict(self._tests)

    def _listed_tests(self) -> dict[str, Split]:
        listed = [name.strip() for name in self.config.data.test.split(",")]
        labels = [Path(name).name.split(".")[0] for name in listed]
        found = {}
        for name, label in zip(listed, labels, strict=True):
            if labels.count(label) > 1:
                raise UserError(
                    f"config.data.test: {name}: more than one file is called {label!r}, and "
                    "results are kept by that name. Rename one."
                )
            part = self.config.copy_and_resolve_references()
            part.data.test = name
            found[label] = Sets(part, self.spec, self.tokenizer).load(["test"])["test"]
        return found


def told_apart(tests: dict[str, Split]) -> dict[str, Split]:
    """A test file may be called train or validation; in a report these names are taken."""
    taken = ("train", "validation")
    return {f"test {name}" if name in taken else name: split for name, split in tests.items()}


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
            report = {}  # what was found out about all sets together holds no longer
    write_json(path, report | {"sets": known})


def clusters(config: ConfigDict, spec: Spec, tok: Tokenizer) -> sources.Clusters | None:
    """Near-duplicates, where they are looked for, must not lie on both sides of a split."""
    if not config.data.dedup.near:
        return None
    options = near.Options(jaccard=config.data.dedup.near)
    return lambda rows: near.find(encode(config, "train", rows, spec, tok), options, together=True)


def encode(
    config: ConfigDict,
    name: str,
    conversations: Sequence[records.Conversation],
    spec: Spec,
    tok: Tokenizer,
) -> examples.Examples:
    data = config.data
    train_on = data.train_on if name == "train" else data.eval_on
    form = chat_format(config, spec)
    return examples.encode_all(
        conversations, tok, form, train_on, workers=data.workers, cache=data.cache
    )


def encode_answers(
    config: ConfigDict, spec: Spec, tok: Tokenizer, conversations: Sequence[records.Conversation]
) -> examples.Examples:
    """With loss on the last answer alone, whatever comes before it."""
    form = chat_format(config, spec)
    return examples.encode_all(conversations, tok, form, "last", workers=config.data.workers)


def _split(
    config: ConfigDict, name: str, found: records.Records, spec: Spec, tok: Tokenizer
) -> Split:
    encoded = encode(config, name, found.conversations, spec, tok)
    data = config.data
    cut = data.split.get(name)
    files = [f"{cut:.1%} of {data.train}"] if cut else [f.strip() for f in data[name].split(",")]
    passes = {}
    if name == "train":
        passes = {source.name: source.reading.weight for source in sources.listed(config, name)}
    return Split(files, found, encoded, np.arange(len(encoded)), encoded, None, None, passes)


def prompts(
    config: ConfigDict, spec: Spec, tok: Tokenizer, conversations: Sequence[records.Conversation]
) -> list[np.ndarray]:
    """What serving would send for each conversation, int32 ids."""
    form = chat_format(config, spec)
    return [encoding.encode_prompt(conversation, tok, form) for conversation in conversations]
