"""A sweep as one table: each configuration over its seeds, against the first one.

Where both have two seeds or more the difference is tested over seeds (``groups``); with a single
seed of either only over the prompts of the test set (``scores``), which says nothing of how another
seed would have turned out.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sft.errors import UserError
from sft.report import compare, groups, scores, shapes
from sft.report.groups import Group
from sft.report.load import Run, damaged, load_run, named, read_bytes, read_object
from sft.report.scores import Change
from sft.run.directory import path_of

_NOT_TRAINING = ("eval.", "judge.", "mine.", "data.test", "train.keep_")
_SHOWN = 40  # characters of a name that cannot be one
_CODE = ("versions", "python")  # of environment.json: what must be alike, and git


@dataclasses.dataclass(frozen=True)
class Row:
    """One configuration.

    Attributes:
      settings: key and value of each knob that the sweep turns, but the seed.
      changes: by metric, from the first row's; empty for it.
      over_seeds: whether ``changes`` are tested over seeds, or over prompts.
      commands: what was typed for each seed.
    """

    settings: dict[str, Any]
    group: Group
    changes: dict[str, Change]
    over_seeds: bool
    fingerprints: list[str]
    commands: list[str]


@dataclasses.dataclass(frozen=True)
class Sheet:
    """The rows on one set.

    Attributes:
      best: by metric, index of the row with the best mean.
      baselines: answers without a model, which are compared with no row.
    """

    name: str
    knobs: list[str]
    metrics: list[str]
    rows: list[Row]
    best: dict[str, int]
    notes: list[str]
    baselines: list[scores.Baseline]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Attributes:
    unfinished: names of points that have no scores yet.
    stopped: of points that a search had enough of, why.
    ignored: settings that changed nothing in training, a sentence each.
    """

    path: Path
    comparison: compare.Comparison
    sheets: list[Sheet]
    unfinished: list[str]
    stopped: dict[str, str]
    ignored: list[str]


def load(workdir: str | Path) -> Sweep:
    """Reads the points of a sweep that have been scored.

    Raises:
      UserError: no scored point, or points that must not be in one table: other code, other data
        under the same settings, other test data or prompts; names the difference.
    """
    path = named(workdir)
    again = "Restore it, or remove it and run the same `sft sweep` again."
    known = read_object(path / "sweep.json", again, shapes.SWEEP) or {"points": {}}
    runs, unfinished, stopped = {}, [], {}
    for name in known["points"]:
        if not shapes.is_file_name(name):
            found = f"field 'points' has {name[:_SHOWN]!a}, which is not the name of a folder"
            raise damaged(path / "sweep.json", found, again)
        note = read_bytes(path / name / "STOPPED", "Remove it.")
        run = load_run(path / name) if (path / name / "config.json").exists() else None
        if run and any(not arm.startswith("base") for arm, _ in run.evals):
            runs[name] = run
        elif note is not None:
            stopped[name] = note.decode(errors="replace")
        else:
            unfinished.append(name)
    if not runs:
        raise UserError(f"{path}: no point of the sweep has been scored yet: sft sweep goes on.")
    why = mixed(runs)
    comparison = compare.compare(list(runs.values()))
    why += comparison.refused
    if why:
        raise UserError(f"{path}: not one table. {'; '.join(why)}.")
    sheets = [_sheet(table) for table in comparison.tables]
    return Sweep(path, comparison, sheets, unfinished, stopped, ignored(runs))


def mixed(runs: dict[str, Run]) -> list[str]:
    """Why these runs must not stand in one table, a sentence each."""
    (first, one), *others = runs.items()
    found = []
    for name, run in others:
        for key in _CODE:
            ours, theirs = (r.environment.get(key) for r in (one, run))
            if ours != theirs:
                found.append(f"{first} and {name} were made by other {key}: {_apart(ours, theirs)}")
        code = [(r.environment.get("git") or {}).get("revision") for r in (one, run)]
        if code[0] != code[1]:
            found.append(f"{first} and {name} were made by other code: {code[0]} and {code[1]}")
        data = [{k: v for k, v in r.config.items() if k.startswith("data.")} for r in (one, run)]
        content = [r.data.get("sets", {}).get("train", {}).get("content") for r in (one, run)]
        if data[0] == data[1] and None not in content and content[0] != content[1]:
            found.append(
                f"{first} and {name} were trained on other data under the same settings "
                f"({content[0]} and {content[1]}): a file has changed"
            )
    return found


def ignored(runs: dict[str, Run]) -> list[str]:
    """Runs with the same losses at every step, though their settings are to change training."""
    by_losses: dict[tuple, tuple[str, Run]] = {}
    found = []
    for name, run in runs.items():
        losses = tuple((row["step"], row["loss"]) for row in run.train)
        if not losses:
            continue
        first, one = by_losses.setdefault(losses, (name, run))
        turned = [
            key
            for key, value in run.config.items()
            if one.config.get(key) != value and not key.startswith(_NOT_TRAINING)
        ]
        if turned:
            found.append(
                f"{first} and {name} had the same loss at every step: {', '.join(turned)} changed "
                "nothing in training."
            )
    return found


def _apart(ours: Any, theirs: Any) -> str:
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return f"{ours} and {theirs}"
    keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    return ", ".join(f"{key} {ours.get(key)} and {theirs.get(key)}" for key in keys)


def _sheet(table: compare.Table) -> Sheet:
    found = groups.of(table, fewest=1)
    first = [group.entries[0].run for group in found]
    turned = [(key, values) for key, values in compare.settings(first) if key != "seed"]
    rows = []
    for i, group in enumerate(found):
        several = len(group.entries) > 1 and len(found[0].entries) > 1
        rows.append(
            Row(
                {key: values[i] for key, values in turned},
                group,
                group.changes if several or not i else _over_prompts(found[0], group),
                several,
                [entry.run.fingerprint for entry in group.entries],
                [entry.run.environment.get("command", "") for entry in group.entries],
            )
        )
    best = {metric: index for metric in table.metrics if (index := _best(metric, rows)) is not None}
    knobs = [key for key, _ in turned]
    return Sheet(table.name, knobs, table.metrics, rows, best, table.notes, table.baselines)


def _over_prompts(first: Group, group: Group) -> dict[str, Change]:
    """The first seeds of both on the same prompts."""
    before, after = first.entries[0], group.entries[0]
    if [scores.key(r) for r in before.predictions] != [scores.key(r) for r in after.predictions]:
        return {}
    return scores.changes(
        scores.settings(after.run, after.record),
        before.predictions,
        after.predictions,
        before.metrics,
        after.metrics,
    )


def _best(metric: str, rows: Sequence[Row]) -> int | None:
    """The row of the best mean; ``None`` for a metric that not all have, or that is the same."""
    if not all(metric in row.group.scores for row in rows):
        return None
    sign = 1 if rows[0].group.entries[0].metrics[metric]["better"] == "higher" else -1
    means = [sign * row.group.scores[metric].mean for row in rows]
    return None if len(set(means)) == 1 else max(range(len(rows)), key=means.__getitem__)


def interval(row: Row, metric: str) -> tuple[float, float] | None:
    """Of the mean over seeds; of the only seed's score over the test set."""
    score = row.group.scores[metric]
    if len(row.group.entries) > 1:
        return (score.low, score.high) if score.deviation else None
    given = row.group.entries[0].metrics[metric].get("interval")
    return tuple(given) if given and None not in given else None


def lines(sheet: Sheet, metric: str) -> list[tuple[str, list[tuple[str, list[tuple]]]]]:
    """What to draw of a metric: for each numeric knob, the lines of ``points.knob``."""
    rows = [row for row in sheet.rows if metric in row.group.scores]
    found = []
    for key in sheet.knobs:
        if any(isinstance(v := row.settings[key], bool | str) or v is None for row in rows):
            continue
        by_rest: dict[str, list[tuple]] = {}
        for row in rows:
            rest = {other: value for other, value in row.settings.items() if other != key}
            name = ", ".join(f"{other.rpartition('.')[2]} {v}" for other, v in rest.items())
            low, high = interval(row, metric) or (None, None)
            point = (row.settings[key], row.group.scores[metric].mean, low, high)
            by_rest.setdefault(name, []).append(point)
        drawn = [(name, sorted(points)) for name, points in by_rest.items() if len(points) > 1]
        if drawn:
            found.append((key, drawn))
    return found


def is_sweep(workdir: str | Path) -> bool:
    return (path_of(workdir) / "sweep.json").exists()


def settings_text(row: Row) -> str:
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in row.settings.items()) or "base"
