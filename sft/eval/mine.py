"""How hard every training row is for a model, and subsets by it.

Where the base model fails is what tuning is for: such examples belong into training, and *other*
such examples into evaluation, to see whether what was learnt carries over.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sft import config as configs
from sft.data.read import records
from sft.data.sets import loading, training
from sft.errors import UserError
from sft.eval import arms, evalset, harness, limits, metrics, subset
from sft.run import directory as workdirs
from sft.session import Session
from sft.train import validation

Parts = dict[str, list[records.Conversation]]
_SELECTION = ("select", "share", "low", "high", "per_category", "evaluate")  # change no score


def mine(session: Session, checkpoint: str) -> tuple[dict[str, Any], Parts]:
    """Writes ``mine/<arm>.{ranked,train,evaluate}.jsonl`` and ``<arm>.summary.json``.

    The rows are scored as they are in the files, without augmented copies, and cut as in training.
    Scores that are there already for the same rows, checkpoint and settings are not made again.

    Args:
      checkpoint: ``base``, ``best``, ``latest`` or a step.

    Returns:
      The summary, and the chosen rows to train on and to evaluate.

    Raises:
      UserError: bad training data, a selection without rows or without rows to train on.
    """
    path = session.path
    arm, step = arms.which(path, session.config, checkpoint)
    config = session.config.copy_and_resolve_references()
    config.data.augment.copies = 0
    tok = session.tokenizer
    training.required(config, ["train"])
    split = training.alone(loading.Sets(config, session.spec, tok), path / "data")
    # How many rows are chosen does not depend on their scores: refuse before the long work.
    subset.choose([_about(row) | {"loss": 0.0} for row in split.conversations], config)
    if config.mine.exact_match:
        limits.warn(config, "train", evalset.expected(split.conversations), tok)
    here = path / "mine"
    fingerprint = _fingerprint(config, arm, step, split)
    rows = _stored(here, arm, fingerprint, split)
    if rows is None:
        rows = score(arms.load(session, step), config, split)
    summary = {
        "arm": arm,
        "checkpoint": "base" if step is None else f"checkpoints/{step}",
        "data": ", ".join(split.files),
        "all": subset.statistics(rows),
        "categories": subset.by(rows, "category"),
        "origins": subset.by(rows, "origin"),
        "fingerprint": fingerprint,
    }
    _write_scores(here, summary, rows)  # before a selection that may fail
    chosen = subset.choose(rows, config)
    parts = subset.divide([split.conversations[i] for i in chosen], config)
    _write_parts(here, arm, parts)
    summary["chosen"] = (
        subset.statistics([rows[i] for i in chosen])
        | {f"{name}_rows": len(conversations) for name, conversations in parts.items()}
        | {"selection": {key: config.mine[key] for key in _SELECTION}}
    )
    workdirs.write_json(here / f"{arm}.summary.json", summary)
    return summary, parts


def score(model: harness.Model, config: ConfigDict, split: loading.Split) -> list[dict[str, Any]]:
    """One row for each conversation of the set, in order.

    ``loss`` is in nats per trained token. ``exact_match``, ``predicted`` and ``cut`` (whether it
    reached ``config.eval.max_new_tokens``) are those of the answer to the last user turn, and are
    there if ``config.mine.exact_match``.

    Raises:
      UserError: the loss of a row is not finite; names the row.
    """
    scored = validation.by_example(
        config,
        model.steps,
        model.trainable,
        model.frozen,
        split.examples,
        max_length=config.data.max_length,
        what="score",
    )
    loss, accuracy = ((x / scored.trained).tolist() for x in (scored.nll, scored.correct))
    rows = [
        _about(conversation)
        | {"loss": loss[i], "token_accuracy": accuracy[i], "trained_tokens": int(trained)}
        for i, (conversation, trained) in enumerate(
            zip(split.conversations, split.examples.trained, strict=True)
        )
    ]
    for row in rows:
        if not np.isfinite(row["loss"]):
            raise UserError(
                f"{row['source']}: the loss of this row is {row['loss']}, expected a finite "
                f"number. Check config.model.weights and the checkpoint."
            )
    if config.mine.exact_match:
        prompts = loading.prompts(config, model.spec, model.tokenizer, split.conversations)
        answers, look = harness.answer(model, config, prompts), metrics.looks_at(config)
        for row, conversation, predicted in zip(rows, split.conversations, answers, strict=True):
            pair = look(predicted.text), look(conversation.turns[-1].text)
            row["exact_match"] = harness.exact_match(*pair)
            row["predicted"], row["cut"] = predicted.text, predicted.cut
    return rows


def _about(row: records.Conversation) -> dict[str, Any]:
    return {key: getattr(row, key) for key in ("source", "origin", "group", "category")}


def _fingerprint(config: ConfigDict, arm: str, step: int | None, split: loading.Split) -> str:
    """Of everything that could change the scores or what is told of the rows."""
    plain = config.copy_and_resolve_references()
    for key in _SELECTION:
        plain.mine[key] = configs.default().mine[key]
    digest = hashlib.sha256(
        json.dumps([configs.fingerprint(plain), arm, step, split.content]).encode()
    )
    for conversation in split.conversations:
        digest.update(repr(conversation).encode())
    return digest.hexdigest()[:12]


def _stored(
    here: Path, arm: str, fingerprint: str, split: loading.Split
) -> list[dict[str, Any]] | None:
    """The scored rows of an earlier call, in the order of the set, if they are what is wanted."""
    summary, ranked = here / f"{arm}.summary.json", here / f"{arm}.ranked.jsonl"
    if not summary.exists() or not ranked.exists():
        return None
    if workdirs.read_json(summary).get("fingerprint") != fingerprint:
        return None
    try:
        rows = [json.loads(line) for line in ranked.read_text().split("\n")[:-1]]
        # A file that is listed twice has the same row twice, and the same scores.
        found = {(row["origin"], row["source"]): row for row in rows}
        stored = [found[c.origin, c.source] for c in split.conversations]
    except (ValueError, KeyError):  # somebody else's file by now
        return None
    return [{key: value for key, value in row.items() if key != "rank"} for row in stored]


def _write_scores(here: Path, summary: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """The summary, which vouches for the ranking, is gone before and back after it changes."""
    arm = summary["arm"]
    (here / f"{arm}.summary.json").unlink(missing_ok=True)
    ranked = [{"rank": place} | rows[i] for place, i in enumerate(subset.rank(rows), start=1)]
    _write_jsonl(here / f"{arm}.ranked.jsonl", ranked)
    workdirs.write_json(here / f"{arm}.summary.json", summary)


def _write_parts(here: Path, arm: str, parts: Parts) -> None:
    paths = {name: here / f"{arm}.{name}.jsonl" for name in parts}
    for path in paths.values():  # two selections must not lie side by side
        path.unlink(missing_ok=True)
    added = columns(parts)
    for name, conversations in parts.items():
        if conversations:
            rows = [
                records.gemini_row(conversation)
                | {column: getattr(conversation, column) for column in added}
                for conversation in conversations
            ]
            _write_jsonl(paths[name], rows)


def columns(parts: Parts) -> list[str]:
    """Those that some row has a value for. A column that is read must be in every row."""
    rows = [row for part in parts.values() for row in part]
    return [key for key in ("group", "category") if any(getattr(row, key) for row in rows)]


def _write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    workdirs.write_text(path, "".join(lines))
