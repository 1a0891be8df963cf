"""One set in numbers: rows, rejects, tokens, lengths, and what its texts hold."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from sft.data.audit import contents, texts, tokens
from sft.data.audit.skew import sample
from sft.data.conversation import Conversation
from sft.data.examples import Examples
from sft.data.records import Records

SHOWN_REJECTS = 20


@dataclasses.dataclass(frozen=True)
class Set:
    """What was read and encoded of one set.

    Attributes:
      files: paths, as configured.
      records: one conversation for each row of ``examples``.
      examples: before over-long rows were dropped or cut.
      fit: report of ``sft.data.fit.fit``, if it ran.
      weights: passes over the rows of an origin in an epoch; 1 where an origin is not named.
    """

    files: list[str]
    records: Records
    examples: Examples
    fit: dict[str, Any] | None = None
    weights: dict[str, float] | None = None


def count(
    files: Sequence[str],
    records: Records,
    examples: Examples,
    fit: dict[str, Any] | None = None,
    weights: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Rows, rejects and tokens of one set, quickly; arguments as in ``Set``.

    Returns:
      ``files``; ``rows`` used; ``rejected``: reason → rows, ``rejected_examples``: the first 20
      as ``file:line: reason``; ``repaired``, ``unread`` columns; ``remarks``: what reading found,
      with ``severity``, ``text``, ``remedy``, ``unit``, ``count`` and ``first`` places;
      ``origins``; ``tokens``,
      ``trained_tokens``, ``mean_tokens``, ``max_tokens``; ``untrained``: rows without a trained
      token; ``lengths``: percentiles and histograms of tokens in ``prompt``, ``response`` and
      ``row`` and of ``exchanges`` (turns of the user) a conversation; ``fit``.

    Raises:
      ValueError: ``records`` and ``examples`` are not of the same rows.
    """
    return _count(Set(list(files), records, examples, fit, weights))[0]


def _count(one: Set) -> tuple[dict[str, Any], tokens.RowCounts]:
    conversations, counts = one.records.conversations, tokens.row_counts(one.examples)
    if len(conversations) != len(counts.row):
        raise ValueError(f"{len(conversations)} conversations but {len(counts.row)} examples")
    rejected = one.records.rejected
    untrained = np.flatnonzero(counts.trained == 0)
    found = {
        "files": one.files,
        "rows": len(conversations),
        "rejected": {str(kind): int(rows) for kind, rows in one.records.counts.items()},
        "rejected_rows": len(rejected),
        "rejected_examples": [f"{where}: {why}" for where, why in rejected[:SHOWN_REJECTS]],
        "repaired": {str(kind): int(rows) for kind, rows in one.records.repaired.items()},
        "unread": {str(column): int(rows) for column, rows in one.records.unread.items()},
        "remarks": [
            remark._asdict() | dataclasses.asdict(places)
            for remark, places in one.records.remarks.items()
        ],
        "origins": _origins(one, counts),
        "tokens": int(counts.row.sum()),
        "trained_tokens": int(counts.trained.sum()),
        "mean_tokens": float(counts.row.mean()) if len(counts.row) else 0.0,
        "max_tokens": int(counts.row.max(initial=0)),
        "untrained": {
            "rows": len(untrained),
            "first": conversations[untrained[0]].source if len(untrained) else "",
        },
        "lengths": {
            "prompt": tokens.distribution(counts.prompt),
            "response": tokens.distribution(counts.response),
            "row": tokens.distribution(counts.row),
            "exchanges": tokens.distribution(np.array([_exchanges(c) for c in conversations])),
        },
        "fit": one.fit,
    }
    return found, counts


def _exchanges(conversation: Conversation) -> int:
    return sum(turn.role == "user" for turn in conversation.turns)


def _origins(one: Set, counts: tokens.RowCounts) -> dict[str, dict[str, Any]]:
    """Rows and tokens by origin; ``trained_share`` counts an origin as often as it is passed."""
    names = [conversation.origin for conversation in one.records.conversations]
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys([*one.records.rows, *names]):
        read = one.records.rows.get(name, {})
        found[name] = {
            "read": int(read.get("read", 0)),
            "rejected": int(read.get("rejected", 0)),
            "weight": float((one.weights or {}).get(name, 1.0)),
        }
    index = {name: i for i, name in enumerate(found)}
    rows = np.array([index[name] for name in names], np.int64)
    sums = {"rows": None, "tokens": counts.row, "trained_tokens": counts.trained}
    for key, values in sums.items():
        for name, total in zip(found, np.bincount(rows, values, len(index)), strict=True):
            found[name][key] = int(total)
    passed = sum(origin["trained_tokens"] * origin["weight"] for origin in found.values())
    for origin in found.values():
        origin["trained_share"] = origin["trained_tokens"] * origin["weight"] / max(passed, 1e-9)
    return found


def describe(
    one: Set, *, bos_id: int, max_length: int, policy: str
) -> tuple[dict[str, Any], tokens.RowCounts]:
    """Everything about one set, and the counts it came from.

    Returns:
      ``count`` plus ``over_long``, ``bos``, ``ends`` (see ``tokens``), ``sample``: rows that
      ``scripts`` and ``languages`` (of ``prompt`` and ``response``, shares) were taken from,
      ``systems``, ``conflicts``, ``marks``, ``repeated_answer`` (see ``contents``).
    """
    found, counts = _count(one)
    conversations = one.records.conversations
    chosen = [conversations[i] for i in sample(len(conversations))]
    sides = {"prompt": contents.prompt, "response": contents.answer}
    found["over_long"] = tokens.over_long(one.examples, max_length, policy, found["trained_tokens"])
    found["ends"] = tokens.ends(one.examples, counts, max_length, policy)
    found["bos"] = tokens.begins(one.examples, bos_id, [c.source for c in conversations])
    found["sample"] = len(chosen)
    found["scripts"], found["languages"] = {}, {}
    for side, text_of in sides.items():
        said = [text_of(conversation) for conversation in chosen]
        found["scripts"][side] = texts.script_mix(said)
        found["languages"][side] = texts.language_mix(said)
    found["systems"] = contents.systems(conversations)
    found["conflicts"] = contents.conflicts(conversations)
    found["marks"] = contents.marks(conversations)
    found["repeated_answer"] = contents.repeated_answer(conversations)
    return found, counts
