"""Runs that differ in their seed only: how much a score depends on training.

The interval of a run's own score says how it would change with another test set. With another seed
the run itself would be another; only several seeds tell by how much (``sft.eval.seeds``).
"""

import dataclasses
import json
import math
from collections.abc import Sequence

from sft.eval import seeds
from sft.report import compare, scores
from sft.report.compare import Entry
from sft.report.scores import Change

# What a metric can be, of evaluations that do not say so themselves. Two seeds make intervals that
# Student's t lets reach beyond it.
_POSSIBLE = {
    "exact_match": (0.0, 1.0),
    "token_accuracy": (0.0, 1.0),
    "loss": (0.0, math.inf),
    "perplexity": (1.0, math.inf),
}

_ENDS = (-math.inf, math.inf)


@dataclasses.dataclass(frozen=True)
class Group:
    """One configuration, trained with one or more seeds.

    Attributes:
      label: the settings in which the groups differ; the runs' names, where there is one group.
      entries: one for each seed, in the order of the seeds.
      scores: by metric, over the seeds.
      changes: by metric, from the first group; paired by seed where both have the same seeds.
        Empty for the first one.
    """

    label: str
    entries: list[Entry]
    scores: dict[str, seeds.Summary]
    changes: dict[str, Change]

    @property
    def seeds(self) -> list[int]:
        return [entry.run.config["seed"] for entry in self.entries]


def of(table: compare.Table, fewest: int = 2) -> list[Group]:
    """The groups of at least ``fewest`` seeds among the tuned models of a table, in its order."""
    alike: dict[str, dict[int, Entry]] = {}
    for entry in table.entries:
        config = {key: value for key, value in entry.run.config.items() if key != "seed"}
        if entry.arm.startswith("base") or "seed" not in entry.run.config:
            continue
        by_seed = alike.setdefault(json.dumps([entry.arm, config], sort_keys=True), {})
        by_seed.setdefault(entry.run.config["seed"], entry)
    several = [by_seed for by_seed in alike.values() if len(by_seed) >= fewest]
    members = [[by_seed[seed] for seed in sorted(by_seed)] for by_seed in several]
    labels = _labels(members)
    return [
        Group(label, entries, _scores(table, entries), _changes(table, members[0], entries))
        for label, entries in zip(labels, members, strict=True)
    ]


def _labels(members: Sequence[list[Entry]]) -> list[str]:
    changed = compare.settings([entries[0].run for entries in members])
    differing = [(key, values) for key, values in changed if key != "seed"]
    labels = []
    for i, entries in enumerate(members):
        names = ", ".join(entry.label for entry in entries)
        said = ", ".join(f"{key} = {values[i]}" for key, values in differing)
        labels.append(said or names)
    return labels


def _values(entries: Sequence[Entry], metric: str) -> list[float]:
    return [entry.metrics[metric]["value"] for entry in entries]


def _scores(table: compare.Table, entries: Sequence[Entry]) -> dict[str, seeds.Summary]:
    return {
        metric: _possible(
            seeds.summary(_values(entries, metric)),
            entries[0].metrics[metric].get("bounds") or _POSSIBLE.get(metric, (None, None)),
        )
        for metric in table.metrics
        if all(metric in entry.metrics for entry in entries)
    }


def _possible(found: seeds.Summary, bounds: Sequence[float | None]) -> seeds.Summary:
    """The interval without what the metric cannot be; one that tells nothing stays infinite."""
    if found.deviation == 0:
        return found
    least, most = (x if x is not None else end for x, end in zip(bounds, _ENDS, strict=True))
    return dataclasses.replace(found, low=max(found.low, least), high=min(found.high, most))


def _changes(
    table: compare.Table, first: Sequence[Entry], entries: Sequence[Entry]
) -> dict[str, Change]:
    if entries is first:
        return {}
    paired = [e.run.config["seed"] for e in first] == [e.run.config["seed"] for e in entries]
    found = {}
    for metric in table.metrics:
        both = [*first, *entries]
        if not all(metric in entry.metrics for entry in both):
            continue
        if compare.apart(metric, both, table.name):
            continue
        values = _values(first, metric), _values(entries, metric)
        difference = seeds.difference(*values, paired=paired)
        better = first[0].metrics[metric]["better"]
        found[metric] = scores.change(difference, better, len(entries))
    return found
