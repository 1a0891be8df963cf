"""What the course of a run says: the guide's patterns and more, each with evidence and a remedy.

A rule is a function ``Run -> Finding | None`` that sees its own pattern and nothing else; a new one
is an entry of ``RULES``.
"""

import dataclasses

from sft.report.diagnosis import choice, curves, data, history
from sft.report.diagnosis.history import Finding as Finding
from sft.report.load import Run

SEVERITIES = ("error", "warning", "note")

# What is looked at, as a person reads it, and the rule.
RULES = {
    "a run that diverged": curves.diverged,
    "a run that does not move": curves.not_moving,
    "the loss at the start": data.large_start,
    "rows cut for their length": data.cut,
    "rows without targets": data.without_targets,
    "train and validation alike": data.distributions,
    "suboptimal training": curves.suboptimal,
    "overfitting": curves.overfitting,
    "a validation set too small to tell": choice.small_validation,
    "loss and metric disagreeing": choice.disagreement,
}


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Attributes:
    findings: the most severe first, then in the order of ``RULES``.
    summary: one sentence: what was checked, and what could not be.
    """

    findings: list[Finding]
    summary: str


def diagnose(run: Run) -> Diagnosis:
    """Asks every rule."""
    found = [finding for rule in RULES.values() if (finding := rule(run))]
    found.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    rest = f"Checked: {', '.join(RULES)}.{_blind(run)}"
    return Diagnosis(found, rest if found else f"Nothing stands out. {rest}")


def _blind(run: Run) -> str:
    """What a run lacks for some of the rules."""
    lacking = []
    if not run.train:
        lacking.append("no step is logged")
    elif run.train[0]["step"] != 1:
        lacking.append("the first step is not logged (config.train.log_every)")
    if len(run.validation) < 2:
        lacking.append("no epoch is finished")
    if history.with_prompts(run):
        lacking.append(
            "training losses are of prompts too (config.loss.prompt_weight), validation losses of "
            "answers alone"
        )
    if "skew" not in run.data:
        lacking.append("the sets were not compared (sft data)")
    return f" Not all could be: {'; '.join(lacking)}." if lacking else ""
