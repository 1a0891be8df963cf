"""Which figures stand on which page, and where their files lie."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from sft.report import compare, plots, sweep
from sft.report.drawing import Drawing
from sft.report.load import Run
from sft.workdir import write_text

_LOSS, _VALIDATION = "loss (nats per trained token)", "validation loss (nats per token)"
_ACCURACY = "token accuracy"


@dataclasses.dataclass(frozen=True)
class Figures:
    """The figures of a page; no two of them have the same name.

    Attributes:
      scores: by the name of the set that they are of.
    """

    training: list[Drawing]
    scores: dict[str, list[Drawing]]

    @property
    def all(self) -> list[Drawing]:
        return [*(one for found in self.scores.values() for one in found), *self.training]


def of_run(run: Run) -> Figures:
    """The curves of a run."""
    return _named(
        [
            plots.curve(run, "loss", _LOSS),
            plots.curve(run, "token_accuracy", _ACCURACY),
        ]
    )


def of_comparison(comparison: compare.Comparison) -> Figures:
    """The curves of several runs over each other."""
    runs, labels = comparison.runs, comparison.labels
    return _named(
        [
            plots.overlay(runs, labels, "validation", "loss", _VALIDATION),
            plots.overlay(runs, labels, "train", "loss", "training loss, smoothed"),
            plots.overlay(runs, labels, "validation", "token_accuracy", f"validation {_ACCURACY}"),
        ]
    )


def of_sweep(found: sweep.Sweep) -> Figures:
    """The curves of a sweep over each other, and each score against each setting."""
    runs, labels = found.comparison.runs, found.comparison.labels
    return _named(
        [
            plots.overlay(runs, labels, "validation", "loss", _VALIDATION),
            plots.overlay(runs, labels, "train", "loss", "training loss, smoothed"),
        ],
        {
            sheet.name: [
                plots.knob(lines, f"{sheet.name}-{metric}-{key}", key, metric)
                for metric in sheet.metrics
                for key, lines in sweep.lines(sheet, metric)
            ]
            for sheet in found.sheets
        },
    )


def folder(page: Path) -> str:
    """The name of the folder beside a page that has the files of its figures."""
    return f"{page.stem}_files"


def write(figures: Figures, page: Path) -> Path | None:
    """Writes each figure as SVG and its numbers as CSV; returns the folder, if there are any."""
    found = page.with_name(folder(page))
    for drawing in figures.all:
        for name, text in drawing.files.items():
            write_text(found / name, text)
    return found if figures.all else None


def _named(
    training: Iterable[Drawing | None], scores: dict[str, list[Drawing]] | None = None
) -> Figures:
    """Leaves out what there was nothing to draw of; gives figures of one name a number each."""
    taken: set[str] = set()

    def distinct(drawing: Drawing) -> Drawing:
        name, number = drawing.name, 1
        while name.casefold() in taken:  # some file systems do not tell letters by their case
            number += 1
            name = f"{drawing.name}-{number}"
        taken.add(name.casefold())
        return dataclasses.replace(drawing, name=name)

    return Figures(
        [distinct(one) for one in training if one],
        {name: list(map(distinct, found)) for name, found in (scores or {}).items()},
    )
