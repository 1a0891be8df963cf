"""What the figures have in common: scales, ticks, legends, names, and lines that coincide."""

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

from sft.report.drawing import FAINT, LEGEND, MARKERS, RUNS
from sft.run import display

FROM_ZERO = ("loss", "perplexity", "grad_norm", "learning_rate")
OVER_DECADES = FROM_ZERO[:-1]  # logarithmic where the values are far apart
SHORT, LONG = 22, 30  # characters of a name at the end of a line, and elsewhere
TEXT_LINE = 0.24  # inches
_HUGE = 1e30  # what is larger is not drawn: matplotlib's arithmetic ends there
_NEAR = 0.004  # of the height of the axes: lines that are no farther apart hide each other

type Line = tuple[str, list[float], list[float]]  # name, x, y
type Alike = Sequence[tuple[list[int], bool]]  # indices of lines that coincide; whether exactly


def drawable(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value) and abs(value) < _HUGE


def over_steps(figure: Any, axes: Any, steps: Sequence[float], label: str) -> None:
    """The axes of a figure over steps, and its legend."""
    steps_axis(axes, max([*steps, 1]))
    axes.set(xlabel="optimiser step", ylabel=label)
    axes.margins(x=0.02)
    axes.grid(axis="y", color=FAINT, alpha=0.35, linewidth=0.6)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        legend(figure, axes)


def name_lines(axes: Any, found: Sequence[Line]) -> None:
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
            short(found[i][0], SHORT),
            xy=(1.02, height),
            xycoords="axes fraction",
            va="center",
            fontsize=9,
            color=RUNS[i % 6],
            annotation_clip=False,
        )


def short(name: str, most: int) -> str:
    """Beginning and end of a long name."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"


def legend(figure: Any, axes: Any) -> None:
    """Above the axes, in as many columns as there is room for."""
    handles, names = axes.get_legend_handles_labels()
    if names:
        room = 0.5 + 0.075 * max(map(len, names))  # inches: the sign, and the letters
        columns = max(1, min(3, int(figure.get_size_inches()[0] / room)))
        figure.legend(handles, names, loc="outside upper left", ncols=columns, **LEGEND)


def is_log(field: str, values: Sequence[float], most: float) -> bool:
    """Whether the largest of these losses is more than ``most`` times the smallest."""
    return field in OVER_DECADES and 0 < most * min(values) < max(values)


def scale_y(
    axes: Any, field: str, values: Sequence[float], most: float = 50, from_zero: bool = True
) -> None:
    """Sets the y axis: a loss and the like begin at 0, or are logarithmic where the largest is
    ``most`` times the smallest; a share spans at least a tenth, not far beyond 0 and 1."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    if is_log(field, values, most):
        axes.set_yscale("log")  # else all epochs would lie on the axis
        decades = math.log10(max(values) / min(values))
        subs = (1, 2, 5) if decades < 2.5 else (1,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        return
    if field in FROM_ZERO and from_zero:
        axes.set_ylim(bottom=0)
    if display.is_share(field):
        low, high = axes.get_ylim()
        wider = max(0.0, 0.1 - (high - low)) / 2
        axes.set_ylim(max(low - wider, -0.03), min(high + wider, 1.03))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    _format(axes.yaxis, field)


def scale_x(axes: Any, field: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    _format(axes.xaxis, field)


def steps_axis(axes: Any, last: float) -> None:
    """At most eight whole numbers along the axis of steps or epochs."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=last >= 2))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}" if x < 1e6 else f"{x:g}"))


def _format(axis: Any, field: str) -> None:
    from matplotlib.ticker import FuncFormatter

    if display.is_share(field):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}"))


def unit(field: str, label: str) -> str:
    return f"{label} (%)" if display.is_share(field) else label


def coinciding(found: Sequence[Line], over_decades: bool = False) -> list[tuple[list[int], bool]]:
    """Lines that hide each other: their indices, and whether they are equal or merely near.

    Args:
      over_decades: whether they are drawn on a logarithmic axis; all values are positive then.
    """
    heights = [[math.log(value) for value in y] if over_decades else y for _, _, y in found]
    values = [value for y in heights for value in y]
    room = _NEAR * (max(values) - min(values))
    groups: list[tuple[list[int], bool]] = []
    for i, (_, x, y) in enumerate(found):
        for k, (group, equal) in enumerate(groups):
            first = group[0]
            pairs = zip(heights[i], heights[first], strict=False)
            if x == found[first][1] and all(abs(a - b) <= room for a, b in pairs):
                groups[k] = [*group, i], equal and y == found[first][2]
                break
        else:
            groups.append(([i], True))
    return [(group, equal) for group, equal in groups if len(group) > 1]


def place(i: int, alike: Alike) -> tuple[int, int]:
    """Which of how many coinciding lines this is."""
    group = next((group for group, _ in alike if i in group), [i])
    return group.index(i), len(group)


def coincidence(alike: Alike, names: Sequence[str]) -> str:
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


def line_style(i: int, turn: int, turns: int) -> dict[str, Any]:
    """The style of the i-th line, which takes its turn where several coincide."""
    style: dict[str, Any] = {"color": RUNS[i % 6], "marker": MARKERS[i % 6], "markersize": 4.5}
    style |= {"linestyle": "-" if i < 6 else "--", "linewidth": 1.6}
    if turns > 1:
        dash = 5.0
        gap = (dash * turn, (dash, dash * (turns - 1)))
        style |= {"linestyle": gap, "markersize": 4.5 + min(3.5, 9 / turns) * (turns - 1 - turn)}
        style |= {"fillstyle": "none"} if turn < turns - 1 else {}
    return style
