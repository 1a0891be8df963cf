"""What the behaviour suites say of a run: pass rates beside the base model's, all failing cases."""

import dataclasses
from typing import Any

from sft.eval.suites import compare
from sft.eval.suites.cases import KINDS
from sft.eval.verdict import Difference
from sft.report import scores
from sft.report.load import Record, Run
from sft.report.scores import Change
from sft.run import display


@dataclasses.dataclass(frozen=True)
class Rate:
    """One kind of cases.

    Attributes:
      base, tuned: as in the result: ``count``, ``undecided``, ``passed``, ``pass_rate``,
        ``interval``; ``None`` = not asked.
      change: over the cases that both were asked as they are now, if there are any.
    """

    kind: str
    base: Record | None
    tuned: Record | None
    change: Change | None

    @property
    def sentence(self) -> str:
        """``success 0 of 31 → 20 of 31 (+64.5 points, …: better)``."""
        parts = [_passed(part) for part in (self.base, self.tuned) if part]
        text = f"{self.kind} {' → '.join(parts)}"
        if change := self.change:
            by, low, high = (display.points(x) for x in (change.value, change.low, change.high))
            text += (
                f" ({by} points, 95 % interval {low} to {high}, McNemar's exact "
                f"{display.p_value(change.p)}: {change.verdict})"
            )
        return text


@dataclasses.dataclass(frozen=True)
class Suite:
    """One suite of a run.

    Attributes:
      arm: whose cases fail: the tuned model, or the base if no other was asked.
      failing: rows of ``compare.Comparison.failing``.
      unpaired: cases that the base was not asked as they are now.
    """

    name: str
    arm: str
    about: str
    rates: list[Rate]
    failing: tuple[dict[str, Any], ...]
    unpaired: int

    @property
    def broken(self) -> int:
        """Failing cases that the base model passes."""
        return sum(row["state"] == "broken" for row in self.failing)


def of_run(run: Run) -> list[Suite]:
    """Each suite, the base model against the best checkpoint or else the one asked last."""
    return [_suite(run, name) for name in sorted({name for _, name in run.suites})]


def warnings(suites: list[Suite]) -> list[str]:
    """Kinds of behaviour that tuning has made worse."""
    return [
        f"Suite {suite.name}: {rate.sentence}."
        for suite in suites
        for rate in suite.rates
        if rate.change and rate.change.verdict == "worse"
    ]


def _suite(run: Run, name: str) -> Suite:
    base = run.suites.get(("base", name))
    *_, arm = scores.arms_of(run.suites, name)
    result = run.suites[arm, name]
    tuned = None if arm == "base" else result
    found = compare.compare(base, tuned) if base and tuned else None
    changes = {change.kind: change for change in found.changes} if found else {}
    kinds = [kind for kind in KINDS if kind in result["kinds"]]
    return Suite(
        name,
        arm,
        " · ".join(filter(None, (result.get("description"), result["file"]))),
        [
            Rate(
                kind,
                base and base["kinds"].get(kind),
                tuned and tuned["kinds"].get(kind),
                _change(changes.get(kind)),
            )
            for kind in kinds
        ],
        found.failing if found else compare.alone(result),
        len(found.unpaired) if found else 0,
    )


def _change(found: compare.Change | None) -> Change | None:
    if found is None:
        return None
    difference = Difference(found.difference, found.low, found.high, found.p)
    return scores.change(difference, "higher", found.count)


def _passed(part: Record) -> str:
    undecided = f", {part['undecided']} undecided" if part["undecided"] else ""
    return f"{part['passed']} of {part['count'] - part['undecided']}{undecided}"
