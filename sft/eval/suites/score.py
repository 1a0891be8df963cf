"""A model's answers held against a suite."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from sft.data.sets import loading
from sft.eval import harness, stats
from sft.eval.suites.cases import KINDS, Case, Judge, JudgeCase, Suite

Row = dict[str, Any]


def answers(model: harness.Model, config: ConfigDict, suite: Suite) -> list[harness.Answer]:
    """What the model says to each case."""
    prompts = loading.prompts(
        config, model.spec, model.tokenizer, [case.conversation for case in suite.cases]
    )
    return harness.answer(model, capped(config, suite), prompts)


def capped(config: ConfigDict, suite: Suite) -> ConfigDict:
    """The configuration with the suite's own cap on answers."""
    own = config.copy_and_resolve_references()
    own.eval.max_new_tokens = suite.max_new_tokens or config.eval.max_new_tokens
    return own


def first_criterion(suites: Sequence[Suite]) -> Case | None:
    """The first case that a model judge has to decide on."""
    cases = (case for suite in suites for case in suite.cases)
    return next((case for case in cases if _criterion(case) is not None), None)


def rows(
    suite: Suite,
    said: Sequence[str],
    judge: Judge | None = None,
    cut: Sequence[bool | None] = (),
) -> list[Row]:
    """One row for each case, in order.

    ``passed`` is ``None`` where the judge gave no verdict. The judge is asked only about answers
    that pass all other checks: the others have failed already, and each question costs.

    Args:
      said: the answers.
      cut: whether each ended at the cap; none, or ``None``: not known.
    """
    cut = cut or [None] * len(said)
    found = [_row(*one) for one in zip(suite.cases, said, cut, strict=True)]
    asked = [
        (row, JudgeCase(case.id, case.system, case.turns, row["answer"], criterion))
        for case, row in zip(suite.cases, found, strict=True)
        if (criterion := _criterion(case)) is not None and row["passed"]
    ]
    if asked:
        assert judge is not None, "first_criterion comes first"
        verdicts = judge([question for _, question in asked])
        for (row, _), verdict in zip(asked, verdicts, strict=True):
            row["passed"] = verdict.passed
            row["judged"] = verdict.why
            if verdict.passed is False:
                row["failed"] = [{"check": "judge", "why": verdict.why}]
    return found


def summary(found: Sequence[Row]) -> dict[str, Any]:
    """Pass rates of all cases and of each kind, with 95 % Wilson intervals; cases that were cut."""
    kinds = {kind: [row for row in found if row["kind"] == kind] for kind in KINDS}
    cut = {"cut": sum(bool(row["cut"]) for row in found)}
    rates = {kind: _rate(part) for kind, part in kinds.items() if part}
    return _rate(found) | cut | {"kinds": rates}


def _rate(found: Sequence[Row]) -> dict[str, Any]:
    decided = [row["passed"] for row in found if row["passed"] is not None]
    passed = sum(decided)
    return {
        "count": len(found),
        "undecided": len(found) - len(decided),
        "passed": passed,
        "pass_rate": passed / len(decided) if decided else None,
        "interval": list(stats.wilson(passed, len(decided))) if decided else None,
    }


def _row(case: Case, answer: str, cut: bool | None) -> Row:
    faults = [(check.name, check.fault(answer)) for check in case.checks if check.fault]
    failed = [{"check": name, "why": why} for name, why in faults if why is not None]
    return {
        "id": case.id,
        "kind": case.kind,
        "source": case.where,
        "system": case.system,
        "turns": [{"role": turn.role, "text": turn.text} for turn in case.turns],
        "expect": {check.name: check.wanted for check in case.checks},
        "note": case.note,
        "answer": answer,
        "cut": cut,
        "passed": not failed,
        "failed": failed,
        "key": case.key,
    }


def _criterion(case: Case) -> str | None:
    return next((check.wanted for check in case.checks if check.fault is None), None)
