"""The figures of the reports: curves of runs, scores as points, scores against a setting."""

import itertools
from collections.abc import Sequence
from typing import Any

from sft.report import drawing, scales
from sft.report.drawing import FAINT, INK, TRAIN, VALIDATION, Drawing
from sft.report.load import Record, Run
from sft.run import display

MANY, NAMED = 12, 6  # lines: with more than so many, only so few are told apart
_APART = 8  # times the smallest loss of several runs: else a logarithmic axis
_HOLLOW = {"marker": "D", "linestyle": "none", "fillstyle": "none", "clip_on": False}

type _Series = tuple[list[float], list[float]]  # x, y


def curve(run: Run, field: str, label: str, trained: str = "training") -> Drawing | None:
    """``field`` over optimiser steps for both splits; ``None`` where there is nothing to draw.

    Training is drawn light as logged and strong as a trailing mean; validation as points; that
    before the first step apart from the others, as it belongs to no training; the chosen epoch as
    a vertical line.

    Args:
      trained: what the training values are of, for the legend.
    """
    train = _series(run.train, field)
    validation = _series([row for row in run.validation if row["step"] > 0], field)
    before = _series([row for row in run.validation if row["step"] == 0], field)
    if not (train[0] or validation[0] or before[0]):
        return None
    with drawing.canvas(5.0, 3.1) as (figure, axes):
        if train[0]:
            window = max(1, len(train[0]) // 20)
            axes.plot(*train, color=TRAIN, alpha=0.3, linewidth=1)
            name = f"{trained}, mean of {window} steps" if window > 1 else trained
            axes.plot(train[0], trailing_mean(train[1], window), color=TRAIN, label=name)
        points: dict[str, Any] = {"color": VALIDATION, "markersize": 5}
        if validation[0]:
            axes.plot(*validation, marker="o", label="validation", **points)
        if before[0]:
            name = f"before training: {display.score(before[1][-1], field)}"
            axes.plot([0], before[1][-1:], label=name, **_HOLLOW, **points)
        if run.selection:
            _mark_chosen(axes, run.selection, validation)
        scales.scale_y(axes, field, [*train[1], *validation[1], *before[1]])
        scales.over_steps(figure, axes, [*train[0], *validation[0]], scales.unit(field, label))
        svg = drawing.written(figure)
    found = [("train", row) for row in run.train] + [("validation", row) for row in run.validation]
    rows = [
        (split, row["step"], row["epoch"], row[field])
        for split, row in found
        if row.get(field) is not None
    ]
    title = f"{label} over optimiser steps"
    return Drawing(drawing.file_name(field), title, svg, ("split", "step", "epoch", field), rows)


def course(run: Run, field: str, label: str, limit: float = 0.0) -> Drawing | None:
    """A small figure of ``field`` as logged in training; ``None`` where it has not been logged.

    Args:
      limit: drawn as a line across; 0 = none.
    """
    steps, values = _series(run.train, field)
    if not steps:
        return None
    with drawing.canvas(5.0, 1.9) as (figure, axes):
        axes.plot(steps, values, color=TRAIN, linewidth=1.2, label=label)
        if 0 < limit < 2 * max(values):  # further up it would only flatten the curve
            axes.axhline(limit, color=INK, linestyle=":", label=f"clipped to {limit:g}")
        scales.scale_y(axes, field, values)
        scales.over_steps(figure, axes, steps, label)
        svg = drawing.written(figure)
    rows = [
        (row["step"], row["epoch"], row[field]) for row in run.train if row.get(field) is not None
    ]
    title = f"{label} over optimiser steps"
    return Drawing(drawing.file_name(field), title, svg, ("step", "epoch", field), rows)


def _mark_chosen(axes: Any, selection: Record, validation: _Series) -> None:
    name = f"chosen epoch ({selection['epoch']:g})"
    axes.axvline(selection["step"], color=INK, linestyle=":", label=name)
    for x, y in zip(*validation, strict=True):
        if x == selection["step"]:
            ring = {"marker": "o", "markersize": 10, "fillstyle": "none", "linestyle": "none"}
            axes.plot([x], [y], color=INK, **ring)


def overlay(
    runs: Sequence[Run], labels: Sequence[str], split: str, field: str, label: str, note: str = ""
) -> Drawing | None:
    """``field`` over epochs, a line for each run with its name at the end of it.

    Lines that coincide are drawn as dashes that take turns, and the note says which do. Of more
    than ``MANY`` runs the best ``NAMED`` at the end are drawn so, and the others thin and grey.
    What was measured before the first step stands apart, at epoch 0.

    Args:
      split: ``train`` (a trailing mean) or ``validation``.
      note: what else is to be known of it.
    """
    found = []
    for run, name in zip(runs, labels, strict=True):
        records = [row for row in getattr(run, split) if row["step"] > 0]
        x, y = _series(records, field, over="epoch")
        if x:
            found.append((drawing.plain(name), x, trailing_mean(y, max(1, len(y) // 20))))
    if not found:
        return None
    named = _best(runs, found, field) if len(found) > MANY else found
    values = [value for _, _, y in found for value in y]
    start = [row for run in runs for row in getattr(run, split) if row["step"] == 0]
    before = sorted(set(_series(start, field)[1]))
    at_start = ", ".join(dict.fromkeys(display.score(value, field) for value in before))
    is_near = _is_near(field, before, values)
    shown = [*values, *(before if is_near else [])]
    alike = scales.coinciding(named, scales.is_log(field, shown, _APART))
    notes = [scales.coincidence(alike, [name for name, _, _ in named])]
    notes += [f"Before training, off the axis: {at_start}."] if before and not is_near else []
    if named is not found:
        notes += [f"Named are the {NAMED} best of {len(found)} runs at the end; the CSV has all."]
    is_long = max(len(name) for name, _, _ in named) > scales.SHORT
    height = max(3.0, scales.TEXT_LINE * len(named) + 0.8) + is_long * scales.TEXT_LINE * len(named)
    with drawing.canvas(4.7, height) as (figure, axes):
        for _, x, y in found if named is not found else ():
            axes.plot(x, y, color=FAINT, linewidth=0.7, alpha=0.6)
        for i, (name, x, y) in enumerate(named):
            style = scales.line_style(i, *scales.place(i, alike)) | {"clip_on": False}
            style |= {} if split == "validation" else {"marker": None}
            axes.plot(x, y, label=scales.short(name, scales.LONG * 2) if is_long else "", **style)
        if before and is_near:
            points: dict[str, Any] = {"color": INK, "markersize": 5} | _HOLLOW
            axes.plot([0.0] * len(before), before, label=f"before training: {at_start}", **points)
        scales.scale_y(axes, field, shown, most=_APART)
        scales.steps_axis(axes, max(x[-1] for _, x, _ in found))
        axes.set(xlabel="epoch", ylabel=scales.unit(field, label))
        axes.margins(x=0.02)
        axes.grid(axis="y", color=FAINT, alpha=0.35, linewidth=0.6)
        if not is_long:
            scales.name_lines(axes, named)
        scales.legend(figure, axes)
        svg = drawing.written(figure)
    rows = [
        (name, row["step"], row["epoch"], row[field])
        for run, name in zip(runs, labels, strict=True)
        for row in getattr(run, split)
        if row.get(field) is not None
    ]
    return Drawing(
        drawing.file_name(f"{split}-{field}"),
        f"{label} over epochs, {display.counted(len(found), 'run')}",
        svg,
        ("run", "step", "epoch", field),
        rows,
        note=" ".join(filter(None, [*notes, note])),
    )


def _best(runs: Sequence[Run], found: Sequence[scales.Line], field: str) -> list[scales.Line]:
    """The lines that end best, in their order; which way a metric is better, selections know."""
    chosen = [run.selection for run in runs if run.selection]
    known = [s["better"] for s in chosen if s.get("metric") == field and "better" in s]
    is_lower = known[0] == "lower" if known else field in scales.OVER_DECADES
    sign = 1 if is_lower else -1
    best = sorted(range(len(found)), key=lambda i: sign * found[i][2][-1])[:NAMED]
    return [found[i] for i in sorted(best)]


def _is_near(field: str, before: Sequence[float], values: Sequence[float]) -> bool:
    """Whether the values before training leave enough of an axis to those that runs differ in."""
    low = 0.0 if field in scales.FROM_ZERO else min(values)
    room = max(values) - low
    return all(low - room <= value <= max(values) + room for value in before)


def trailing_mean(values: list[float], window: int) -> list[float]:
    """Mean of each value and up to ``window - 1`` before it."""
    sums = [0.0, *itertools.accumulate(values)]
    starts = (max(0, end - window) for end in range(1, len(sums)))
    return [(sums[end] - sums[start]) / (end - start) for end, start in enumerate(starts, start=1)]


def _series(records: list[Record], field: str, over: str = "step") -> _Series:
    kept = [row for row in records if scales.drawable(row.get(field))]
    return [row[over] for row in kept], [row[field] for row in kept]
