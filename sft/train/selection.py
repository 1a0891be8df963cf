"""Which validation is the best one: of lowest loss, or by another metric; the earlier on a tie."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sft.errors import UserError
from sft.train import log
from sft.workdir import write_json


@dataclasses.dataclass(frozen=True)
class Rule:
    """A metric of the validation rows of ``metrics.jsonl``, and which way it is better."""

    metric: str
    better: str  # lower | higher

    def rank(self, row: Mapping[str, float]) -> float:
        """Lower is better, whatever the metric."""
        return row[self.metric] if self.better == "lower" else -row[self.metric]


LOSS = Rule("loss", "lower")
RULES = {rule.metric: rule for rule in (LOSS, Rule("token_accuracy", "higher"))}
# In a validation row, but nothing to choose by.
NOT_METRICS = ("split", "weight", "loss_se", "answer_loss", "end_loss", "prompt_loss")


def validations(workdir: str | Path) -> list[dict[str, Any]]:
    """The validation rows after the first step, in order; of a step validated twice the later."""
    rows = [row for row in log.read(workdir) if row["split"] == "validation" and row["step"] > 0]
    return list({row["step"]: row for row in rows}.values())


def patience_ended(rows: Sequence[Mapping[str, float]], rule: Rule, patience: int) -> bool:
    """Whether the last ``patience`` validations were no better than one before; 0 = never.

    The untuned model does not count: what is tuned may have to get worse first.
    """
    if not patience or len(rows) <= patience:
        return False
    ranks = [rule.rank(row) for row in rows]
    return min(ranks[-patience:]) >= min(ranks[:-patience])


def standing(rows: Sequence[Mapping[str, float]], rule: Rule) -> str:
    """How the last of these validations does among them, in words."""
    best = min(rows, key=lambda row: (rule.rank(row), row["step"]))
    if best is rows[-1]:
        return "the best so far"
    found, epoch = f"{rule.metric.replace('_', ' ')} {best[rule.metric]:.4f}", _epoch(best["epoch"])
    return f"not better than epoch {epoch} ({found})"


def choose(workdir: Path, rule: Rule = LOSS, planned: int | None = None) -> dict[str, Any]:
    """Reads the validation rows of ``metrics.jsonl`` and writes ``selection.json``.

    Args:
      planned: steps that the run would have had; fewer were made where patience ended it.

    Raises:
      UserError: no validation was made, or none has the metric.
    """
    rows = validations(workdir)
    if not rows:
        raise UserError(f"{workdir}/metrics.jsonl: no finished epoch. Run sft train to its end.")
    lacking = next((row for row in rows if rule.metric not in row), None)
    if lacking:
        raise UserError(
            f"{workdir}/metrics.jsonl: the validation at step {lacking['step']} has no "
            f"{rule.metric!r}, which config.train.select asks for. Choose another --workdir."
        )
    epochs = [
        {key: value for key, value in row.items() if key not in NOT_METRICS}
        | {"epoch": _epoch(row["epoch"])}
        for row in rows
    ]
    best = min(epochs, key=lambda row: (rule.rank(row), row["step"]))
    extreme = {"lower": "lowest", "higher": "highest"}[rule.better]
    name = rule.metric.replace("_", " ")
    unit = "epochs" if all(row["epoch"] == round(row["epoch"]) for row in epochs) else "validations"
    why = f"{extreme} validation {name}, {best[rule.metric]:.4f}, of {len(epochs)} {unit}"
    chosen = {
        "metric": rule.metric,
        "better": rule.better,
        "epoch": best["epoch"],
        "step": best["step"],
        "checkpoint": f"checkpoints/{best['step']}",
        "epochs": epochs,
        "why": why,
    }
    if planned and epochs[-1]["step"] < planned:
        chosen["stopped_early"] = {"step": epochs[-1]["step"], "planned": planned}
    write_json(workdir / "selection.json", chosen)
    return chosen


def _epoch(epoch: float) -> int | float:
    return round(epoch) if epoch == round(epoch) else round(epoch, 2)
