"""The plan for a training set: equal rows, near-duplicates, rows alike by their embeddings, leaks,
repeated text; in this order.

Each step sees what the earlier ones left, and a dropped row keeps the first reason against it.
Evaluation sets are only read. The result depends on the rows, their order and the options alone.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.conversation import Conversation
from sft.data.dedup import graph, leakage, steps
from sft.data.dedup import plan as plans
from sft.data.dedup.options import Options
from sft.data.dedup.plan import Plan, Reason
from sft.data.dedup.same_text import Set
from sft.errors import UserError

CODES = {
    "exact": "same as an earlier row",
    "cap": "another answer to the same prompt",
    "near": "near-duplicate of an earlier row",
    "embedding": "like an earlier row by its embedding",
    **{code: f"leak: {meaning}" for code, meaning in leakage.CODES.items()},
    "substring": "answers that repeat other rows",
    "empty": "no trained token left",
}


def build(
    conversations: Sequence[Conversation],
    examples: Examples,
    evaluation: Mapping[str, tuple[Sequence[Conversation], Examples]],
    options: Options | None = None,
    tokenizer: str = "",
) -> Plan:
    """Decides which rows stay and which of their tokens are trained.

    Args:
      examples: of the conversations, in their order, before any is cut to length.
      evaluation: the sets that must not be given away, ``validation`` under that name.
      tokenizer: its fingerprint.

    Returns:
      A plan whose ``summary`` has ``rows``, ``kept``, ``dropped``: by code; ``trained_tokens``,
      ``trained_left``; ``origins``: the same by source; ``same_prompt``: prompts with several
      answers among the rows that are left, and those rows; ``templates``: see
      ``substring.Found``, with the name of the origin; ``leakage``: ``policy``, ``sets`` and
      ``pairs``, see ``leakage.Hits``.
    """
    options = options or Options()
    held = {name: Set(*one) for name, one in evaluation.items()}
    state = steps.Steps(Set(conversations, examples), options)
    state.drop_equal()
    state.drop_near()
    state.drop_alike()
    found = state.drop_leaks(held)
    spans = state.drop_repeats()
    draft = Plan(
        kept=np.arange(len(examples)),
        reasons={},
        leaks=state.leaks,
        **spans,
        action=options.action,
        clusters=state.clusters,
        fingerprint=fingerprint(conversations, examples, evaluation, options, tokenizer),
        summary={},
    )
    for row in np.flatnonzero(plans.changed(draft, examples).trained == 0):
        state.drop(int(row), Reason("empty", "", ""))
    inside = state.stays[spans["rows"]]
    spans = {name: array[inside] for name, array in spans.items()}
    kept = np.flatnonzero(state.stays)
    plan = dataclasses.replace(draft, kept=kept, reasons=state.reasons, **spans)
    summary = _summary(plan, Set(conversations, examples)) | {
        "same_prompt": state.same_prompt(),
        "templates": state.templates,
        "leakage": {"policy": options.leakage, "sets": found.shares, "pairs": found.pairs},
    }
    return dataclasses.replace(plan, summary=summary)


def fingerprint(
    conversations: Sequence[Conversation],
    examples: Examples,
    evaluation: Mapping[str, tuple[Sequence[Conversation], Examples]],
    options: Options,
    tokenizer: str = "",
) -> str:
    """Of everything that decides a plan, for ``plan.apply``; arguments as in ``build``."""
    return plans.fingerprint(
        examples,
        steps.ranks(conversations),
        graph.firsts(c.cluster for c in conversations),
        leakage.origins(conversations),
        {name: one for name, (_, one) in evaluation.items()},
        options.decisive(),
        tokenizer,
    )


def _summary(plan: Plan, train: Set) -> dict[str, Any]:
    """Rows and trained tokens before and after, in all and by source."""
    before, after = train.examples.trained, plans.changed(plan, train.examples).trained.copy()
    after[[*plan.reasons]] = 0
    kept = np.ones(len(before), bool)
    kept[[*plan.reasons]] = False
    numbers = leakage.origins(train.conversations)
    names = [*dict.fromkeys(c.origin for c in train.conversations)]
    codes: dict[int, Counter[str]] = {number: Counter() for number in range(len(names))}
    for row, reason in plan.reasons.items():
        codes[int(numbers[row])][reason.code] += 1

    def counts(chosen: np.ndarray, dropped: Counter[str]) -> dict[str, Any]:
        return {
            "rows": int(chosen.sum()),
            "kept": int(kept[chosen].sum()),
            "dropped": {code: dropped[code] for code in CODES if dropped[code]},
            "trained_tokens": int(before[chosen].sum()),
            "trained_left": int(after[chosen].sum()),
        }

    whole = counts(np.ones(len(before), bool), sum(codes.values(), Counter()))
    origins = {name: counts(numbers == i, codes[i]) for i, name in enumerate(names)}
    return whole | {"origins": origins}


def refuse(plan: Plan) -> None:
    """Refuses to train by a plan that leaves no row.

    Raises:
      UserError: there is none; says what dropped them.
    """
    if len(plan.kept) or not plan.summary["rows"]:
        return
    counts = ", ".join(f"{code} {rows}" for code, rows in plan.summary["dropped"].items())
    raise UserError(
        f"config.data.dedup: none of {plan.summary['rows']} training rows is left ({counts}). "
        "Correct the training files or the options."
    )
