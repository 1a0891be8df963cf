"""One set in numbers: rows, rejects, tokens, lengths, and what its texts hold."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from sft.data.audit import contents, texts, tokens
from sft.data.audit.skew import sample
from sft.data.batches.examples import Examples
from sft.data.chat.encoding import END
from sft.data.conversation import Conversation
from sft.data.dedup import exact, normal
from sft.data.read.records import Records

SHOWN_REJECTS = 20
CATEGORIES = 50


@dataclasses.dataclass(frozen=True)
class Set:
    """What was read and encoded of one set.

    Attributes:
      files: paths, as configured.
      records: one conversation for each row of ``examples``.
      examples: before over-long rows were dropped or cut.
      fit: report of ``sft.data.batches.truncation.fit``, if it ran.
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
      ``files``; ``rows`` used; ``system``: whether all of them have the ``same`` system
      instruction (or none), and its ``text``; ``rejected``: reason → rows,
      ``rejected_examples``: the first 20 as ``file:line: reason``; ``repaired``, ``unread``
      columns; ``remarks``: what reading found, with ``severity``, ``text``, ``remedy``, ``unit``,
      ``count`` and ``first`` places; ``origins``; ``categories``: ``{name: {"rows", "tokens",
      "trained_tokens", "trained_share", "median_tokens", "max_tokens"}}``; ``tokens``,
      ``trained_tokens``, ``trained_ends`` (ends of turn among them), ``mean_tokens``,
      ``max_tokens``; ``untrained``: rows without a trained token; ``lengths``: percentiles and
      histograms of tokens in ``prompt``, ``response`` and ``row`` and of ``exchanges`` (turns of
      the user) a conversation; ``fit``.

    Raises:
      ValueError: ``records`` and ``examples`` are not of the same rows.
    """
    return _count(Set(list(files), records, examples, fit, weights))[0]


def _count(one: Set) -> tuple[dict[str, Any], tokens.RowCounts]:
    conversations, counts = one.records.conversations, tokens.row_counts(one.examples)
    if len(conversations) != len(counts.row):
        raise ValueError(f"{len(conversations)} conversations but {len(counts.row)} examples")
    rejected = one.records.rejected
    systems = {conversation.system for conversation in conversations}
    untrained = np.flatnonzero(counts.trained == 0)
    found = {
        "files": one.files,
        "rows": len(conversations),
        "system": {
            "same": len(systems) == 1,
            "text": next(iter(systems)) if len(systems) == 1 else None,
        },
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
        "categories": _categories(conversations, counts),
        "tokens": int(counts.row.sum()),
        "trained_tokens": int(counts.trained.sum()),
        "trained_ends": int(np.count_nonzero(one.examples.kinds == END)),
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


def _categories(
    conversations: Sequence[Conversation], counts: tokens.RowCounts
) -> dict[str, dict[str, Any]]:
    """Rows, tokens and lengths by category, the largest first; ``""`` is for rows without one, and
    ``{}`` where no row has one. More than ``CATEGORIES`` are counted together as ``…``."""
    names = [conversation.category for conversation in conversations]
    if not any(names):
        return {}
    common = {name for name, _ in Counter(names).most_common(CATEGORIES)}
    rows: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        rows.setdefault(name if name in common else "…", []).append(index)
    whole = max(int(counts.trained.sum()), 1)
    found = {}
    for name in sorted(rows, key=lambda name: (name == "…", -len(rows[name]), name)):
        chosen = np.array(rows[name])
        trained = int(counts.trained[chosen].sum())
        found[name] = {
            "rows": len(chosen),
            "tokens": int(counts.row[chosen].sum()),
            "trained_tokens": trained,
            "trained_share": trained / whole,
            "median_tokens": float(np.median(counts.row[chosen])),
            "max_tokens": int(counts.row[chosen].max()),
        }
    return found


def describe(
    one: Set,
    *,
    bos_id: int,
    max_length: int,
    policy: str,
    max_over_long: float = 0.0,
    form: normal.Options | None = None,
) -> tuple[dict[str, Any], tokens.RowCounts]:
    """Everything about one set, and the counts it came from.

    Args:
      max_over_long: under the policy ``error``, the share of longer rows that may be dropped.
      form: which rows are the same, where repeats are to be counted.

    Returns:
      ``count`` plus ``over_long`` (see ``tokens``; with ``max_share``), ``bos``, ``ends`` (see
      ``tokens``), ``sample``: rows that ``scripts`` and ``languages`` (of ``prompt`` and
      ``response``, shares) were taken from, ``conflicts`` (see ``dedup.exact.several_answers``),
      ``systems``, ``marks``, ``repeated_answer`` (see ``contents``), and ``repeats``: ``{"rows":
      that equal an earlier one, "distinct", "most": rows that are equal, "first" of these}``.
    """
    found, counts = _count(one)
    conversations = one.records.conversations
    chosen = [conversations[i] for i in sample(len(conversations))]
    sides = {"prompt": contents.prompt, "response": contents.answer}
    found["over_long"] = tokens.over_long(one.examples, max_length, policy, found["trained_tokens"])
    found["over_long"]["max_share"] = max_over_long
    found["ends"] = tokens.ends(one.examples, counts, max_length, policy)
    found["bos"] = tokens.begins(one.examples, bos_id, [c.source for c in conversations])
    found["sample"] = len(chosen)
    found["scripts"], found["languages"] = {}, {}
    for side, text_of in sides.items():
        said = [text_of(conversation) for conversation in chosen]
        found["scripts"][side] = texts.script_mix(said)
        found["languages"][side] = texts.language_mix(said)
    found["systems"] = contents.systems(conversations)
    found["conflicts"] = exact.several_answers(one.examples)
    found["marks"] = contents.marks(conversations)
    found["repeated_answer"] = contents.repeated_answer(conversations)
    found["repeats"] = None if form is None else _repeats(conversations, form)
    return found, counts


def _repeats(conversations: Sequence[Conversation], form: normal.Options) -> dict[str, Any]:
    if not conversations:
        return {"rows": 0, "distinct": 0, "most": 0, "first": ""}
    found = exact.find(conversations, form)
    sizes = np.bincount(found.first)
    return {
        "rows": int(found.is_repeat.sum()),
        "distinct": int((~found.is_repeat).sum()),
        "most": int(sizes.max()),
        "first": conversations[int(sizes.argmax())].source,
    }
