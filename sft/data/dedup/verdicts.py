"""What leaks come to, in sentences for a person."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sft.data.audit.texts import percent, rows

BLIND = "The same question in other words is not found."
_CROSSED = {  # kind: which codes, and how rows of validation are to those of the test set
    "item": (("leak_item",), "in {right} too"),
    "same": (
        ("leak_prompt", "leak_answer"),
        "like rows of {right} in their prompt or a long answer",
    ),
    "similar": ((), "similar to rows of {right}, in a stretch, nearly, or in pieces"),
}


def verdict(name: str, one: Mapping[str, Any], policy: str) -> str:
    """A sentence or two on a set's share of ``leakage.Hits``, and what the search cannot see."""
    if not one["touched"]:
        return f"{name}: no training row gives away any of its {rows(one['rows'])}. {BLIND}"
    culprits = rows(one["train_rows"])
    fate = "dropped from training" if policy == "drop" else "still in training"
    shared = (
        f"; {percent(one['shared_share'])} of its answers' tokens" if one["shared_tokens"] else ""
    )
    return (
        f"{name}: {one['touched']:,} of {rows(one['rows'])} ({percent(one['share'])}{shared}) "
        f"given away by {culprits}, {fate}. {BLIND}"
    )


def between(pairs: Sequence[Mapping[str, Any]], validation: int) -> list[dict[str, Any]]:
    """What validation and the test sets have in common.

    Args:
      pairs: of ``leakage.Hits``.
      validation: rows of that set.

    Returns:
      ``[{"right": the test set, "kind": "item", "same" or "similar", "rows": of validation,
      "said", "remedy"}]``.
    """
    kinds = {code: kind for kind, (codes, _) in _CROSSED.items() for code in codes}
    counts = Counter((pair["right"], kinds.get(pair["code"], "similar")) for pair in pairs)
    found = []
    for right, kind in sorted(counts, key=lambda key: (key[0], [*_CROSSED].index(key[1]))):
        count = counts[right, kind]
        how = _CROSSED[kind][1].format(right=right)
        share = percent(count / validation)
        said = f"{rows(count)} of validation ({share}) {'is' if count == 1 else 'are'} {how}"
        remedy = "Remove them from one of the two."
        if kind == "similar":
            remedy = "Look at them, and remove from one of the two those that ask the same."
        else:
            said += ": the epoch would be chosen on what is reported"
        found.append(
            {"right": right, "kind": kind, "rows": count, "said": f"{said}.", "remedy": remedy}
        )
    return found
