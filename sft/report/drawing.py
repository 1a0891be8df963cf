"""A figure twice: as inline SVG whose colours follow the page, and as files for a paper."""

import csv
import dataclasses
import functools
import html
import io
import math
import re
import unicodedata
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Stand-ins that matplotlib accepts; in the SVG they become the page's own colours.
_COLOURS = {"#010101": "ink", "#020202": "faint", "#030303": "train", "#040404": "validation"}
INK, FAINT, TRAIN, VALIDATION = _COLOURS
# Told apart with any colour vision, and by the marker; from the seventh run on also dashed.
_RUNS = {f"#0505{i:02d}": f"run{i}" for i in range(6)}
_COLOURS |= _RUNS
RUNS = tuple(_RUNS)
MARKERS = "osD^vP"
_SHEETS = Path(__file__).with_name("page.css"), Path(__file__).with_name("style.css")
_XLINK = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
_NAME = 80  # characters of a file's name

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "sft",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a name may have a $ in it
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.unicode_minus": False,
}
LEGEND: dict[str, Any] = {
    "frameon": False,
    "fontsize": 9,
    "columnspacing": 1.0,
    "handlelength": 1.8,
    "handletextpad": 0.5,
}


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure and its numbers.

    Attributes:
      name: of its files, without an ending; unique on a page.
      title: what it shows, in a line.
      svg: as matplotlib wrote it, with stand-ins for the colours.
      columns, rows: the numbers, one row for each point.
      note: what is to be known of it beside the title, or ``""``.
    """

    name: str
    title: str
    svg: str
    columns: tuple[str, ...]
    rows: list[tuple]
    note: str = ""

    @property
    def inline(self) -> str:
        """For the page: without what only a file of its own needs; ids are of this figure alone."""
        svg = re.sub(r'\bid="', f'id="{self.name}-', _bare(self.svg))
        svg = re.sub(r'(url\(|href=")#', rf"\1#{self.name}-", svg)
        label = html.escape(plain(self.title)).replace("\\", r"\\")
        head = rf'<svg role="img" aria-label="{label}" viewBox="\1" {_XLINK}>'
        svg = re.sub(r'^<svg [^>]*?viewBox="([^"]*)"[^>]*>', head, svg, count=1)
        for stand_in, name in _COLOURS.items():
            svg = svg.replace(stand_in, f"var(--{name})")
        return svg

    @property
    def file(self) -> str:
        """For a paper: in the colours that the page has by day, on no ground."""
        svg = self.svg
        for stand_in, name in _COLOURS.items():
            svg = svg.replace(stand_in, _by_day()[name])
        return svg

    @property
    def table(self) -> str:
        """The numbers as CSV, in full precision."""
        return comma_separated(self.columns, self.rows)

    @property
    def files(self) -> dict[str, str]:
        return {f"{self.name}.svg": self.file, f"{self.name}.csv": self.table}


def comma_separated(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """CSV; ``None`` is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


def file_name(text: str) -> str:
    """``text`` as a part of a file's name, and of an id in HTML."""
    return re.sub(r"[^\w.-]+", "-", text)[:_NAME].strip("-.") or "unnamed"


def distinct_name(name: str, taken: set[str]) -> str:
    """``name``, with a number if it is ``taken``; adds it there."""
    found, number = name, 1
    while found.casefold() in taken:  # some file systems do not tell letters by their case
        number += 1
        found = f"{name}-{number}"
    taken.add(found.casefold())
    return found


def plain(text: str) -> str:
    """On one line and without signs that no font shows or no XML holds."""
    return "".join(
        " " if char.isspace() else "�" if unicodedata.category(char) in ("Cc", "Cf", "Cs") else char
        for char in text
    )


@contextmanager
def canvas(width: float, height: float) -> Generator[tuple[Any, Any]]:
    """A figure of so many inches and its axes, in the style of the page."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # Whoever looks at the SVG has the letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        axes.set_axisbelow(True)
        yield figure, axes


def written(figure: Any) -> str:
    """The SVG; the same figure gives the same bytes."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def ticks(places: Sequence[float], is_log: bool, most: int = 8) -> list[float]:
    """Those of ``places`` that can be labelled on one axis without touching each other."""
    values = sorted(set(places))
    at = [math.log(value) if is_log else value for value in values]
    room = (at[-1] - at[0]) / most
    kept = [len(values) - 1]  # the ends always
    for i in range(len(values) - 2, -1, -1):
        if at[kept[-1]] - at[i] >= room and (i == 0 or at[i] - at[0] >= room):
            kept.append(i)
    if kept[-1] != 0 and len(values) > 1:
        kept.append(0)
    return [values[i] for i in reversed(kept)]


def _bare(svg: str) -> str:
    svg = svg[svg.index("<svg") :]
    return re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)


@functools.cache
def _by_day() -> dict[str, str]:
    """The page's colours in the light, by name: the first of two in its style sheets."""
    found: dict[str, str] = {}
    for sheet in _SHEETS:
        for name, colour in re.findall(r"--(\w+): (#[0-9a-f]{6})", sheet.read_text()):
            found.setdefault(name, colour)
    return found
