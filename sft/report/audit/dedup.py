"""What a plan does, for a person: why rows went, with both sides of each pair to compare."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sft.data.audit.texts import percent, rows, shorten
from sft.data.batches.examples import Examples
from sft.data.chat.encoding import ANSWER
from sft.data.conversation import Conversation
from sft.data.dedup import verdicts
from sft.data.dedup.build import CODES
from sft.data.dedup.leakage import CODES as LEAKS
from sft.data.dedup.plan import Plan, Reason
from sft.data.dedup.same_text import Set
from sft.report import template

PAIRS = 5  # shown of each reason
SPANS = 10
CLUSTERS = 10
TEMPLATES = 20
TEXT = 400  # characters shown of a row or a form
_AROUND = 25  # tokens shown before and after a span
Decode = Callable[[Sequence[int]], str]


@dataclasses.dataclass(frozen=True)
class _Sets:
    """All rows by name of the set, as ``train:5`` refers to them."""

    sets: Mapping[str, Set]

    def shown(self, place: str) -> dict[str, str] | None:
        """Source and text of a row, or ``None`` for no row."""
        if not place:
            return None
        name, _, row = place.rpartition(":")
        conversation = self.sets[name].conversations[int(row)]
        return {"set": name, "source": conversation.source, "text": _text(conversation)}


def describe(
    plan: Plan,
    conversations: Sequence[Conversation],
    examples: Examples,
    evaluation: Mapping[str, tuple[Sequence[Conversation], Examples]],
    decode: Decode,
) -> dict[str, Any]:
    """The plan in plain values for ``report.json``.

    Args:
      conversations, examples, evaluation: what the plan was built from.
      decode: token ids to text.

    Returns:
      ``Plan.summary`` and: ``action``; ``masked_tokens``: trained tokens in spans; ``pairs``:
      ``[{"code", "meaning", "rows", "shown": [{"detail", "left", "right"}]}]``, where a side is
      ``{"set", "source", "text"}``; ``leaks``: the same for leaks that stay; ``spans``:
      ``[{"source", "before", "text", "after", "tokens", "right"}]``, the longest first;
      ``clusters``: ``[{"rows", "first", "others"}]``, the largest first; ``templates`` with their
      text; ``leakage`` with a ``verdict`` for each set, ``shown`` pairs of validation and test,
      and ``crossed``, see ``verdicts.between``.
    """
    sets = _Sets(
        {"train": Set(conversations, examples)}
        | {name: Set(*one) for name, one in evaluation.items()}
    )
    summary = plan.summary
    templates = [
        one | {"tokens": len(one["tokens"]), "text": shorten(decode(one["tokens"]), TEXT)}
        for one in summary["templates"][:TEMPLATES]
    ]
    return summary | {
        "action": plan.action,
        "masked_tokens": _masked(plan, examples),
        "pairs": _pairs(plan.reasons, sets),
        "leaks": _pairs(plan.leaks, sets),
        "spans": _spans(plan, conversations, examples, decode, sets),
        "clusters": _clusters(plan.clusters, sets),
        "templates": templates,
        "leakage": _leakage(summary["leakage"], sets),
    }


def terminal(report: Mapping[str, Any]) -> list[str]:
    """Lines for the terminal, for what ``describe`` returns."""
    gone = report["rows"] - report["kept"]
    before, left = report["trained_tokens"], report["trained_left"]
    lines = [
        f"deduplication: {report['kept']:,} of {rows(report['rows'])} stay; "
        f"{percent(left / max(before, 1))} of the trained tokens ({left:,} of {before:,})"
    ]
    if gone:
        counts = report["dropped"].items()
        lines.append("  dropped: " + "; ".join(f"{n:,} {CODES[code]}" for code, n in counts))
    if report["masked_tokens"]:
        verb = {"mask": "masked", "cut": "cut"}.get(report["action"], "found, and left")
        lines.append(f"  repeated text: {report['masked_tokens']:,} trained tokens {verb}")
    if report["same_prompt"]["prompts"]:
        same = report["same_prompt"]
        lines.append(f"  prompts with several answers: {same['prompts']:,} ({rows(same['rows'])})")
    if report["templates"]:
        lines.append(f"  forms that stay, to be read in the report: {len(report['templates'])}")
    lines += [f"  {one['verdict']}" for one in report["leakage"]["sets"].values()]
    lines += [f"  {one}" for one in report["leakage"]["between"]]
    return lines


def html(report: Mapping[str, Any]) -> str:
    """A section for the page of the audit, for what ``describe`` returns; its texts are escaped."""
    section = Path(__file__).with_name("section.html")
    filters = {"rows": rows, "percent": percent, "number": "{:,}".format}
    return template.load(section, **filters).render(
        d=report, codes=CODES, headline=terminal(report)[0].removeprefix("deduplication: ")
    )


def _text(conversation: Conversation) -> str:
    said = [f"{turn.role}: {shorten(turn.text, TEXT)}" for turn in conversation.turns[:4]]
    more = len(conversation.turns) - len(said)
    return "\n".join(said + ([f"… {more} more turns"] if more else []))


def _pairs(reasons: Mapping[int, Reason], sets: _Sets) -> list[dict[str, Any]]:
    found = []
    for code, meaning in CODES.items():
        chosen = [(row, why) for row, why in sorted(reasons.items()) if why.code == code]
        shown = [
            {
                "detail": why.detail,
                "left": sets.shown(f"train:{row}"),
                "right": sets.shown(why.other),
            }
            for row, why in chosen[:PAIRS]
        ]
        if chosen:
            found.append({"code": code, "meaning": meaning, "rows": len(chosen), "shown": shown})
    return found


def _masked(plan: Plan, examples: Examples) -> int:
    trained = np.concatenate([[0], np.cumsum(examples.kinds >= ANSWER)])
    first = examples.starts[plan.rows]
    return int((trained[first + plan.stops] - trained[first + plan.starts]).sum())


def _spans(
    plan: Plan,
    conversations: Sequence[Conversation],
    examples: Examples,
    decode: Decode,
    sets: _Sets,
) -> list[dict[str, Any]]:
    found = []
    for index in np.argsort(plan.starts - plan.stops, kind="stable")[:SPANS].tolist():
        row, start, stop = (int(a[index]) for a in (plan.rows, plan.starts, plan.stops))
        owner = int(plan.owners[index])
        tokens = examples[row].tokens.tolist()
        before, after = tokens[max(start - _AROUND, 0) : start], tokens[stop : stop + _AROUND]
        found.append(
            {
                "source": conversations[row].source,
                "before": shorten(decode(before), TEXT),
                "text": shorten(decode(tokens[start:stop]), TEXT),
                "after": shorten(decode(after), TEXT),
                "tokens": stop - start,
                "right": sets.shown(f"train:{owner}" if owner >= 0 else ""),
            }
        )
    return found


def _clusters(clusters: np.ndarray, sets: _Sets) -> list[dict[str, Any]]:
    sizes = np.bincount(clusters)
    largest = np.argsort(-sizes, kind="stable")[:CLUSTERS]
    found = []
    for label in largest[sizes[largest] > 1].tolist():
        members = np.flatnonzero(clusters == label)[1:6]
        others = [sets.sets["train"].conversations[row].source for row in members]
        first = sets.shown(f"train:{label}")
        found.append({"rows": int(sizes[label]), "first": first, "others": others})
    return found


def _leakage(found: Mapping[str, Any], sets: _Sets) -> dict[str, Any]:
    shares = {
        name: one | {"verdict": verdicts.verdict(name, one, found["policy"])}
        for name, one in found["sets"].items()
    }
    pairs = found["pairs"]
    crossed = verdicts.between(pairs, found["sets"].get("validation", {}).get("rows", 0))
    shown = [
        {
            "detail": LEAKS[pair["code"]],
            "left": sets.shown(f"{pair['left']}:{pair['row']}"),
            "right": sets.shown(f"{pair['right']}:{pair['other']}"),
        }
        for pair in pairs[:PAIRS]
    ]
    between = [f"{one['said']} {one['remedy']}" for one in crossed]
    return dict(found) | {
        "sets": shares,
        "pairs": len(pairs),
        "shown": shown,
        "crossed": crossed,
        "between": between,
    }
