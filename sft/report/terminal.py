"""The report as plain text, for a terminal or a log."""

from sft.report import findings
from sft.report.load import Run


def render(run: Run) -> str:
    """Headline, one line per set, warnings and the epoch table. Ends with a newline."""
    comparisons = [findings.compare(run, name) for name in run.sets]
    lines = [findings.headline(comparisons), ""]
    lines += [f"  {c.sentence}" for c in comparisons]
    lines += [f"  note: {warning}" for warning in findings.warnings(run, comparisons)]
    lines += ["", *_epochs(run)] if run.selection else []
    if run.train:
        last = run.train[-1]
        lines += ["", f"last step {last['step']}: training loss {last['loss']:.4f}"]
    lines.append(f"run {run.path}, config {run.fingerprint or 'unknown'}")
    return "\n".join(lines) + "\n"


def _epochs(run: Run) -> list[str]:
    selection = run.selection or {}
    lines = [f"{'epoch':>5}  {'step':>7}  {'val loss':>9}  {'val token acc':>13}"]
    for epoch in selection["epochs"]:
        mark = f"  <- chosen: {selection.get('why', '')}" if _chosen(selection, epoch) else ""
        lines.append(
            f"{epoch['epoch']:>5g}  {epoch['step']:>7}  {epoch['loss']:>9.4f}  "
            f"{findings.percent(epoch['token_accuracy']):>13}{mark}"
        )
    return lines


def _chosen(selection: dict, epoch: dict) -> bool:
    return epoch["step"] == selection["step"]
