"""The report as one self-contained HTML file: no scripts, no outside assets, prints well."""

import math
import statistics
from pathlib import Path
from typing import Any

from sft import display, template
from sft.eval import seeds
from sft.report import compare, findings, groups, plots, scores, suites, sweep
from sft.report.diagnosis import Diagnosis, diagnose
from sft.report.load import Record, Run
from sft.report.scores import Score
from sft.workdir import path_of, write_text


def write(
    run: Run,
    path: str | Path,
    diagnosis: Diagnosis | None = None,
    shown: dict[str, list[Score]] | None = None,
) -> Path:
    """Renders ``run`` to ``path`` and returns it. The same run gives the same bytes."""
    path = path_of(path)
    write_text(path, render(run, diagnosis, shown))
    return path


def render(
    run: Run, diagnosis: Diagnosis | None = None, shown: dict[str, list[Score]] | None = None
) -> str:
    """The whole page. Every value from the run is escaped by the template.

    Args:
      diagnosis, shown: ``diagnose(run)`` and ``scores.of_sets(run)``, where they are there already.
    """
    page = _template("template.html")
    comparisons = [findings.compare(run, name) for name in run.sets]
    behaviour = suites.of_run(run)
    return page.render(
        run=run,
        comparisons=comparisons,
        scores=scores.of_sets(run) if shown is None else shown,
        diagnosis=diagnosis or diagnose(run),
        headline=findings.headline(comparisons),
        warnings=[*findings.warnings(run, comparisons), *suites.warnings(behaviour)],
        suites=behaviour,
        figures=[
            plots.curve(run, "loss", "loss (nats per trained token)"),
            plots.curve(run, "token_accuracy", "token accuracy"),
        ],
        notes={name: findings.notes(run, name) for name in run.sets},
        samples={name: findings.samples(run, name) for name in run.sets},
        changed=findings.changed_config(run),
        throughput=median(run.train, "trained_tokens_per_second"),
    )


def render_comparison(comparison: compare.Comparison) -> str:
    """The page that shows several runs beside each other."""
    runs, labels = comparison.runs, comparison.labels
    figures = [
        plots.overlay(runs, labels, "validation", "loss", "validation loss (nats per token)"),
        plots.overlay(runs, labels, "train", "loss", "training loss, smoothed"),
        plots.overlay(runs, labels, "validation", "token_accuracy", "validation token accuracy"),
    ]
    return _template("compare.html").render(
        comparison=comparison,
        figures=[figure for figure in figures if figure],
        diagnoses=[(label, diagnose(run)) for label, run in zip(labels, runs, strict=True)],
        groups={table.name: groups.of(table) for table in comparison.tables},
        answers={table.name: compare.answers(table) for table in comparison.tables},
    )


def render_sweep(found: sweep.Sweep) -> str:
    """The page of a sweep: its tables, each score against each knob, the curves."""
    runs = found.comparison.runs
    labels = found.comparison.labels
    curves = [
        plots.overlay(runs, labels, "validation", "loss", "validation loss (nats per token)"),
        plots.overlay(runs, labels, "train", "loss", "training loss, smoothed"),
    ]
    return _template("sweep.html").render(
        sweep=found,
        interval_of=sweep.interval,
        text_of=sweep.settings_text,
        curves=[figure for figure in curves if figure],
        knobs={
            sheet.name: [
                plots.knob(lines, f"{sheet.name}-{metric}", key, display.name(metric))
                for metric in sheet.metrics
                for key, lines in sweep.lines(sheet, metric)
            ]
            for sheet in found.sheets
        },
        diagnoses=[(label, diagnose(run)) for label, run in zip(labels, runs, strict=True)],
    )


def _template(name: str) -> Any:
    return template.load(
        Path(__file__).with_name(name),
        percent=display.share,
        points=display.points,
        p_value=display.p_value,
        number=number,
        duration=duration,
        gib=gib,
        value=display.score,
        change=display.change,
        words=display.name,
        over_seeds=over_seeds,
        by_seeds=by_seeds,
    )


def over_seeds(found: seeds.Summary, metric: str) -> str:
    """Mean ± the deviation of a single run, and the interval of the mean."""
    spread = display.score(found.deviation, metric) if found.deviation else "unknown"
    text = f"{display.score(found.mean, metric)} ± {spread}"
    if math.isfinite(found.low):
        text += f" [{display.score(found.low, metric)}, {display.score(found.high, metric)}]"
    return text


def by_seeds(found: scores.Change, metric: str) -> str:
    """A change of means over seeds, with what is known of it."""
    text = display.change(found.value, metric)
    if math.isfinite(found.low):
        text += f" ({display.change(found.low, metric)} to {display.change(found.high, metric)})"
    return f"{text}, {display.p_value(found.p)}: {found.verdict}"


def median(records: list[Record], field: str) -> float | None:
    """Of ``field``, over the records that have it."""
    values = [record[field] for record in records if record.get(field) is not None]
    return statistics.median(values) if values else None


def number(value: Any) -> str:
    """Thousands grouped, four significant digits for fractions, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{int(value):,}"
    return str(value)


def duration(seconds: float | None) -> str:
    """``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def gib(size: float | None) -> str:
    return "–" if size is None else f"{size / 2**30:.2f} GiB"
