"""Loss and accuracy curves as inline SVG whose colours follow the page."""

import io
import math
import re
from typing import Any

from sft.report.load import Record, Run

# Stand-ins that matplotlib accepts; in the SVG they become the page's own colours.
_COLOURS = {"#010101": "ink", "#020202": "faint", "#030303": "train", "#040404": "validation"}
INK, FAINT, TRAIN, VALIDATION = _COLOURS
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
        figure = Figure(figsize=(5.4, 3.2), layout="constrained")
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
        if field == "loss" and 0 < 50 * min(values) < max(values):
            axes.set_yscale("log")  # else all epochs would lie on the axis
        elif field == "loss":
            axes.set_ylim(bottom=0)
        axes.set(xlabel="optimiser step", ylabel=label)
        axes.margins(x=0.02)
        axes.grid(axis="y", color=FAINT, alpha=0.35, linewidth=0.6)
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _inline(buffer.getvalue(), field, f"{label} over optimiser steps")


def trailing_mean(values: list[float], window: int) -> list[float]:
    """Mean of each value and up to ``window - 1`` before it."""
    return [
        sum(part) / len(part)
        for part in (values[max(0, i + 1 - window) : i + 1] for i in range(len(values)))
    ]


def _series(records: list[Record], field: str) -> tuple[list[float], list[float]]:
    kept = [r for r in records if r.get(field) is not None and math.isfinite(r[field])]
    return [r["step"] for r in kept], [r[field] for r in kept]


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
