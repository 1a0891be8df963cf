"""Which validation is the best one: of lowest loss, or by another metric.

Of validations with the same value the one of lowest loss is the best, and of these the earliest.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sft.errors import UserError
from sft.run import display, log
from sft.run.directory import write_json


@dataclasses.dataclass(frozen=True)
class Rule:
    """A metric of the validation rows of ``metrics.jsonl``, and which way it is better."""

    metric: str
    better: str  # lower | higher

    def rank(self, row: Mapping[str, float]) -> tuple[float, float]:
        """Lower is better, whatever the metric; the second number, the loss, decides on a tie."""
        return row[self.metric] if self.better == "lower" else -row[self.metric], row["loss"]


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

    Better is what would be chosen: the same value with a lower loss is. The untuned model does not
    count: what is tuned may have to get worse first.
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
    value = display.score(best[rule.metric], rule.metric)
    return f"not better than epoch {_epoch(best['epoch'])} ({display.name(rule.metric)} {value})"


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
    chosen: dict[str, Any] = {
        "metric": rule.metric,
        "better": rule.better,
        "epoch": best["epoch"],
        "step": best["step"],
        "checkpoint": f"checkpoints/{best['step']}",
        "epochs": epochs,
        "why": _why(rule, epochs, best),
    }
    if warning := _warning(rule, epochs):
        chosen["warning"] = warning
    if planned and epochs[-1]["step"] < planned:
        chosen["stopped_early"] = {"step": epochs[-1]["step"], "planned": planned}
    write_json(workdir / "selection.json", chosen)
    return chosen


def _why(rule: Rule, epochs: Sequence[dict[str, Any]], best: dict[str, Any]) -> str:
    extreme = {"lower": "lowest", "higher": "highest"}[rule.better]
    unit = "epochs" if all(row["epoch"] == round(row["epoch"]) for row in epochs) else "validations"
    value = display.score(best[rule.metric], rule.metric)
    why = f"{extreme} validation {display.name(rule.metric)}, {value}, of {len(epochs)} {unit}"
    ties = [row for row in epochs if row[rule.metric] == best[rule.metric]]
    if len(ties) == 1:
        return why
    equal = [row for row in ties if row["loss"] == best["loss"]]
    by = [f"of lowest loss, {best['loss']:.4f}"] if len(equal) < len(ties) else []
    by += ["the earliest"] if len(equal) > 1 else []
    return f"{why}; {len(ties)} have it, and this one is {' and '.join(by)}"


def _warning(rule: Rule, epochs: Sequence[dict[str, Any]]) -> str:
    """What is wrong with the choice, and what to do; ``""``: nothing."""
    values = {row[rule.metric] for row in epochs}
    if len(epochs) < 2 or len(values) > 1:
        return ""
    name, value = display.name(rule.metric), display.score(values.pop(), rule.metric)
    if rule == LOSS:
        return f"validation loss was {value} at all {len(epochs)} validations: nothing was learnt."
    said = f"{name} was {value} at all {len(epochs)} validations, so that it chose nothing"
    cut = max(row.get("cut", 0.0) for row in epochs)
    remedy = "Choose by another metric, as config.train.select = loss"
    if rule.metric not in RULES:
        remedy += ", or validate on more prompts (config.eval.during_training)"
    if cut:
        said += f"; up to {display.share(cut)} of the answers were cut"
        remedy = f"Raise config.eval.max_new_tokens. {remedy}"
    return f"{said}. {remedy}."


def _epoch(epoch: float) -> int | float:
    return round(epoch) if epoch == round(epoch) else round(epoch, 2)
