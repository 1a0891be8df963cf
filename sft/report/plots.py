"""Loss and accuracy curves as inline SVG whose colours follow the page."""

import io
import math
import re
from collections.abc import Sequence
from typing import Any

from sft.report.load import Record, Run

# Stand-ins that matplotlib accepts; in the SVG they become the page's own colours.
_COLOURS = {"#010101": "ink", "#020202": "faint", "#030303": "train", "#040404": "validation"}
INK, FAINT, TRAIN, VALIDATION = _COLOURS
# Told apart with any colour vision, and by the marker; from the seventh run on also dashed.
_RUNS = {f"#0505{i:02d}": f"run{i}" for i in range(6)}
_COLOURS |= _RUNS
_MARKERS = "osD^vP"
_XLINK = 'xmlns:xlink="http://www.w3.org/1999/xlink"'

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "sft",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.unicode_minus": False,
}

_LEGEND: dict[str, Any] = {
    "frameon": False,
    "fontsize": 9,
    "columnspacing": 1.0,
    "handlelength": 1.4,
    "handletextpad": 0.5,
}


def curve(run: Run, field: str, label: str) -> str:
    """SVG of ``field`` over optimiser steps for both splits; ``""`` when there is nothing to draw.

    Training is drawn light as logged and strong as a trailing mean; validation as points; the
    chosen epoch as a vertical line.
    """
    train, validation = _series(run.train, field), _series(run.validation, field)
    if not (train[0] or validation[0]):
        return ""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.0, 3.1), layout="constrained")
        axes = figure.subplots()
        if train[0]:
            window = max(1, len(train[0]) // 20)
            axes.plot(*train, color=TRAIN, alpha=0.3, linewidth=1)
            name = f"training, mean of {window} steps" if window > 1 else "training"
            axes.plot(train[0], trailing_mean(train[1], window), color=TRAIN, label=name)
        if validation[0]:
            axes.plot(*validation, color=VALIDATION, marker="o", markersize=5, label="validation")
        if run.selection:
            chosen = f"chosen epoch ({run.selection['epoch']:g})"
            axes.axvline(run.selection["step"], color=INK, linestyle=":", label=chosen)
        values = [*train[1], *validation[1]]
        _scale(axes, field, values)
        axes.set(xlabel="optimiser step", ylabel=label)
        axes.margins(x=0.02)
        axes.grid(axis="y", color=FAINT, alpha=0.35, linewidth=0.6)
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=3, **_LEGEND)
        svg = _svg(figure)
    return _inline(svg, field, f"{label} over optimiser steps")


def overlay(runs: Sequence[Run], labels: Sequence[str], split: str, field: str, label: str) -> str:
    """SVG of ``field`` over epochs, a line for each run with its name at the end of it.

    Args:
      split: ``train`` (a trailing mean) or ``validation``.
    """
    found = []
    for run, name in zip(runs, labels, strict=True):
        x, y = _series(getattr(run, split), field, over="epoch")
        if x:
            found.append((name, x, trailing_mean(y, max(1, len(y) // 20))))
    if not found:
        return ""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.7, 3.0), layout="constrained")
        axes = figure.subplots()
        for i, (_, x, y) in enumerate(found):
            style: dict[str, Any] = {"color": list(_RUNS)[i % 6], "label": f"run {i}"}
            style |= {"linestyle": "-" if i < 6 else "--", "linewidth": 1.6}
            if split == "validation":
                style |= {"marker": _MARKERS[i % 6], "markersize": 4.5}
            axes.plot(x, y, **style)
        _scale(axes, field, [value for _, _, y in found for value in y], most=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="epoch", ylabel=label)
        axes.margins(x=0.02)
        axes.grid(axis="y", color=FAINT, alpha=0.35, linewidth=0.6)
        axes.set_axisbelow(True)
        _name_lines(axes, found)
        svg = _svg(figure)
    return _inline(svg, f"{split}-{field}", f"{label} over epochs, {len(found)} runs")


def knob(lines: Sequence[tuple[str, list[tuple]]], field: str, x_label: str, y_label: str) -> str:
    """SVG of a score against a setting, a line with intervals for each choice of the others.

    Args:
      lines: (name, [(x, score, low or None, high or None)]), each at least two points.
    """
    import matplotlib
    from matplotlib.figure import Figure

    places = [x for _, points in lines for x, *_ in points]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.7, 3.0), layout="constrained")
        axes = figure.subplots()
        for i, (name, points) in enumerate(lines):
            x, y = [p[0] for p in points], [p[1] for p in points]
            style: dict[str, Any] = {"color": list(_RUNS)[i % 6], "marker": _MARKERS[i % 6]}
            style |= {"linestyle": "-" if i < 6 else "--", "linewidth": 1.6, "markersize": 4.5}
            errors = [[v - (low if low is not None else v) for _, v, low, _ in points]]
            errors += [[(high if high is not None else v) - v for _, v, _, high in points]]
            axes.errorbar(x, y, yerr=errors, capsize=2.5, elinewidth=1, label=name, **style)
        if min(places) > 0 and max(places) >= 8 * min(places):
            axes.set_xscale("log")
            axes.minorticks_off()
        axes.set_xticks(sorted(set(places)), [f"{x:g}" for x in sorted(set(places))])
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.grid(axis="y", color=FAINT, alpha=0.35, linewidth=0.6)
        axes.set_axisbelow(True)
        if len(lines) > 1:
            figure.legend(loc="outside upper left", ncols=2, **_LEGEND)
        svg = _svg(figure)
    return _inline(svg, f"knob-{x_label}-{field}".replace(" ", "-"), f"{y_label} against {x_label}")


def _name_lines(axes: Any, found: Sequence[tuple[str, list[float], list[float]]]) -> None:
    """Writes each name right of the axes at the height of its line's end, one below another."""
    step = 0.075  # of the height of the axes, a line of text
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
        name = found[i][0] if len(found[i][0]) <= 22 else found[i][0][:10] + "…" + found[i][0][-11:]
        axes.annotate(
            name,
            xy=(1.02, height),
            xycoords="axes fraction",
            va="center",
            fontsize=9,
            color=list(_RUNS)[i % 6],
            annotation_clip=False,
        )


def _scale(axes: Any, field: str, values: Sequence[float], most: float = 50) -> None:
    """Of a loss: from 0, or logarithmic where the largest is ``most`` times the smallest."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if field == "loss" and 0 < most * min(values) < max(values):
        axes.set_yscale("log")  # else all epochs would lie on the axis
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif field == "loss":
        axes.set_ylim(bottom=0)


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def trailing_mean(values: list[float], window: int) -> list[float]:
    """Mean of each value and up to ``window - 1`` before it."""
    return [
        sum(part) / len(part)
        for part in (values[max(0, i + 1 - window) : i + 1] for i in range(len(values)))
    ]


def _series(
    records: list[Record], field: str, over: str = "step"
) -> tuple[list[float], list[float]]:
    kept = [r for r in records if r.get(field) is not None and math.isfinite(r[field])]
    return [r[over] for r in kept], [r[field] for r in kept]


def _inline(svg: str, prefix: str, title: str) -> str:
    """Strips what only a file of its own needs; ids must differ between figures of a page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{prefix}-", svg)
    head = rf'<svg role="img" aria-label="{title}" viewBox="\1" {_XLINK}>'
    svg = re.sub(r'^<svg [^>]*?viewBox="([^"]*)"[^>]*>', head, svg, count=1)
    for stand_in, name in _COLOURS.items():
        svg = svg.replace(stand_in, f"var(--{name})")
    return svg
