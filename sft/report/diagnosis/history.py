"""A run as a course of epochs, and how sure each of its losses is."""

import dataclasses
import math

from sft.report.load import Record, Run


@dataclasses.dataclass(frozen=True)
class Finding:
    """One pattern that a run shows.

    Attributes:
      name: of the rule.
      severity: ``error`` (the result is no use), ``warning`` (it could be better, or may not be
        trusted) or ``note``.
      sentence: the evidence, with its numbers.
      remedy: what to do next.
    """

    name: str
    severity: str
    sentence: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One validation, and the training before it.

    Attributes:
      number: epochs done; 0 is the model before the first step.
      loss: of the validation set, nats per trained token.
      se: standard error of ``loss`` over validation sets like this one.
      train: mean training loss since the validation before, nats per trained token; ``None`` at 0
        and where no step was logged.
    """

    number: float
    step: int
    loss: float
    se: float
    train: float | None
    record: Record


def epochs(run: Run) -> list[Epoch]:
    """Every validation of finite loss, in order."""
    found, since = [], 0
    for record in run.validation:
        if not math.isfinite(record["loss"]):
            continue
        steps = [r for r in run.train if since < r["step"] <= record["step"]]
        train = mean_loss(steps) if steps else None
        se = standard_error(record)
        found.append(Epoch(record["epoch"], record["step"], record["loss"], se, train, record))
        since = record["step"]
    return found


def tuned(run: Run) -> list[Epoch]:
    """The validations after the first step."""
    return [epoch for epoch in epochs(run) if epoch.step > 0]


def start(run: Run) -> Epoch | None:
    """The validation before the first step."""
    return next((epoch for epoch in epochs(run) if epoch.step == 0), None)


def with_prompts(run: Run) -> bool:
    """Whether training losses are of prompts too, and so are not to be held against validation."""
    return bool(run.config.get("loss.prompt_weight"))


def mean_loss(records: list[Record]) -> float:
    """Of training rows, per trained token (per step, where tokens were not logged)."""
    weights = [record.get("trained_tokens", 1.0) for record in records]
    total = sum(r["loss"] * w for r, w in zip(records, weights, strict=True))
    return total / sum(weights)


def standard_error(record: Record) -> float:
    """Of the loss of a training or validation row, nats.

    As logged (``loss_se``), or else from the number of tokens: the losses of single tokens are
    spread about as widely as their mean is large, as exponential ones are. Infinite where neither
    is known, so that nothing is read into such a loss.
    """
    if record.get("loss_se") is not None:
        return record["loss_se"]
    tokens = record.get("weight") or record.get("trained_tokens")
    return record["loss"] / math.sqrt(tokens) if tokens else math.inf


def name(epoch: Epoch) -> str:
    return f"epoch {epoch.number:g}" if epoch.step else "the start"


def percent(share: float) -> str:
    return f"{100 * share:.{0 if share >= 0.1 else 1}f} %"
