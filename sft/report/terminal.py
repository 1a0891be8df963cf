"""The report as plain text, for a terminal or a log, and as a markdown table."""

from collections.abc import Sequence

from sft.eval import lines as result_lines
from sft.report import compare, findings, groups, html, scores, suites, tables
from sft.report.diagnosis import Diagnosis, diagnose
from sft.report.load import Run
from sft.report.scores import Score
from sft.run import display


def render(
    run: Run, diagnosis: Diagnosis | None = None, shown: dict[str, list[Score]] | None = None
) -> str:
    """Headline, scores, warnings, diagnosis and the epoch table. Ends with a newline.

    Args:
      diagnosis, shown: as of ``html.render``.
    """
    shown = scores.of_sets(run) if shown is None else shown
    comparisons = [findings.compare(run, name) for name in run.sets]
    lines = [findings.headline(comparisons), ""]
    for comparison in comparisons:
        lines.append(f"  {comparison.sentence}")
        notes = findings.notes(run, comparison.name)
        notes += findings.without_model(run, comparison.name)
        lines += [f"    {note}" for note in notes]
        lines += _scores(shown[comparison.name], comparison.metric)
    lines += [f"  note: {warning}" for warning in findings.warnings(run, comparisons)]
    for suite in suites.of_run(run):
        lines += [f"  suite {suite.name}: {_failing(suite)}"]
        lines += [f"    {rate.sentence}" for rate in suite.rates]
    lines += ["", *_diagnosis(diagnosis or diagnose(run))]
    lines += ["", *_epochs(run)] if run.selection else []
    if run.train:
        last = run.train[-1]
        lines += ["", f"last step {last['step']}: training loss {last['loss']:.4f}"]
    lines.append(f"run {run.path}, config {run.fingerprint or 'unknown'}")
    return "\n".join(lines) + "\n"


def _scores(found: list[Score], said: str) -> list[str]:
    """A line for each metric of each model that is compared with the base, but for the metric that
    was ``said`` of the best one."""
    base = {score.metric: score for score in found if score.arm == "base"}
    lines = []
    for score in found:
        if score.arm == "base" or (score.arm, score.metric) == ("best", said):
            continue
        before = base.get(score.metric)
        start = f"{display.score(before.value, score.metric)} → " if before else ""
        arm = "" if score.arm == "best" else f"{score.label}: "
        value = display.score(score.value, score.metric)
        text = f"    {arm}{display.name(score.metric)} {start}{value}"
        if score.change:
            parts = (score.change.value, score.change.low, score.change.high)
            by, low, high = (display.change(part, score.metric) for part in parts)
            p = display.p_value(score.change.p)
            text += f" ({by}, 95 % interval {low} to {high}, {p}: {score.change.verdict})"
        lines.append(text)
    return lines


def _failing(suite: suites.Suite) -> str:
    if not suite.failing:
        return "every decided case passes"
    broken = f", {suite.broken} of them passed before tuning" if suite.broken else ""
    return f"{len(suite.failing)} cases fail{broken}"


def _diagnosis(diagnosis: Diagnosis) -> list[str]:
    lines = ["diagnosis:"]
    for finding in diagnosis.findings:
        lines += [f"  {finding.severity}: {finding.sentence}", f"    -> {finding.remedy}"]
    return [*lines, f"  {diagnosis.summary}"]


def _epochs(run: Run) -> list[str]:
    """A line for each validation."""
    selection = run.selection or {}
    shown = findings.epoch_metrics(selection)
    widths = {name: max(9, len(head)) for name, head in shown.items()}
    titles = "".join(f"  {shown[name]:>{width}}" for name, width in widths.items())
    lines = [f"{'epoch':>5}  {'step':>7}{titles}"]
    for epoch in selection["epochs"]:
        mark = f"  <- chosen: {selection.get('why', '')}" if _chosen(selection, epoch) else ""
        values = "".join(f"  {display.score(epoch[n], n):>{w}}" for n, w in widths.items())
        lines.append(f"{epoch['epoch']:>5g}  {epoch['step']:>7}{values}{mark}")
    return lines


def _chosen(selection: dict, epoch: dict) -> bool:
    return epoch["step"] == selection["step"]


def markdown(comparison: compare.Comparison) -> str:
    """Scores on each set, what differs in the configuration, the diagnoses. Ends with a newline."""
    blocks = []
    for table in comparison.tables:
        head = [table.name, *map(display.name, table.metrics)]
        rows = [
            [entry.label, *(_cell(table, entry, metric) for metric in table.metrics)]
            for entry in table.entries
        ]
        rows = [_without(table, one) for one in table.baselines] + rows
        blocks += [_table(head, rows), *table.notes]
        if without := _constants(table):
            blocks.append(f"{table.name} {without}")
        if over := groups.of(table):
            blocks.append(_over_seeds(table, over))
    if comparison.tables:
        blocks.append("**bold**: surely better than every other model; [95 % interval]")
    if comparison.settings:
        rows = [
            [f"`{key}`", *(f"`{value!r}`" for value in values)]
            for key, values in comparison.settings
        ]
        blocks.append(_table(["configuration", *comparison.labels], rows))
    for label, run in zip(comparison.labels, comparison.runs, strict=True):
        found = diagnose(run)
        said = " ".join(finding.sentence for finding in found.findings)
        blocks.append(f"{label}: {said or 'nothing stands out.'}")
    blocks += [f"Not compared. {why}." for why in comparison.refused]
    return "\n\n".join(blocks) + "\n"


def _constants(table: compare.Table) -> str:
    """What no model is needed for, where all runs were scored on the same labels."""
    said = {result_lines.constants(entry.record) for entry in table.entries}
    return said.pop() if len(said) == 1 else ""


def _over_seeds(table: compare.Table, over: list[groups.Group]) -> str:
    """Mean and deviation over seeds, and the change from the first configuration."""
    rows = [_without(table, one, 1) for one in table.baselines]
    for group in over:
        row = [group.label, ", ".join(map(str, group.seeds))]
        for metric in table.metrics:
            score, change = group.scores.get(metric), group.changes.get(metric)
            text = html.over_seeds(score, metric) if score else "–"
            if change:
                text += f"; {html.by_seeds(change, metric)}"
            row.append(text)
        rows.append(row)
    return _table([f"{table.name}, over seeds", "seeds", *map(display.name, table.metrics)], rows)


def _without(table: compare.Table, one: scores.Baseline, before: int = 0) -> list[str]:
    """The row of answers without a model; ``before``: empty columns after its name."""
    return [one.label, *[""] * before, *(tables.scored(one, metric) for metric in table.metrics)]


def _cell(table: compare.Table, entry: compare.Entry, metric: str) -> str:
    found = entry.metrics.get(metric)
    if not found:
        return "–"
    text = display.score(found["value"], metric)
    if table.best.get(metric) == entry.label:
        text = f"**{text}**"
    if found.get("interval"):
        text += f" [{display.interval(*found['interval'], metric)}]"
    return text


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in lines) for i in range(len(head))]
    said = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([said[0], rule, *said[1:]])
