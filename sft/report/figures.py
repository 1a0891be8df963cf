"""Which figures stand on which page, and where their files lie."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sft.report import compare, plots, points, scores, sweep
from sft.report.diagnosis import history
from sft.report.drawing import Drawing, distinct_name
from sft.report.load import Record, Run
from sft.run import display
from sft.run.directory import write_text

_LOSS, _ACCURACY = "loss (nats per trained token)", "token accuracy"
_ALWAYS = ("loss", "token_accuracy")
_ABOUT = ("split", "step", "epoch")  # of a row, no numbers to draw


type _Model = tuple[str, str, Record]  # label, arm, evaluation


@dataclasses.dataclass(frozen=True)
class Figures:
    """The figures of a page; no two of them have the same name.

    Attributes:
      training: losses and what else is measured of a model that is being tuned.
      small: what the optimiser did.
      scores: by the name of the set that they are of.
    """

    training: list[Drawing]
    scores: dict[str, list[Drawing]]
    small: list[Drawing] = dataclasses.field(default_factory=list)

    @property
    def all(self) -> list[Drawing]:
        scores = (one for found in self.scores.values() for one in found)
        return [*scores, *self.training, *self.small]


def of_run(run: Run) -> Figures:
    """The curves of a run: losses, accuracy, what chooses the epoch, and how it was trained."""
    trained = "training"
    if history.with_prompts(run):
        trained = f"training, prompts too (weight {run.config['loss.prompt_weight']:g})"
    chooses = (run.selection or run.config).get("metric" if run.selection else "train.select", "")
    more = [chooses] if chooses not in (*_ALWAYS, *_ABOUT) else []
    clip = run.config.get("optim.clip_norm", 0.0)
    return _named(
        [
            plots.curve(run, "loss", _LOSS, trained),
            plots.curve(run, "token_accuracy", _ACCURACY, trained),
            *(plots.curve(run, name, f"{display.name(name)} on validation") for name in more),
        ],
        {name: _dots(name, _models(run, name)) for name in run.sets},
        small=[
            plots.course(run, "learning_rate", "learning rate"),
            plots.course(run, "grad_norm", "gradient norm", clip),
        ],
    )


def of_comparison(comparison: compare.Comparison) -> Figures:
    """The curves of several runs over each other, and the scores of their models."""
    found = {
        table.name: _dots(table.name, [(e.label, e.arm, e.record) for e in table.entries])
        for table in comparison.tables
    }
    return _named(_overlaid(comparison), found)


def of_sweep(found: sweep.Sweep) -> Figures:
    """The curves of a sweep over each other, and each score against each setting."""
    return _named(
        _overlaid(found.comparison),
        {
            sheet.name: [
                points.knob(lines, f"{sheet.name}-{metric}-{key}", key, metric)
                for metric in sheet.metrics
                for key, lines in sweep.lines(sheet, metric)
            ]
            for sheet in found.sheets
        },
    )


def _models(run: Run, name: str) -> list[_Model]:
    arms = scores.arms(run, name)
    return [(scores.arm_name(arm), arm, run.evals[arm, name]) for arm in arms]


def _dots(name: str, models: list[_Model]) -> list[Drawing]:
    """What the set is about, of each model and of answers without one."""
    records = [record for *_, record in models]
    metric = scores.primary(*records)
    without = [(one.label, "baseline", one.metrics) for one in scores.baselines(*records)]
    with_one = [
        (label, "base" if arm.startswith("base") else "tuned", scores.metrics(record))
        for label, arm, record in models
    ]
    found = [
        points.Dot(label, kind, known["value"], *(known.get("interval") or (None, None)))
        for label, kind, metrics in [*without, *with_one]
        if (known := metrics.get(metric))
    ]
    title = f"{display.name(metric)} on {name}, with 95 % intervals"
    return [points.dots(found, metric, f"{name}-{metric}", title)] if found else []


def _overlaid(found: compare.Comparison) -> list[Drawing | None]:
    runs, labels = found.runs, found.labels
    chosen = dict.fromkeys((run.selection or {}).get("metric", "loss") for run in runs)
    more = [name for name in chosen if name not in (*_ALWAYS, *_ABOUT)]
    prompts = [label for label, run in zip(labels, runs, strict=True) if history.with_prompts(run)]
    note = ""
    if prompts:
        note = (
            f"The loss is that of prompts too (config.loss.prompt_weight) in {', '.join(prompts)}."
        )
    return [
        plots.overlay(runs, labels, "validation", "loss", "validation loss (nats per token)"),
        plots.overlay(runs, labels, "train", "loss", "training loss, smoothed", note),
        plots.overlay(runs, labels, "validation", "token_accuracy", f"validation {_ACCURACY}"),
        *(
            plots.overlay(runs, labels, "validation", name, f"{display.name(name)} on validation")
            for name in more
        ),
    ]


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
    training: Iterable[Drawing | None],
    scores: Mapping[str, Sequence[Drawing | None]] | None = None,
    small: Iterable[Drawing | None] = (),
) -> Figures:
    """Leaves out what there was nothing to draw of; gives figures of one name a number each."""
    taken: set[str] = set()

    def distinct(drawing: Drawing) -> Drawing:
        return dataclasses.replace(drawing, name=distinct_name(drawing.name, taken))

    return Figures(
        [distinct(one) for one in training if one],
        {name: [distinct(one) for one in found if one] for name, found in (scores or {}).items()},
        [distinct(one) for one in small if one],
    )
