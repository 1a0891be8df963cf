"""The table of a sweep as markdown, CSV and LaTeX."""

import csv
import io
import math
from typing import Any

from sft.report import sweep
from sft.report.scores import Baseline
from sft.report.sweep import Row, Sheet
from sft.run import display


def markdown(sheet: Sheet) -> str:
    """Mean [interval], and the change from the first row; the best mean is bold."""
    head = [sheet.name, *sheet.knobs, "seeds", *map(display.name, sheet.metrics)]
    rows = [
        [
            str(i + 1),
            *(f"`{row.settings[key]!r}`" for key in sheet.knobs),
            ", ".join(map(str, row.group.seeds)),
            *(_cell(sheet, i, metric) for metric in sheet.metrics),
        ]
        for i, row in enumerate(sheet.rows)
    ]
    without = [
        [one.label, *[""] * (1 + len(sheet.knobs)), *(scored(one, m) for m in sheet.metrics)]
        for one in sheet.baselines
    ]
    lines = [head, ["---"] * len(head), *without, *rows]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    )


def scored(one: Baseline, metric: str) -> str:
    """What answers without a model score."""
    found = one.metrics.get(metric)
    if not found:
        return "–"
    bounds = f" [{display.interval(*found['interval'], metric)}]" if found["interval"] else ""
    return display.score(found["value"], metric) + bounds


def _cell(sheet: Sheet, index: int, metric: str) -> str:
    row = sheet.rows[index]
    score = row.group.scores.get(metric)
    if score is None:
        return "–"
    text = display.score(score.mean, metric)
    if sheet.best.get(metric) == index:
        text = f"**{text}**"
    if bounds := sweep.interval(row, metric):
        text += f" [{display.interval(*bounds, metric)}]"
    if change := row.changes.get(metric):
        text += f"; {display.change(change.value, metric)}, {display.p_value(change.p)}: "
        text += change.verdict
    return text


def comma_separated(sheets: list[Sheet]) -> str:
    """One line for each row and metric: long, as programs like it."""
    knobs = list(dict.fromkeys(key for sheet in sheets for key in sheet.knobs))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            *("set", *knobs, "seeds", "metric", "mean", "deviation", "low", "high", "best"),
            *("change", "change_low", "change_high", "p", "tested_over", "verdict"),
            *("fingerprints", "commands", "without_model"),
        ]
    )
    for sheet in sheets:
        for one in sheet.baselines:
            for metric in sheet.metrics:
                if metric in one.metrics:
                    writer.writerow(_line_without(sheet, one, metric, knobs))
        for i, row in enumerate(sheet.rows):
            for metric in row.group.scores:
                writer.writerow(_line(sheet, i, row, metric, knobs))
    return out.getvalue()


def _line(sheet: Sheet, index: int, row: Row, metric: str, knobs: list[str]) -> list[Any]:
    score, change = row.group.scores[metric], row.changes.get(metric)
    low, high = sweep.interval(row, metric) or ("", "")
    tested = [change.value, *_finite(change.low, change.high), change.p] if change else [""] * 4
    over = ("seeds" if row.over_seeds else "prompts") if change else ""
    return [
        sheet.name,
        *(row.settings.get(key, "") for key in knobs),
        " ".join(map(str, row.group.seeds)),
        *(metric, score.mean, score.deviation if len(row.group.entries) > 1 else ""),
        *(low, high, int(sheet.best.get(metric) == index)),
        *(*tested, over, change.verdict if change else ""),
        *(" ".join(row.fingerprints), " ; ".join(row.commands), ""),
    ]


def _line_without(sheet: Sheet, one: Baseline, metric: str, knobs: list[str]) -> list[Any]:
    found = one.metrics[metric]
    ends = [end if end is not None else "" for end in found["interval"] or ("", "")]
    known = [sheet.name, *[""] * (1 + len(knobs)), metric, found["value"], "", *ends, 0]
    return [*known, *[""] * 8, one.label]


def _finite(*values: float) -> list[float | str]:
    return [value if math.isfinite(value) else "" for value in values]


def latex(sheet: Sheet) -> str:
    r"""A ``tabular`` for ``booktabs``; ± is half of the 95 % interval, * a change that is one."""
    columns = "l" * len(sheet.knobs) + "r" * (1 + len(sheet.metrics))
    head = map(_escaped, [*sheet.knobs, "seeds", *map(display.name, sheet.metrics)])
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _latex_row([*head]), r"\midrule"]
    for one in sheet.baselines:
        label = rf"\multicolumn{{{len(sheet.knobs) + 1}}}{{l}}{{{_escaped(one.label)}}}"
        lines.append(_latex_row([label, *(_latex_without(one, m) for m in sheet.metrics)]))
    lines += [r"\midrule"] if sheet.baselines else []
    for i, row in enumerate(sheet.rows):
        cells = [_escaped(str(row.settings[key])) for key in sheet.knobs]
        cells += [str(len(row.group.seeds)), *(_latex_cell(sheet, i, m) for m in sheet.metrics)]
        lines.append(_latex_row(cells))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_without(one: Baseline, metric: str) -> str:
    found = one.metrics.get(metric)
    if not found:
        return "--"
    text = _escaped(display.score(found["value"], metric))
    if found["interval"] and None not in found["interval"]:
        low, high = found["interval"]
        text += rf" $\pm$ {_escaped(display.score((high - low) / 2, metric))}"
    return text


def _latex_cell(sheet: Sheet, index: int, metric: str) -> str:
    row = sheet.rows[index]
    score = row.group.scores.get(metric)
    if score is None:
        return "--"
    text = _escaped(display.score(score.mean, metric))
    if sheet.best.get(metric) == index:
        text = rf"\textbf{{{text}}}"
    if bounds := sweep.interval(row, metric):
        half = (bounds[1] - bounds[0]) / 2
        text += rf" $\pm$ {_escaped(display.score(half, metric))}"
    change = row.changes.get(metric)
    return text + ("$^*$" if change and change.verdict != "unclear" else "")


def _escaped(text: str) -> str:
    signs = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(signs.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
