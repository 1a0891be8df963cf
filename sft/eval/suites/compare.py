"""Results of a suite on disk, and two of them side by side."""

import dataclasses
from pathlib import Path
from typing import Any

from sft.errors import UserError
from sft.eval import stats
from sft.eval.suites.cases import KINDS
from sft.run import directory as workdirs

Result = dict[str, Any]
FIELDS = ("arm", "suite", "file", "count", "kinds", "cases", "fingerprint")


@dataclasses.dataclass(frozen=True)
class Change:
    """What became of the cases of one kind.

    Attributes:
      count: cases that both arms were asked, and that were decided for both.
      before, after: those that passed.
      difference: of the pass rates, after minus before; ``low`` to ``high`` is its 95 % interval
        (``stats.paired_difference``).
      p: McNemar's exact, two-sided: whether as many cases were fixed as broken.
      fixed, broken: ids.
    """

    kind: str
    count: int
    before: int
    after: int
    difference: float
    low: float
    high: float
    p: float
    fixed: tuple[str, ...]
    broken: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two arms on one suite.

    Attributes:
      changes: of each kind that has cases in both.
      failing: one row for each case that ``after`` fails, the broken ones first: ``id``, ``kind``,
        ``state`` (``broken``, ``still failing`` or ``new``), ``prompt``, ``answer``, ``cut`` (at
        the cap; ``None``: not known), ``before`` (the other arm's answer, or ``None``), ``why``,
        ``source``, ``note``.
      fixed: the like rows of cases that ``after`` alone passes.
      unpaired: ids in ``after`` that the other arm was not asked as they are now.
    """

    suite: str
    arms: tuple[str, str]
    changes: tuple[Change, ...]
    failing: tuple[dict[str, Any], ...]
    fixed: tuple[dict[str, Any], ...]
    unpaired: tuple[str, ...]


def path_of(workdir: Path, arm: str, suite: str) -> Path:
    """Where a result is kept."""
    return workdir / "eval" / f"{arm}.suite.{suite}.json"


def load(workdir: Path, arm: str, suite: str) -> Result | None:
    """A result, or ``None`` where there is none.

    Raises:
      UserError: the file is damaged.
    """
    path = path_of(workdir, arm, suite)
    if not path.exists():
        return None
    result = workdirs.read_json(path)
    lacking = [key for key in FIELDS if not isinstance(result, dict) or key not in result]
    if lacking:
        raise UserError(f"{path}: no {lacking[0]!r} in it. Remove it and run sft eval suite again.")
    return result


def compare(before: Result, after: Result) -> Comparison:
    """Pairs the cases of two results that ask and expect the same.

    Args:
      before: as a rule the base model's.
    """
    old = {row["id"]: row for row in before["cases"]}
    pairs, unpaired = [], []
    for row in after["cases"]:
        other = old.get(row["id"])
        if other is not None and other["key"] == row["key"]:
            pairs.append((other, row))
        else:
            unpaired.append(row)
    decided = [(a, b) for a, b in pairs if None not in (a["passed"], b["passed"])]
    by_kind = {kind: [(a, b) for a, b in decided if b["kind"] == kind] for kind in KINDS}
    failing = [_line(b, a, _state(a)) for a, b in pairs if b["passed"] is False]
    failing += [_line(row, None, "new") for row in unpaired if row["passed"] is False]
    failing.sort(key=lambda row: row["state"] != "broken")  # stable: else in the suite's order
    return Comparison(
        suite=after["suite"],
        arms=(before["arm"], after["arm"]),
        changes=tuple(_change(kind, part) for kind, part in by_kind.items() if part),
        failing=tuple(failing),
        fixed=tuple(_line(b, a, "fixed") for a, b in decided if b["passed"] and not a["passed"]),
        unpaired=tuple(row["id"] for row in unpaired),
    )


def alone(result: Result) -> tuple[dict[str, Any], ...]:
    """The failing cases of one result, as ``Comparison.failing`` has them."""
    return tuple(_line(row, None, "") for row in result["cases"] if row["passed"] is False)


def _state(before: Result) -> str:
    return {True: "broken", False: "still failing", None: "new"}[before["passed"]]


def _change(kind: str, pairs: list[tuple[Result, Result]]) -> Change:
    before = [bool(a["passed"]) for a, _ in pairs]
    after = [bool(b["passed"]) for _, b in pairs]
    difference, low, high = stats.paired_difference(before, after)
    turned = list(zip(before, after, (b["id"] for _, b in pairs), strict=True))
    return Change(
        kind=kind,
        count=len(pairs),
        before=sum(before),
        after=sum(after),
        difference=difference,
        low=low,
        high=high,
        p=stats.mcnemar(before, after),
        fixed=tuple(name for a, b, name in turned if b and not a),
        broken=tuple(name for a, b, name in turned if a and not b),
    )


def _line(row: Result, before: Result | None, state: str) -> dict[str, Any]:
    return {
        "id": row["id"],
        "kind": row["kind"],
        "state": state,
        "prompt": row["turns"][-1]["text"],
        "answer": row["answer"],
        "cut": row.get("cut"),
        "before": before and before["answer"],
        "why": "; ".join(f"{fault['check']}: {fault['why']}" for fault in row["failed"]),
        "source": row["source"],
        "note": row["note"],
    }
