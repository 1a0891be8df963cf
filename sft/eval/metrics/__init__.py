"""The metrics of generated answers, by name. A new one is an entry of ``_METRICS``.

found = metrics.of(config, expected)             # {name: Metric}
metrics.check(found, "test", expected, sources)  # before anything is generated
statistics_nxk = found["bleu"].statistics(predicted, expected)
bleu = found["bleu"].value(statistics_nxk.sum(0))
"""

import dataclasses
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from sft.config.check import RANKED
from sft.errors import UserError
from sft.eval.metrics import (
    labels,
    likelihood,
    match,
    numbers,
    overlap,
    own,
    structured,
    translation,
    words,
)
from sft.eval.metrics.metric import Metric
from sft.train.selection import RULES, Rule

__all__ = [
    "LIKELIHOOD",
    "RANKED",
    "Metric",
    "check",
    "chooses",
    "looks_at",
    "names",
    "of",
    "primary",
    "ranked",
]

Make = Callable[[ConfigDict, Sequence[str], str], Metric]  # config.eval, expected, language

_METRICS: dict[str, Make] = {
    "exact_match": lambda knobs, expected, language: match.exact_match(),
    "exact_match_normalised": lambda knobs, expected, language: match.exact_match_normalised(),
    "accuracy": lambda knobs, expected, language: labels.accuracy(),
    "macro_f1": lambda knobs, expected, language: labels.macro_f1(expected),
    "micro_f1": lambda knobs, expected, language: labels.micro_f1(expected),
    "token_f1": lambda knobs, expected, language: overlap.token_f1(language),
    "bleu": lambda knobs, expected, language: translation.bleu(language),
    "chrf": lambda knobs, expected, language: translation.chrf(),
    "rouge1": lambda knobs, expected, language: overlap.rouge("rouge1", language),
    "rouge2": lambda knobs, expected, language: overlap.rouge("rouge2", language),
    "rougeL": lambda knobs, expected, language: overlap.rouge("rougeL", language),
    "json_valid": lambda knobs, expected, language: structured.json_valid(),
    "json_fields": lambda knobs, expected, language: structured.json_fields(),
    "regex_match": lambda knobs, expected, language: match.regex_match(knobs.pattern),
    "numeric_match": lambda knobs, expected, language: match.numeric_match(
        knobs.tolerance,
        # Of the scripts that are told apart, only European languages write a decimal comma.
        numbers.convention(expected) if language == "other" else numbers.POINT,
    ),
}

# Always reported; their statistics come from the model and not from texts.
LIKELIHOOD = {
    metric.name: metric
    for metric in (likelihood.loss, likelihood.perplexity, likelihood.token_accuracy)
}


def of(config: ConfigDict, expected: Sequence[str]) -> dict[str, Metric]:
    """The metrics of ``config.eval.metrics``, in order, for a set with these expected answers.

    The set decides the labels of F1 and, unless ``config.eval.language`` does, the language, and
    with it the tokenizer and the signature. So two arms have the same metrics, and so does a part
    of the set if it is given the answers of all of it.

    Raises:
      UserError: a tokenizer that is not installed; a metric of the user's own that cannot be had.
    """
    knobs = config.eval
    seen = [looks_at(config)(text) for text in expected]
    language = knobs.language or words.find_language(seen)
    entries = [entry.strip() for entry in knobs.metrics.split(",")]
    found = [
        own.load(entry) if ":" in entry else _METRICS[entry](knobs, seen, language)
        for entry in entries
    ]
    if knobs.compare == "first_line":
        found = [_of_first_lines(metric) for metric in found]
    return {metric.name: metric for metric in found}


def looks_at(config: ConfigDict) -> Callable[[str], str]:
    """What of an answer is compared, by ``config.eval.compare``."""
    return match.first_line if config.eval.compare == "first_line" else str


def _of_first_lines(metric: Metric) -> Metric:
    """The metric of the first lines of both answers."""

    def lines(texts: Sequence[str]) -> list[str]:
        return [match.first_line(text) for text in texts]

    return dataclasses.replace(
        metric,
        signature="|".join(filter(None, [metric.signature, "first line"])),
        statistics=lambda predicted, expected: metric.statistics(lines(predicted), lines(expected)),
        unfit=lambda expected: metric.unfit(lines(expected)),
    )


def ranked(expected: Sequence[str], count: int) -> dict[str, Metric]:
    """The metrics of labels chosen by likelihood, see ``sft.eval.ranking``.

    Args:
      expected: as they are compared.
      count: of the labels that were ranked.
    """
    made = {
        "label_accuracy": labels.accuracy(),
        "label_macro_f1": labels.macro_f1(expected),
        "label_accuracy_norm": labels.accuracy(),
    }
    return {
        name: dataclasses.replace(metric, name=name, signature=f"ranked:{count}")
        for name, metric in made.items()
    }


def names(config: ConfigDict) -> list[str]:
    """The names of ``config.eval.metrics``, in order."""
    return [entry.rpartition(":")[2].strip() for entry in config.eval.metrics.split(",")]


def primary(config: ConfigDict) -> str:
    """The metric that a set is about: what headlines, lines and verdicts are of.

    ``config.train.select`` where that is a metric of answers; else ``label_accuracy`` where
    ``config.eval.labels`` is set; else the first of ``config.eval.metrics``.
    """
    by_answers = [*names(config), *(RANKED if config.eval.labels else ())]
    if config.train.select in by_answers:
        return config.train.select
    return RANKED[0] if config.eval.labels else by_answers[0]


def chooses(config: ConfigDict) -> Rule:
    """What ``config.train.select`` says is the best validation."""
    select = config.train.select
    if select in RULES:
        return RULES[select]
    # Which way a metric is better does not depend on the answers.
    return Rule(select, "higher" if select in RANKED else of(config, [""])[select].better)


def check(
    metrics: dict[str, Metric], label: str, expected: Sequence[str], sources: Sequence[str]
) -> None:
    """Whether each metric can say something about a set: quick, and before any generation.

    Args:
      label: of the set, for the message.
      sources: of its rows.

    Raises:
      UserError: the set is empty, or a metric does not fit it; names metric, set, row, remedy.
    """
    if not expected:
        raise UserError(f"config.data.test: the set {label} has no rows to evaluate.")
    for name, metric in metrics.items():
        unfit = metric.unfit(expected)
        if unfit:
            row, why = unfit
            raise UserError(
                f"config.eval.metrics: {name} does not fit the set {label}: {sources[row]}: {why}"
            )
