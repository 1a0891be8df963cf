"""The figures of the reports: curves of runs, scores as points, scores against a setting."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

from sft import display
from sft.report import drawing
from sft.report.drawing import FAINT, INK, LEGEND, MARKERS, RUNS, TRAIN, VALIDATION, Drawing
from sft.report.load import Record, Run

_HUGE = 1e30  # what is larger is not drawn: matplotlib's arithmetic ends there
_NEAR = 0.004  # of the height of the axes: lines that are no farther apart hide each other
_SHORT, _LONG = 22, 30  # characters of a name at the end of a line, and beside a point
MANY, NAMED = 12, 6  # lines: with more than so many, only so few are told apart
_LINE = 0.24  # inches, of text
_FROM_ZERO = ("loss", "perplexity", "grad_norm", "learning_rate")
_OVER_DECADES = _FROM_ZERO[:-1]  # logarithmic where the values are far apart
_HOLLOW = {"marker": "D", "linestyle": "none", "fillstyle": "none", "clip_on": False}

type _Series = tuple[list[float], list[float]]  # x, y
type _Line = tuple[str, list[float], list[float]]  # name, x, y


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
        _scale_y(axes, field, [*train[1], *validation[1], *before[1]])
        _over_steps(figure, axes, [*train[0], *validation[0]], _unit(field, label))
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
        _scale_y(axes, field, values)
        _over_steps(figure, axes, steps, label)
        svg = drawing.written(figure)
    rows = [(row["step"], row["epoch"], row[field]) for row in run.train if row.get(field)]
    title = f"{label} over optimiser steps"
    return Drawing(drawing.file_name(field), title, svg, ("step", "epoch", field), rows)


def _over_steps(figure: Any, axes: Any, steps: Sequence[float], label: str) -> None:
    """The axes of a figure over steps, and its legend."""
    _steps(axes, max([*steps, 1]))
    axes.set(xlabel="optimiser step", ylabel=label)
    axes.margins(x=0.02)
    axes.grid(axis="y", color=FAINT, alpha=0.35, linewidth=0.6)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        _legend(figure, axes)


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
    named = _best(found, field) if len(found) > MANY else found
    alike = coinciding(named)
    values = [value for _, _, y in found for value in y]
    start = [row for run in runs for row in getattr(run, split) if row["step"] == 0]
    before = sorted(set(_series(start, field)[1]))
    at_start = ", ".join(dict.fromkeys(display.score(value, field) for value in before))
    is_near = _is_near(field, before, values)
    notes = [_said(alike, [name for name, _, _ in named])]
    notes += [f"Before training, off the axis: {at_start}."] if before and not is_near else []
    if named is not found:
        notes += [f"Named are the {NAMED} best of {len(found)} runs at the end; the CSV has all."]
    is_long = max(len(name) for name, _, _ in named) > _SHORT
    height = max(3.0, _LINE * len(named) + 0.8) + is_long * _LINE * len(named)
    with drawing.canvas(4.7, height) as (figure, axes):
        for _, x, y in found if named is not found else ():
            axes.plot(x, y, color=FAINT, linewidth=0.7, alpha=0.6)
        for i, (name, x, y) in enumerate(named):
            style = _line(i, *_place(i, alike)) | {"clip_on": False}
            style |= {} if split == "validation" else {"marker": None}
            axes.plot(x, y, label=_short(name, _LONG * 2) if is_long else "", **style)
        if before and is_near:
            points: dict[str, Any] = {"color": INK, "markersize": 5} | _HOLLOW
            axes.plot([0.0] * len(before), before, label=f"before training: {at_start}", **points)
        _scale_y(axes, field, [*values, *(before if is_near else [])], most=8)
        _steps(axes, max(x[-1] for _, x, _ in found))
        axes.set(xlabel="epoch", ylabel=_unit(field, label))
        axes.margins(x=0.02)
        axes.grid(axis="y", color=FAINT, alpha=0.35, linewidth=0.6)
        if not is_long:
            _name_lines(axes, named)
        _legend(figure, axes)
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


def _best(found: Sequence[_Line], field: str) -> list[_Line]:
    """The lines that end best, in their order."""
    sign = 1 if field in _OVER_DECADES else -1
    best = sorted(range(len(found)), key=lambda i: sign * found[i][2][-1])[:NAMED]
    return [found[i] for i in sorted(best)]


def _is_near(field: str, before: Sequence[float], values: Sequence[float]) -> bool:
    """Whether the values before training leave enough of an axis to those that runs differ in."""
    low = 0.0 if field in _FROM_ZERO else min(values)
    room = max(values) - low
    return all(low - room <= value <= max(values) + room for value in before)


def knob(lines: Sequence[tuple[str, list[tuple]]], name: str, x_label: str, metric: str) -> Drawing:
    """A score against a setting, a line with intervals for each choice of the other settings.

    Args:
      lines: (name, [(x, score, low or None, high or None)]), each at least two points.
      name: of the figure's files.
    """
    places = [x for _, points in lines for x, *_ in points]
    is_log = min(places) > 0 and max(places) >= 8 * min(places)
    series = [(n, [p[0] for p in points], [p[1] for p in points]) for n, points in lines]
    alike = coinciding(series)
    with drawing.canvas(4.7, 3.0) as (figure, axes):
        if is_log:
            axes.set_xscale("log")
            axes.minorticks_off()
        for i, (label, points) in enumerate(lines):
            y = [p[1] for p in points]
            errors = [[v - (low if low is not None else v) for _, v, low, _ in points]]
            errors += [[(high if high is not None else v) - v for _, v, _, high in points]]
            x = _beside([p[0] for p in points], places, i, len(lines), is_log)
            style = _line(i, *_place(i, alike)) | {"label": drawing.plain(label)}
            axes.errorbar(x, y, yerr=errors, capsize=2.5, elinewidth=1, **style)
        shown = drawing.ticks(places, is_log)
        axes.set_xticks(shown, [f"{x:g}" for x in shown])
        _scale_y(axes, metric, [p[1] for _, points in lines for p in points], from_zero=False)
        y_label = display.name(metric)
        axes.set(xlabel=x_label, ylabel=_unit(metric, y_label))
        axes.grid(axis="y", color=FAINT, alpha=0.35, linewidth=0.6)
        if len(lines) > 1:
            _legend(figure, axes)
        svg = drawing.written(figure)
    return Drawing(
        drawing.file_name(name),
        f"{y_label} against {x_label}",
        svg,
        ("line", x_label, metric, "low", "high"),
        [(label, *point) for label, points in lines for point in points],
        note=_said(alike, [label for label, _ in lines]),
    )


@dataclasses.dataclass(frozen=True)
class Dot:
    """One model's score.

    Attributes:
      kind: ``baseline`` (looks at no prompt), ``base`` (nothing is tuned) or ``tuned``.
      low, high: 95 % interval; ``None`` = not known.
    """

    label: str
    kind: str
    value: float
    low: float | None
    high: float | None


_DOTS: dict[str, dict[str, Any]] = {
    "baseline": {"color": FAINT, "marker": "d", "fillstyle": "none"},
    "base": {"color": INK, "marker": "o"},
    "tuned": {"color": VALIDATION, "marker": "s"},
}


def dots(found: Sequence[Dot], metric: str, name: str, title: str) -> Drawing:
    """Scores by one metric as points with intervals, one below another, each under its name and
    numbers: so that they can be read on a phone.

    Args:
      name: of the figure's files.
    """
    with drawing.canvas(5.0, 2 * _LINE * len(found) + 0.65) as (figure, axes):
        for row, dot in enumerate(found):
            style = _DOTS[dot.kind]
            if _drawable(dot.value):
                ends = [end if end is not None else dot.value for end in (dot.low, dot.high)]
                axes.plot(ends, [row, row], color=style["color"], linewidth=1.6)
                axes.plot([dot.value], [row], linestyle="none", markersize=6, **style)
            colour = style["color"] if dot.kind == "tuned" else INK
            text: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "color": colour}
            text |= {"fontsize": 9.5, "va": "center"}
            label = _short(drawing.plain(dot.label), _LONG)
            axes.annotate(label, xy=(0.0, row - 0.48), **text)
            axes.annotate(_numbers(dot, metric), xy=(1.0, row - 0.48), ha="right", **text)
        axes.set_yticks([])
        axes.set_ylim(len(found) - 0.6, -0.8)
        axes.spines["left"].set_visible(False)
        if display.is_share(metric):
            axes.set_xlim(0, 1)
        _scale_x(axes, metric)
        axes.set(xlabel=_unit(metric, display.name(metric)))
        axes.grid(axis="x", color=FAINT, alpha=0.35, linewidth=0.6)
        svg = drawing.written(figure)
    return Drawing(
        drawing.file_name(name),
        title,
        svg,
        ("model", "kind", "metric", "value", "low", "high"),
        [(dot.label, dot.kind, metric, dot.value, dot.low, dot.high) for dot in found],
    )


def coinciding(found: Sequence[_Line]) -> list[tuple[list[int], bool]]:
    """Lines that hide each other: their indices, and whether they are equal or merely near."""
    values = [value for _, _, y in found for value in y]
    room = _NEAR * (max(values) - min(values))
    groups: list[tuple[list[int], bool]] = []
    for i, (_, x, y) in enumerate(found):
        for k, (group, equal) in enumerate(groups):
            _, other_x, other_y = found[group[0]]
            if x == other_x and all(abs(a - b) <= room for a, b in zip(y, other_y, strict=True)):
                groups[k] = [*group, i], equal and y == other_y
                break
        else:
            groups.append(([i], True))
    return [(group, equal) for group, equal in groups if len(group) > 1]


def _place(i: int, alike: Sequence[tuple[list[int], bool]]) -> tuple[int, int]:
    """Which of how many coinciding lines this is."""
    group = next((group for group, _ in alike if i in group), [i])
    return group.index(i), len(group)


def _said(alike: Sequence[tuple[list[int], bool]], names: Sequence[str]) -> str:
    """Which lines coincide, in words."""
    said = [
        f"{_listed([names[i] for i in group])} are {'' if equal else 'almost '}the same line"
        for group, equal in alike
    ]
    return f"{'; '.join(said)}: their dashes take turns." if said else ""


def _listed(names: Sequence[str], most: int = 6) -> str:
    """``a, b and c``; of many the first, and how many more."""
    first, last = [*names[:-1]], names[-1]
    if len(names) > most:
        first, last = [*names[: most - 1]], f"{len(names) - most + 1} more"
    return f"{', '.join(first)} and {last}"


def _line(i: int, turn: int, turns: int) -> dict[str, Any]:
    """The style of the i-th line, which takes its turn where several coincide."""
    style: dict[str, Any] = {"color": RUNS[i % 6], "marker": MARKERS[i % 6], "markersize": 4.5}
    style |= {"linestyle": "-" if i < 6 else "--", "linewidth": 1.6}
    if turns > 1:
        dash = 5.0
        gap = (dash * turn, (dash, dash * (turns - 1)))
        style |= {"linestyle": gap, "markersize": 4.5 + min(3.5, 9 / turns) * (turns - 1 - turn)}
        style |= {"fillstyle": "none"} if turn < turns - 1 else {}
    return style


def _beside(
    x: list[float], places: Sequence[float], i: int, count: int, is_log: bool
) -> list[float]:
    """A little left or right, so that the intervals of several lines can be told apart."""
    part = 0.012 * (i - (count - 1) / 2)
    if is_log:
        return [value * (max(places) / min(places)) ** part for value in x]
    return [value + part * (max(places) - min(places)) for value in x]


def _name_lines(axes: Any, found: Sequence[_Line]) -> None:
    """Writes each name right of the axes at the height of its line's end, one below another."""
    step = min(0.075, 1 / len(found))  # of the height of the axes, a line of text
    axes.get_xlim(), axes.get_ylim()  # settles them, which the transform needs
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = [to_axes.transform((x[-1], y[-1]))[1] for _, x, y in found]
    order = sorted(range(len(found)), key=lambda i: -ends[i])
    heights = [min(ends[i], 1.0) for i in order]
    for k in range(1, len(order)):
        heights[k] = min(heights[k], heights[k - 1] - step)
    lift = max(0.0, -heights[-1])  # a crowd at the bottom pushes those above it up
    for k in range(len(order) - 1, -1, -1):
        below = heights[k + 1] + step if k + 1 < len(order) else 0.0
        heights[k] = max(heights[k], below) if lift else heights[k]
    for i, height in zip(order, heights, strict=True):
        axes.annotate(
            _short(found[i][0], _SHORT),
            xy=(1.02, height),
            xycoords="axes fraction",
            va="center",
            fontsize=9,
            color=RUNS[i % 6],
            annotation_clip=False,
        )


def _short(name: str, most: int) -> str:
    """Beginning and end of a long name."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"


def _legend(figure: Any, axes: Any) -> None:
    """Above the axes, in as many columns as there is room for."""
    handles, names = axes.get_legend_handles_labels()
    if names:
        room = 0.5 + 0.075 * max(map(len, names))  # inches: the sign, and the letters
        columns = max(1, min(3, int(figure.get_size_inches()[0] / room)))
        figure.legend(handles, names, loc="outside upper left", ncols=columns, **LEGEND)


def _scale_y(
    axes: Any, field: str, values: Sequence[float], most: float = 50, from_zero: bool = True
) -> None:
    """Of a loss and the like from 0, or logarithmic where the largest is ``most`` times the
    smallest; of a share at least a tenth, and not far beyond 0 and 1."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    if field in _OVER_DECADES and 0 < most * min(values) < max(values):
        axes.set_yscale("log")  # else all epochs would lie on the axis
        decades = math.log10(max(values) / min(values))
        subs = (1, 2, 5) if decades < 2.5 else (1,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        return
    if field in _FROM_ZERO and from_zero:
        axes.set_ylim(bottom=0)
    if display.is_share(field):
        low, high = axes.get_ylim()
        wider = max(0.0, 0.1 - (high - low)) / 2
        axes.set_ylim(max(low - wider, -0.03), min(high + wider, 1.03))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    _format(axes.yaxis, field)


def _scale_x(axes: Any, field: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    _format(axes.xaxis, field)


def _steps(axes: Any, last: float) -> None:
    """At most eight whole numbers along the axis of steps or epochs."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=last >= 2))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}" if x < 1e6 else f"{x:g}"))


def _format(axis: Any, field: str) -> None:
    from matplotlib.ticker import FuncFormatter

    if display.is_share(field):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}"))


def _unit(field: str, label: str) -> str:
    return f"{label} (%)" if display.is_share(field) else label


def _numbers(dot: Dot, metric: str) -> str:
    text = display.score(dot.value, metric)
    if dot.low is None and dot.high is None:
        return text
    return f"{text} [{display.interval(dot.low, dot.high, metric)}]"


def trailing_mean(values: list[float], window: int) -> list[float]:
    """Mean of each value and up to ``window - 1`` before it."""
    sums = [0.0, *itertools.accumulate(values)]
    starts = (max(0, end - window) for end in range(1, len(sums)))
    return [(sums[end] - sums[start]) / (end - start) for end, start in enumerate(starts, start=1)]


def _drawable(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and abs(value) < _HUGE


def _series(records: list[Record], field: str, over: str = "step") -> _Series:
    kept = [row for row in records if _drawable(row.get(field))]
    return [row[over] for row in kept], [row[field] for row in kept]
