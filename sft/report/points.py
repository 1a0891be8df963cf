"""Scores as points with intervals: of several models, and against a setting."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from sft.report import drawing, scales
from sft.report.drawing import FAINT, INK, VALIDATION, Drawing
from sft.run import display

_LONG = 44  # characters of a name over a point

type Point = tuple[float, float, float | None, float | None]  # x, score, low, high


def knob(
    lines: Sequence[tuple[str, list[Point]]], name: str, x_label: str, metric: str
) -> Drawing | None:
    """A score against a setting, a line with intervals for each choice of the other settings;
    ``None`` where there is nothing to draw.

    Args:
      lines: each with its name. An end of an interval may be unknown.
      name: of the figure's files.
    """
    drawn = [(label, [p for p in points if _is_drawable(p)]) for label, points in lines]
    drawn = [(drawing.plain(label), points) for label, points in drawn if points]
    if not drawn:
        return None
    places = [x for _, points in drawn for x, *_ in points]
    is_log = min(places) > 0 and max(places) >= 8 * min(places)
    alike = scales.coinciding([(n, [p[0] for p in ps], [p[1] for p in ps]) for n, ps in drawn])
    with drawing.canvas(4.7, 3.0) as (figure, axes):
        if is_log:
            axes.set_xscale("log")
            axes.minorticks_off()
        for i, (label, points) in enumerate(drawn):
            style = scales.line_style(i, *scales.place(i, alike))
            x = _beside([p[0] for p in points], places, i, len(drawn), is_log)
            axes.plot(x, [p[1] for p in points], label=label, **style)
            ends = [_ends(low, value, high) for _, value, low, high in points]
            middle, half = [sum(end) / 2 for end in ends], [(end[1] - end[0]) / 2 for end in ends]
            axes.errorbar(
                x, middle, half, fmt="none", ecolor=style["color"], capsize=2.5, elinewidth=1
            )
        shown = drawing.ticks(places, is_log)
        axes.set_xticks(shown, [f"{x:g}" for x in shown])
        scales.scale_y(axes, metric, [p[1] for _, ps in drawn for p in ps], from_zero=False)
        y_label = display.name(metric)
        axes.set(xlabel=x_label, ylabel=scales.unit(metric, y_label))
        axes.grid(axis="y", color=FAINT, alpha=0.35, linewidth=0.6)
        if len(drawn) > 1:
            scales.legend(figure, axes)
        svg = drawing.written(figure)
    return Drawing(
        drawing.file_name(name),
        f"{y_label} against {x_label}",
        svg,
        ("line", x_label, metric, "low", "high"),
        [(label, *point) for label, points in lines for point in points],
        note=scales.coincidence(alike, [label for label, _ in drawn]),
    )


def _is_drawable(point: Point) -> bool:
    return scales.drawable(point[0]) and scales.drawable(point[1])


def _ends(low: float | None, value: float, high: float | None) -> tuple[float, float]:
    """The interval as it is drawn: an unknown end is at the value itself."""
    ends = [end if scales.drawable(end) else value for end in (low, high)]
    return min(ends), max(ends)


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
    with drawing.canvas(5.0, 2 * scales.TEXT_LINE * len(found) + 0.65) as (figure, axes):
        for row, dot in enumerate(found):
            style = _DOTS[dot.kind]
            if scales.drawable(dot.value):
                ends = _ends(dot.low, dot.value, dot.high)
                axes.plot(ends, [row, row], color=style["color"], linewidth=1.6)
                axes.plot([dot.value], [row], linestyle="none", markersize=6, **style)
            text: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center"}
            text |= {"fontsize": 9.5, "color": style["color"] if dot.kind == "tuned" else INK}
            label = scales.short(drawing.plain(dot.label), _LONG)
            axes.annotate(label, xy=(0.0, row - 0.48), **text)
            axes.annotate(_numbers(dot, metric), xy=(1.0, row - 0.48), ha="right", **text)
        axes.set_yticks([])
        axes.set_ylim(len(found) - 0.6, -0.8)
        axes.spines["left"].set_visible(False)
        if display.is_share(metric):
            axes.set_xlim(0, 1)
        scales.scale_x(axes, metric)
        axes.set(xlabel=scales.unit(metric, display.name(metric)))
        axes.grid(axis="x", color=FAINT, alpha=0.35, linewidth=0.6)
        svg = drawing.written(figure)
    return Drawing(
        drawing.file_name(name),
        title,
        svg,
        ("model", "kind", "metric", "value", "low", "high"),
        [(dot.label, dot.kind, metric, dot.value, dot.low, dot.high) for dot in found],
    )


def _beside(
    x: list[float], places: Sequence[float], i: int, count: int, is_log: bool
) -> list[float]:
    """A little left or right, so that the intervals of several lines can be told apart."""
    part = 0.012 * (i - (count - 1) / 2)
    if is_log:
        return [value * (max(places) / min(places)) ** part for value in x]
    return [value + part * (max(places) - min(places)) for value in x]


def _numbers(dot: Dot, metric: str) -> str:
    text = display.score(dot.value, metric)
    if dot.low is None and dot.high is None:
        return text
    return f"{text} [{display.interval(dot.low, dot.high, metric)}]"
