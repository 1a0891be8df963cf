"""The report as one self-contained HTML file: no scripts, no outside assets, prints well."""

import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from sft.eval import seeds
from sft.report import (
    answers,
    compare,
    confusion,
    figures,
    findings,
    groups,
    scores,
    suites,
    sweep,
    template,
)
from sft.report.diagnosis import Diagnosis, diagnose
from sft.report.figures import Figures
from sft.report.load import Record, Run
from sft.report.scores import Score
from sft.run import display, progress


def render(
    run: Run,
    diagnosis: Diagnosis | None = None,
    shown: dict[str, list[Score]] | None = None,
    drawn: Figures | None = None,
    files: str = "",
) -> str:
    """The whole page. Every value from the run is escaped by the template.

    The same run gives the same bytes.

    Args:
      diagnosis, shown, drawn: ``diagnose(run)``, ``scores.of_sets(run)`` and
        ``figures.of_run(run)``, where they are there already.
      files: the folder beside the page that has the files of the figures; "" = not written.
    """
    page = _template("template.html")
    comparisons = [findings.compare(run, name) for name in run.sets]
    behaviour = suites.of_run(run)
    return page.render(
        run=run,
        comparisons=comparisons,
        scores={
            name: scores.with_baselines(run, name, found)
            for name, found in (scores.of_sets(run) if shown is None else shown).items()
        },
        confusions=confusion.of_run(run),
        diagnosis=diagnosis or diagnose(run),
        headline=findings.headline(comparisons),
        warnings=[*findings.warnings(run, comparisons), *suites.warnings(behaviour)],
        suites=behaviour,
        figures=drawn or figures.of_run(run),
        files=files,
        epoch_metrics=findings.epoch_metrics(run.selection) if run.selection else {},
        notes={name: findings.notes(run, name) for name in run.sets},
        samples={name: findings.samples(run, name) for name in run.sets},
        wrong={name: findings.wrong(run, name) for name in run.sets},
        answers=answers.of_run(run),
        changed=findings.changed_config(run),
        throughput=median(run.train, "trained_tokens_per_second"),
    )


def render_comparison(
    comparison: compare.Comparison, drawn: Figures | None = None, files: str = ""
) -> str:
    """The page that shows several runs beside each other.

    Args:
      drawn, files: as of ``render``.
    """
    runs, labels = comparison.runs, comparison.labels
    return _template("compare.html").render(
        comparison=comparison,
        figures=drawn or figures.of_comparison(comparison),
        files=files,
        diagnoses=[(label, diagnose(run)) for label, run in zip(labels, runs, strict=True)],
        groups={table.name: groups.of(table) for table in comparison.tables},
        differing={table.name: compare.answers(table) for table in comparison.tables},
        answers=answers.of_comparison(comparison),
    )


def render_sweep(found: sweep.Sweep, drawn: Figures | None = None, files: str = "") -> str:
    """The page of a sweep: its tables, each score against each knob, the curves.

    Args:
      drawn, files: as of ``render``.
    """
    runs, labels = found.comparison.runs, found.comparison.labels
    return _template("sweep.html").render(
        sweep=found,
        interval_of=sweep.interval,
        text_of=sweep.settings_text,
        figures=drawn or figures.of_sweep(found),
        files=files,
        diagnoses=[(label, diagnose(run)) for label, run in zip(labels, runs, strict=True)],
    )


def render_answers(found: dict[str, list[answers.Page]], back: str) -> dict[str, str]:
    """Pages with all answers, by the names of their files.

    Args:
      back: the address of the report, from where they lie.
    """
    page = _template("answers.html")
    others = {name: pages[0].file for name, pages in found.items() if pages}
    return {
        one.file: page.render(page=one, pages=pages, others=others, back=back)
        for pages in found.values()
        for one in pages
    }


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
        bounds=bounds,
        key=key,
        arm_name=scores.arm_name,
        over_seeds=over_seeds,
        by_seeds=by_seeds,
    )


def bounds(interval: Sequence[float | None], metric: str) -> str:
    """``94.2 % to 97.9 %``, which may be broken before and after the "to" only."""
    return " to ".join(display.score(end, metric).replace(" ", "\xa0") for end in interval)


def key(text: str) -> Markup:
    """Settings by their keys, which may be broken after their dots only."""
    parts = [escape(part) for part in re.split(r"(?<=[A-Za-z_])(?=\.[A-Za-z_])", text)]
    return Markup(".<wbr>").join([parts[0], *(part[1:] for part in parts[1:])])


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
    """As ``progress.duration``; a dash for nothing."""
    return "–" if seconds is None else progress.duration(seconds)


def gib(size: float | None) -> str:
    return "–" if size is None else f"{size / 2**30:.2f} GiB"
