"""``sft report``: prints a run and writes its ``report.html``, or compares several."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sft.errors import UserError
from sft.report import compare, html, scores, terminal
from sft.report.diagnosis import diagnose
from sft.report.load import load_run
from sft.workdir import write_text


def main(workdirs: Sequence[str], out: str = "") -> dict[str, Any]:
    """Reports one run, or several beside each other.

    Args:
      workdirs: run directories.
      out: the page; "" = ``report.html`` in the run, ``compare.html`` here for several.

    Returns:
      ``{"report": path of the page, "diagnosis": [{"name", "severity", "sentence", "remedy"}]}``;
      of several ``{"report", "markdown": path of the table, "best": {set: {metric: run}}}``.

    Raises:
      UserError: one is not a run directory, or a file in it is malformed. Scores of several runs
        were made on other test data or with other prompts: the rest is compared first.
    """
    if len(workdirs) > 1:
        return _compare(workdirs, Path(out or "compare.html"))
    run = load_run(workdirs[0])
    diagnosis = diagnose(run)
    shown = scores.of_sets(run)
    path = html.write(run, out or run.path / "report.html", diagnosis, shown)
    print(terminal.render(run, diagnosis, shown), end="")
    print(f"wrote {path}")
    return {"report": str(path), "diagnosis": [vars(finding) for finding in diagnosis.findings]}


def _compare(workdirs: Sequence[str], page: Path) -> dict[str, Any]:
    twice = [name for i, name in enumerate(workdirs) if _same(name, workdirs[:i])]
    if twice:
        raise UserError(f"sft report: {twice[0]} is given twice. Name each run once.")
    comparison = compare.compare([load_run(workdir) for workdir in workdirs])
    table = page.with_suffix(".md")
    text = terminal.markdown(comparison)
    write_text(page, html.render_comparison(comparison))
    write_text(table, text)
    print(text)
    print(f"wrote {page} and {table}")
    if comparison.refused:
        raise UserError(
            f"{'; '.join(comparison.refused)}. These scores are not compared; evaluate the runs "
            "with the same config.data.test and prompts."
        )
    best = {found.name: found.best for found in comparison.tables}
    return {"report": str(page), "markdown": str(table), "best": best}


def _same(name: str, others: Sequence[str]) -> bool:
    return Path(name).resolve() in [Path(other).resolve() for other in others]
