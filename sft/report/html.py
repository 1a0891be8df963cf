"""The report as one self-contained HTML file: no scripts, no outside assets, prints well."""

import statistics
from pathlib import Path
from typing import Any

from sft import template
from sft.report import findings, plots
from sft.report.load import Record, Run


def write(run: Run, path: str | Path) -> Path:
    """Renders ``run`` to ``path`` and returns it. The same run gives the same bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(run), encoding="utf-8")
    return path


def render(run: Run) -> str:
    """The whole page. Every value from the run is escaped by the template."""
    page = template.load(
        Path(__file__).with_name("template.html"),
        percent=findings.percent,
        points=findings.points,
        p_value=findings.p_value,
        interval=findings.interval,
        number=number,
        duration=duration,
        gib=gib,
    )
    comparisons = [findings.compare(run, name) for name in run.sets]
    return page.render(
        run=run,
        comparisons=comparisons,
        headline=findings.headline(comparisons),
        warnings=findings.warnings(run, comparisons),
        figures=[
            plots.curve(run, "loss", "loss (nats per trained token)"),
            plots.curve(run, "token_accuracy", "token accuracy"),
        ],
        samples={name: findings.samples(run, name) for name in run.sets},
        changed=findings.changed_config(run),
        throughput=median(run.train, "trained_tokens_per_second"),
    )


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
