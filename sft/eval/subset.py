"""Which of the scored training rows are taken, and which of those are kept for evaluation."""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sft.data.read import records
from sft.data.sets import sources, splits
from sft.errors import UserError

QUANTILES = (0.1, 0.5, 0.9, 1.0)


def rank(rows: Sequence[dict[str, Any]]) -> list[int]:
    """Indices, hardest first: wrong answers before right ones where known, then by loss.

    Equals stay in the order of ``rows``.
    """
    hardness = [(row.get("exact_match", False), -row["loss"]) for row in rows]
    return sorted(range(len(rows)), key=hardness.__getitem__)


def choose(rows: Sequence[dict[str, Any]], config: ConfigDict) -> list[int]:
    """Indices of the rows that ``config.mine`` selects, hardest first.

    ``hardest``: the first ``share`` of the ranking, rounded to a number of rows. ``band``: the rows
    whose share of rows with a lower loss lies in [``low``, ``high``). With ``per_category``, of
    each category by itself.

    Raises:
      UserError: no row is selected, or a row lacks the category.
    """
    mine = config.mine
    for row in rows if mine.per_category else ():
        if not row["category"]:
            raise UserError(
                f"{row['source']}: the row has no category, which config.mine.per_category needs. "
                f"Name its column in config.data.reading.category, or set per_category = False."
            )
    if mine.select == "hardest":
        order = rank(rows)
    else:
        order = rank([{"loss": row["loss"]} for row in rows])
    pools = collections.defaultdict(list)
    for i in order:
        pools[rows[i]["category"] if mine.per_category else ""].append(i)
    chosen = set()
    for pool in pools.values():
        count = len(pool)
        if mine.select == "hardest":
            chosen.update(pool[: round(mine.share * count)])
        else:
            lower = (count - place for place in range(1, count + 1))
            chosen.update(
                i for i, k in zip(pool, lower, strict=True) if mine.low <= k / count < mine.high
            )
    if not chosen:
        knobs = ("share",) if mine.select == "hardest" else ("low", "high")
        given = ", ".join(f"config.mine.{knob} = {mine[knob]}" for knob in knobs)
        each = " of each category" if mine.per_category else ""
        raise UserError(
            f"{given}: selects none of {len(rows)} training rows{each}. Widen the selection."
        )
    return [i for i in rank(rows) if i in chosen]


def divide(
    conversations: Sequence[records.Conversation], config: ConfigDict
) -> dict[str, list[records.Conversation]]:
    """``train``, and ``evaluate`` with ``config.mine.evaluate`` of the rows and at least one.

    No group and no exact text is in both. The order is kept.

    Raises:
      UserError: no row is left to train on.
    """
    share = config.mine.evaluate
    if not share:
        return {"train": list(conversations), "evaluate": []}
    count = len(conversations)
    whole = sources.grouped(conversations, _same_text(conversations))
    try:
        parts = splits.assign(
            whole, {"evaluate": max(share, 1 / count)}, config.data.split.seed, stratify=""
        )
    except UserError:  # it speaks of another key
        groups = len({row.group for row in whole})
        raise UserError(
            f"config.mine.evaluate = {share}: of {count} chosen rows in {groups} groups, which "
            "stay whole and are one where they share a text, none is left to train on. Lower it, "
            "or select more rows."
        ) from None
    return {name: [conversations[i] for i in parts[name]] for name in ("train", "evaluate")}


def _same_text(conversations: Sequence[records.Conversation]) -> np.ndarray:
    """int64 ``[n]``: the first row that says what each says."""
    first: dict[tuple, int] = {}
    keys = [((c.system or "").strip(), *(t.text.strip() for t in c.turns)) for c in conversations]
    return np.array([first.setdefault(key, i) for i, key in enumerate(keys)], np.int64)


def statistics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Number of rows, means per trained token, ``exact_match`` and ``cut`` where known, and
    quantiles.

    ``quantiles`` are of the loss over rows (linear between neighbours), by their share.
    """
    tokens = np.array([row["trained_tokens"] for row in rows])
    found: dict[str, Any] = {"count": len(rows)}
    for name in ("loss", "token_accuracy"):
        found[name] = float(np.average([row[name] for row in rows], weights=tokens))
    if "exact_match" in rows[0]:
        found["exact_match"] = float(np.mean([row["exact_match"] for row in rows]))
    if "cut" in rows[0]:
        found["cut"] = float(np.mean([row["cut"] for row in rows]))
    values = np.quantile([row["loss"] for row in rows], QUANTILES)
    return found | {"quantiles": dict(zip(map(str, QUANTILES), values.tolist(), strict=True))}


def by(rows: Sequence[dict[str, Any]], field: str) -> dict[str, dict[str, Any]]:
    """``statistics`` for each value of ``category`` or ``origin``, the most rows first."""
    found = collections.defaultdict(list)
    for row in rows:
        found[row[field]].append(row)
    order = sorted(found, key=lambda name: (-len(found[name]), name))
    return {name: statistics(found[name]) for name in order}
