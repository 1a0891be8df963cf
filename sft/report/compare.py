"""Several runs beside each other: which scores may be compared, and which run is best at what."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from sft.eval.metrics import LIKELIHOOD
from sft.eval.verdict import SIGNIFICANT
from sft.report import findings, scores
from sft.report.load import Record, Run
from sft.report.scores import Change
from sft.run import display

_PROMPT_KEYS = ("data.reading.", "data.sources.", "data.eval_on", "data.chat", "eval.shots")
_MODEL_KEYS = ("model.name", "model.tokenizer", "data.chat")  # what makes text other tokens


@dataclasses.dataclass(frozen=True)
class Entry:
    """One evaluated model: the base, or what a run chose."""

    label: str
    run: Run
    arm: str
    record: Record
    predictions: list[Record]

    @property
    def metrics(self) -> dict[str, Record]:
        return scores.metrics(self.record)


@dataclasses.dataclass(frozen=True)
class Table:
    """The scores on one set.

    Attributes:
      apart: of the metrics that are shown but not compared, why.
      notes: what is not compared, and why.
    """

    name: str
    metrics: list[str]
    entries: list[Entry]
    apart: dict[str, str]
    notes: list[str]

    @property
    def baselines(self) -> list[scores.Baseline]:
        """What stands among the models and is compared with none of them."""
        return scores.baselines(*(entry.record for entry in self.entries))

    # Resampling takes its time: only where they are wanted, and once.

    @functools.cached_property
    def best(self) -> dict[str, str]:
        """By metric, the label of the entry that is surely better than every other; metrics of
        which that cannot be said are left out."""
        found = {}
        for metric in self.metrics:
            if metric not in self.apart:
                found[metric] = _winner(metric, [e for e in self.entries if metric in e.metrics])
        return {metric: label for metric, label in found.items() if label}

    @functools.cached_property
    def to_base(self) -> dict[str, dict[str, Change]]:
        """By label and metric, the change from that run's own base model."""
        tuned = [entry for entry in self.entries if entry.arm != "base"]
        return {e.label: scores.against_base(e.run, e.arm, self.name) for e in tuned}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Attributes:
    labels: of the runs, in order.
    refused: one sentence for each set whose scores must not be compared.
    settings: key and its value in each run, of the keys that differ.
    """

    labels: list[str]
    runs: list[Run]
    tables: list[Table]
    refused: list[str]
    settings: list[tuple[str, list[Any]]]


def compare(runs: Sequence[Run]) -> Comparison:
    """Compares what can be compared."""
    labels = names(runs)
    tables, refused = [], []
    for name in sorted({name for run in runs for name in run.sets}):
        tuned = _tuned(runs, labels, name)
        why = next((why for one in tuned[1:] if (why := not_the_same(name, tuned[0], one))), None)
        if why:
            refused.append(why)
        elif tuned:
            tables.append(_table(name, tuned, labels))
    return Comparison(labels, list(runs), tables, refused, settings(runs))


def names(runs: Sequence[Run]) -> list[str]:
    """The directory of each run by its name, or by its whole path where names are the same."""
    short = [run.path.resolve().name for run in runs]
    return [
        name if short.count(name) == 1 else str(run.path)
        for name, run in zip(short, runs, strict=True)
    ]


def settings(runs: Sequence[Run]) -> list[tuple[str, list[Any]]]:
    """Only what differs, in the order of the first configuration; ``None`` = no such key."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    rows = [(key, [run.config.get(key) for run in runs]) for key in keys]
    return [(key, values) for key, values in rows if any(v != values[0] for v in values)]


def _tuned(runs: Sequence[Run], labels: Sequence[str], name: str) -> list[Entry]:
    """What each run has to show on the set: the best checkpoint, or else the one evaluated last."""
    found = []
    for run, label in zip(runs, labels, strict=True):
        arms = [arm for arm in scores.arms(run, name) if not arm.startswith("base")]
        if arms:
            found.append(_entry(run, label, arms[-1], name))
    return found


def _entry(run: Run, label: str, arm: str, name: str) -> Entry:
    return Entry(label, run, arm, run.evals[arm, name], run.predictions[arm, name])


def not_the_same(name: str, one: Entry, other: Entry) -> str | None:
    """Why the scores of two runs on a set must not be compared, or ``None``."""
    left, right = ([(r["prompt"], r["expected"]) for r in e.predictions] for e in (one, other))
    if left != right:
        shared = len(set(left) & set(right))
        return (
            f"{name}: {one.label} and {other.label} were not scored on the same test data: "
            f"{len(left)} and {len(right)} prompts, {shared} of them in both "
            f"({one.record.get('data')}; {other.record.get('data')})"
        )
    pair = content(one, name), content(other, name)
    configs = one.run.config, other.run.config
    same_model = all(configs[0].get(key) == configs[1].get(key) for key in _MODEL_KEYS)
    if None in pair or pair[0] == pair[1] or not same_model:
        return None
    changed = [
        f"{key}: {configs[0].get(key)!r} and {configs[1].get(key)!r}"
        for key in dict.fromkeys([*configs[0], *configs[1]])
        if key.startswith(_PROMPT_KEYS) and configs[0].get(key) != configs[1].get(key)
    ]
    return (
        f"{name}: {one.label} and {other.label} were not scored with the same prompts: the texts "
        f"are alike, but not what the model was given ({'; '.join(changed) or 'contents'} "
        f"{pair[0]} and {pair[1]})"
    )


def content(entry: Entry, name: str) -> str | None:
    """Fingerprint of the tokens of a set and of those that count; ``None`` = not recorded."""
    sets = entry.run.data.get("sets", {})
    known = sets.get(f"test {name}", sets.get(name, {}))  # as data/report.json calls them
    return entry.record.get("content") or known.get("content")


def _table(name: str, tuned: list[Entry], labels: Sequence[str]) -> Table:
    entries = [*_bases(tuned, name), *tuned]
    metrics = list(dict.fromkeys(metric for entry in tuned for metric in entry.metrics))
    lacking = [label for label in labels if label not in {entry.label for entry in tuned}]
    notes = [f"Not evaluated: {', '.join(lacking)}."] if lacking else []
    reasons = {metric: apart(metric, tuned, name) for metric in metrics}
    kept_apart = {metric: why for metric, why in reasons.items() if why}
    notes += [
        f"{display.name(metric)} is shown but not compared: {why}."
        for metric, why in kept_apart.items()
    ]
    return Table(name, metrics, entries, kept_apart, notes + _of_generation(entries))


def _of_generation(entries: Sequence[Entry]) -> list[str]:
    """What is to be known of generated answers: those that were cut, and other settings."""
    notes = []
    cut = {e.label: e.record["cut"] / e.record["count"] for e in entries if "cut" in e.record}
    if any(cut.values()):
        said = ", ".join(f"{label} {display.share(share)}" for label, share in cut.items())
        notes.append(f"Answers cut at config.eval.max_new_tokens: {said}.")
    first = scores.settings(entries[0].run, entries[0].record)
    for entry in entries[1:]:
        other = scores.generated_otherwise(first, scores.settings(entry.run, entry.record))
        if other:
            notes.append(
                f"{entries[0].label} and {entry.label} generated with other settings: {other}."
            )
    return notes


def _bases(tuned: list[Entry], name: str) -> list[Entry]:
    """The base models, once where all runs have the same."""
    found = [
        _entry(entry.run, f"base of {entry.label}", "base", name)
        for entry in tuned
        if entry.run.eval("base", name)
    ]
    found = [base for base in found if not not_the_same(name, tuned[0], base)]
    if found and all(_alike(found[0], base) for base in found[1:]):
        return [dataclasses.replace(found[0], label="base")]
    return found


def _alike(one: Entry, other: Entry) -> bool:
    answers = [[row["predicted"] for row in entry.predictions] for entry in (one, other)]
    return answers[0] == answers[1] and one.metrics == other.metrics


def apart(metric: str, entries: Sequence[Entry], name: str) -> str | None:
    """Why the values of this metric are not of one kind, or ``None``."""
    signatures = {str(e.metrics[metric].get("signature")) for e in entries if metric in e.metrics}
    if len(signatures) > 1:
        return f"its settings differ ({'; '.join(sorted(signatures))})"
    contents = {content(entry, name) for entry in entries}
    if metric in LIKELIHOOD and len(contents - {None}) > 1:
        return "the same text is other tokens there (another model or chat format)"
    return None


def _winner(metric: str, entries: Sequence[Entry]) -> str | None:
    """The best of all by this metric, if it is surely better than each of the others.

    As many tests are made as there are others, so each must hold at that part of the level
    (Bonferroni).
    """
    sign = 1 if entries[0].metrics[metric]["better"] == "higher" else -1
    best = max(entries, key=lambda entry: sign * entry.metrics[metric]["value"])
    others = [entry for entry in entries if entry is not best]
    for other in others:
        rows = other.predictions, best.predictions
        pair = {metric: other.metrics[metric]}, {metric: best.metrics[metric]}
        if len(rows[0]) != len(rows[1]):
            return None
        settings = scores.settings(best.run, best.record)
        change = scores.changes(settings, *rows, *pair).get(metric)
        if not change or change.verdict != "better":
            return None
        if change.p * len(others) >= SIGNIFICANT:
            return None
    return best.label if others else None


def answers(table: Table, most: int = 20) -> list[Record]:
    """Prompts to which the runs gave different answers, spread over the set.

    Those on which some are right and some wrong, by the metric that the set is about, come first.

    Returns:
      ``{"source", "prompt", "expected", "answers": [(label, text, more, is_right)]}`` each, see
      ``scores.answer_of``.
    """
    tuned = [entry for entry in table.entries if entry.arm != "base"]
    metric = scores.primary(*(entry.record for entry in tuned))
    rows = list(zip(*(entry.predictions for entry in tuned), strict=True))
    split, rest = [], []
    for row in rows:
        if len({scores.answer_of(one, metric) for one in row}) > 1:
            rights = {scores.is_right(one, metric) for one in row}
            (split if len(rights) > 1 else rest).append(row)
    chosen = findings.spread(split, most)
    chosen += findings.spread(rest, most - len(chosen))
    return [
        {
            **{key: row[0][key] for key in ("source", "prompt", "expected")},
            "answers": [
                (entry.label, *scores.answer_of(one, metric), scores.is_right(one, metric))
                for entry, one in zip(tuned, row, strict=True)
            ],
        }
        for row in chosen
    ]
