"""The whole report: every set, how they differ, and what a person should do about it."""

from typing import Any

from sft.data.audit import contents, findings, sets, skew
from sft.data.dedup import normal
from sft.data.read.records import Records
from sft.data.tokenizer.sentencepiece import Tokenizer


def examine(
    found: dict[str, sets.Set],
    production: Records | None = None,
    *,
    tokenizer: Tokenizer,
    max_length: int,
    eval_max_length: int,
    policy: str,
    max_over_long: float = 0.01,
    form: normal.Options | None = None,
    dedup: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Looks at all sets together.

    Args:
      found: by name; ``train`` is what the others are compared with, if it is there.
      production: a sample of prompts as the model will get them.
      max_length: tokens a row in training; ``eval_max_length``: in the other sets.
      policy: of ``sft.data.batches.truncation.POLICIES``, for training rows over ``max_length``.
        Rows of the other sets are never cut: there longer rows are an error.
      max_over_long: share of longer rows from which the policy ``error`` refuses to train.
      form: which rows are the same; as they are written if not given.
      dedup: of ``dedup.report.describe``, with ``max_share`` in its ``leakage``.

    Returns:
      ``{"sets": {name: sets.describe}, "skew": [skew.compare], "labels": contents.labels,
      "shared": [{"left", "right", "rows"}], "production": {"rows", "rejected_rows",
      "systems"} or None, "dedup": where it is given, "warnings": [{"severity", "text",
      "remedy"}]}``; severities are ``error``, ``warning``, ``note``, in this order.
      Deterministic: samples are drawn by a fixed seed.
    """
    described: dict[str, Any] = {}
    views: dict[str, skew.View] = {}
    for name, one in found.items():
        is_train = name == "train"
        described[name], counts = sets.describe(
            one,
            bos_id=tokenizer.bos_id,
            max_length=max_length if is_train else eval_max_length,
            policy=policy if is_train else "error",
            max_over_long=max_over_long,
            form=None if is_train else form or normal.Options(),
        )
        views[name] = skew.view_of_set(
            name, one.records.conversations, one.examples, counts.prompt, counts.response
        )
    if production is not None:
        views["production"] = skew.view_of_prompts(
            "production", production.conversations, tokenizer
        )
    compared = []
    if "train" in views:
        others = [view for name, view in views.items() if name != "train"]
        compared = [skew.compare(views["train"], view) for view in others]
    report: dict[str, Any] = {
        "sets": described,
        "skew": compared,
        "labels": contents.labels({n: s.records.conversations for n, s in found.items()}),
        "shared": _shared(found),
        "production": _production(production),
    }
    if dedup:
        report["dedup"] = dedup
    report["warnings"] = findings.warnings(report)
    return report


def _shared(found: dict[str, sets.Set]) -> list[dict[str, Any]]:
    """Rows of the later set of each pair whose exact text is in the earlier one too."""
    rows = {name: contents.fingerprints(one.records.conversations) for name, one in found.items()}
    names = list(rows)
    return [
        {"left": left, "right": right, "rows": len(rows[left] & rows[right])}
        for index, left in enumerate(names)
        for right in names[index + 1 :]
    ]


def _production(production: Records | None) -> dict[str, Any] | None:
    if production is None:
        return None
    return {
        "rows": len(production.conversations),
        "rejected_rows": len(production.rejected),
        "systems": contents.systems(production.conversations),
    }
