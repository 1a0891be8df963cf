"""The report as one self-contained HTML page: no scripts, no outside assets, prints well."""

import math
from pathlib import Path
from typing import Any

from sft.data.audit.texts import percent, rows
from sft.report import template
from sft.report.audit.terminal import tally

_CHART = (340, 130, 24)  # width, height, space below for the axis; units of the viewBox


def render(report: dict[str, Any], more: str = "") -> str:
    """The whole page, for what ``sft.data.audit.examine`` returns; all its texts are escaped.

    ``more``: a section in HTML, put before the lengths as it is.
    """
    page = template.load(
        Path(__file__).with_name("template.html"),
        number=number,
        rows=rows,
        percent=percent,
        value=value,
        p_value=p_value,
        visible=visible,
    )
    keys = ("prompt", "response", "row", "exchanges")
    return page.render(
        report=report,
        more=more,
        sets=report["sets"],
        tally=tally(report["warnings"]),
        charts={key: charts(report["sets"], key) for key in keys},
        lengths=over_lengths(report["sets"]),
        chart=_CHART,
    )


def charts(sets: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """One histogram a set, over the same bins and each as high as its fullest bin.

    Returns:
      ``{"name", "bars": [{"x", "y", "width", "height", "title"}], "ticks": [{"x", "text"}],
      "marker": x or None}``, in units of the chart; the marker is the configured length.
    """
    found = {name: one["lengths"][key].get("histogram") for name, one in sets.items()}
    found = {name: histogram for name, histogram in found.items() if histogram}
    if not any(len(histogram["counts"]) > 1 for histogram in found.values()):
        return []  # one value everywhere: the table says it
    edges = sorted({edge for histogram in found.values() for edge in histogram["edges"]})
    lowest, highest = edges[0], edges[-1]
    width, height, below = _CHART

    def place(edge: float) -> float:
        low, high = math.log2(lowest + 1), math.log2(highest + 1)
        return round(width * (math.log2(edge + 1) - low) / max(high - low, 1e-9), 2)

    drawn = []
    for name, histogram in found.items():
        length = sets[name]["over_long"]["length"] + 1
        bars = _bars(histogram, place, height - below)
        shown = key == "row" and lowest < length < highest
        drawn.append(
            {
                "name": name,
                "bars": bars,
                "ticks": _ticks(edges, place),
                "marker": place(length) if shown else None,
            }
        )
    return drawn


def _bars(histogram: dict[str, Any], place, height: float) -> list[dict[str, Any]]:
    bars, fullest, rows = [], max(histogram["counts"]), sum(histogram["counts"])
    edges = histogram["edges"]
    for low, high, count in zip(edges, edges[1:], histogram["counts"], strict=False):
        tall = height * count / fullest
        bars.append(
            {
                "x": place(low),
                "y": round(height - tall, 2),
                "width": round(max(place(high) - place(low) - 1, 0.5), 2),
                "height": round(tall, 2),
                "title": f"{low:,} to {high - 1:,}: {count:,} rows ({count / rows:.1%})",
            }
        )
    return bars


def _ticks(edges: list[int], place) -> list[dict[str, Any]]:
    """Powers of two to write under the axis, other edges where there are few; none may touch."""
    powers = [edge for edge in edges if edge & (edge - 1) == 0]
    ticks: list[dict[str, Any]] = []
    for edge in powers if len(powers) > 2 else edges:
        x = place(edge)
        if 8 <= x < _CHART[0] - 16 and (not ticks or x - ticks[-1]["x"] > 44):
            ticks.append({"x": x, "text": f"{edge:,}"})
    return ticks


def over_lengths(sets: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """(length, {set: its numbers there}), for every length tried in any set."""
    tried: dict[int, dict[str, Any]] = {}
    for name, one in sets.items():
        for at in one["over_long"]["at"]:
            tried.setdefault(at["length"], {})[name] = at
    return sorted(tried.items())


def visible(text: str) -> str:
    """A token with its line breaks and tabs shown."""
    return text.replace("\r", "␍").replace("\n", "↵\n").replace("\t", "⇥\t")


def number(value: float) -> str:
    """Thousands grouped; fractions of small numbers kept."""
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.3g}"


def value(found: Any, measure: str) -> str:
    """One side of a comparison: a share, a median, bits, or shares by category."""
    if isinstance(found, dict):
        return ", ".join(f"{name} {percent(share)}" for name, share in found.items()) or "none"
    if measure == "Cohen's h":
        return percent(found)
    return f"{found:.3f} bits" if measure.startswith("JS") else number(found)


def p_value(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"
