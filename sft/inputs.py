"""From the configuration to what every command needs: tokenizer, examples, weights."""

import dataclasses
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft.data import audit, chat, records
from sft.data.tokenizer import Tokenizer, from_gguf, load
from sft.errors import UserError
from sft.model.specs import Spec
from sft.types import Tree


@dataclasses.dataclass(frozen=True)
class Split:
    """One set: its conversations and, in the same order, their ids and masks."""

    conversations: list[records.Conversation]
    examples: list[chat.Example]
    report: dict[str, Any]


def tokenizer(config: ConfigDict, spec: Spec) -> Tokenizer:
    """``config.model.tokenizer``, or the one that comes with the weights.

    Raises:
      UserError: neither is there.
    """
    from sft.model import weights

    if config.model.tokenizer:
        path = weights.resolve(config.model.tokenizer)
        return (
            from_gguf(str(path), spec.vocab)
            if path.suffix == ".gguf"
            else load(str(path), spec.vocab)
        )
    path = weights.resolve(config.model.weights)
    if path.suffix == ".gguf":
        return from_gguf(str(path), spec.vocab)
    beside = (path if path.is_dir() else path.parent) / "tokenizer.model"
    if beside.exists():
        return load(str(beside), spec.vocab)
    raise UserError(
        f"config.model.tokenizer is not set and {beside} does not exist. "
        f"Set it to the SentencePiece tokenizer.model of {config.model.name}."
    )


def split(config: ConfigDict, name: str, spec: Spec, tok: Tokenizer) -> Split:
    """The set ``config.data.<name>``, read and tokenised.

    Raises:
      UserError: not configured, missing, or malformed; names file and line.
    """
    paths = config.data[name]
    if not paths:
        raise UserError(f"config.data.{name} is not set. Give the path of a JSONL file.")
    found = records.read(paths)
    examples = [chat.encode(c, tok, spec.family) for c in found.conversations]
    return Split(found.conversations, examples, audit.count(paths, found, examples))


def write_data_report(workdir: Path, splits: dict[str, Split]) -> None:
    """Adds the counts of these sets to ``data/report.json``."""
    from sft.workdir import read_json, write_json

    path = workdir / "data" / "report.json"
    known = read_json(path) if path.exists() else {}
    write_json(path, known | {name: split.report for name, split in splits.items()})


def params(config: ConfigDict, spec: Spec, shardings: Tree) -> Tree:
    """The pretrained weights, placed.

    Raises:
      UserError: missing, damaged, or of another model.
    """
    from sft.model import weights

    return weights.load(
        spec,
        config.model.weights,
        dtype=config.model.dtype,
        shardings=shardings,
        sha256=config.model.sha256,
    )
