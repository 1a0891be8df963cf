"""``sft report``: prints a run and writes its ``report.html``, or compares several, or a sweep."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sft.errors import UserError
from sft.report import (
    answers,
    compare,
    confusion,
    figures,
    html,
    onward,
    scores,
    sweep,
    tables,
    terminal,
)
from sft.report.diagnosis import diagnose
from sft.report.figures import Figures
from sft.report.load import load_run, named
from sft.run.directory import write_text

_NOTHING: Mapping[str, str] = MappingProxyType({})


def main(runs: Sequence[str], out: str = "") -> dict[str, Any]:
    """Reports one run, or several beside each other.

    Args:
      runs: run directories, or the one of a sweep.
      out: the page; "" = ``report.html`` in the run, ``compare.html`` here for several,
        ``sweep.html`` in a sweep; tables of several and of a sweep lie beside the page.

    Returns:
      ``{"report": path of the page, "diagnosis": [{"name", "severity", "sentence", "remedy"}]}``;
      of several ``{"report", "markdown": path of the table, "best": {set: {metric: run}}}``; of a
      sweep ``{"report", "best": {set: {metric: settings}}, "unfinished": [point], "stopped":
      {point: why}, "ignored": [sentence]}``.

    Raises:
      UserError: one is not a run directory, or a file in it is malformed. Scores of several runs
        were made on other test data or with other prompts: the rest is compared first.
    """
    if len(runs) > 1:
        return _compare(runs, named(out or "compare.html"))
    if sweep.is_sweep(runs[0]):
        return _sweep(runs[0], out)
    run = load_run(runs[0])
    diagnosis = diagnose(run)
    shown = scores.of_sets(run)
    page = named(out) if out else run.path / "report.html"
    drawn = figures.of_run(run)
    beside = figures.folder(page)
    text = html.render(run, diagnosis, shown, drawn, beside)
    more = html.render_answers(answers.of_run(run), f"../{page.name}")
    for found in confusion.of_run(run).values():
        for one in found:
            more |= one.files
    written = _write({page: text}, drawn, more)
    print(terminal.render(run, diagnosis, shown), end="")
    print(written)
    print(onward.lines(onward.of_run(run)))
    return {"report": str(page), "diagnosis": [vars(finding) for finding in diagnosis.findings]}


def _compare(workdirs: Sequence[str], page: Path) -> dict[str, Any]:
    twice = [name for i, name in enumerate(workdirs) if _same(name, workdirs[:i])]
    if twice:
        raise UserError(f"sft report: {twice[0]} is given twice. Name each run once.")
    comparison = compare.compare([load_run(workdir) for workdir in workdirs])
    table = page.with_suffix(".md")
    text = terminal.markdown(comparison)
    drawn = figures.of_comparison(comparison)
    html_text = html.render_comparison(comparison, drawn, figures.folder(page))
    more = html.render_answers(answers.of_comparison(comparison), f"../{page.name}")
    written = _write({page: html_text, table: text}, drawn, more)
    print(text)
    print(written)
    if comparison.refused:
        raise UserError(
            f"{'; '.join(comparison.refused)}. These scores are not compared; evaluate the runs "
            "with the same config.data.test and prompts."
        )
    if todo := onward.lines(onward.of_comparison(comparison)):
        print(todo)
    best = {found.name: found.best for found in comparison.tables}
    return {"report": str(page), "markdown": str(table), "best": best}


def _sweep(workdir: str, out: str) -> dict[str, Any]:
    found = sweep.load(workdir)
    page = named(out) if out else found.path / "sweep.html"
    text = "\n\n".join(map(_sheet, found.sheets)) + "\n"
    drawn = figures.of_sweep(found)
    files = {
        page: html.render_sweep(found, drawn, figures.folder(page)),
        page.with_suffix(".md"): text,
        page.with_suffix(".csv"): tables.comma_separated(found.sheets),
        page.with_suffix(".tex"): "\n".join(map(tables.latex, found.sheets)),
    }
    written = _write(files, drawn)
    print(text)
    for said in found.ignored:
        print(said)
    for name, why in found.stopped.items():
        print(f"{name} was stopped: {why}.")
    if found.unfinished:
        print(f"Not scored yet: {', '.join(found.unfinished)}.")
    print(written)
    if todo := onward.lines(onward.of_sweep(found)):
        print(todo)
    best = {
        sheet.name: {m: sweep.settings_text(sheet.rows[i]) for m, i in sheet.best.items()}
        for sheet in found.sheets
    }
    return {
        "report": str(page),
        "best": best,
        "unfinished": found.unfinished,
        "stopped": found.stopped,
        "ignored": found.ignored,
    }


def _write(files: dict[Path, str], drawn: Figures, more: Mapping[str, str] = _NOTHING) -> str:
    """Writes a page, the tables beside it, and the folder with the files of its figures.

    Args:
      more: other files in the folder, by their names.

    Returns:
      What was written.
    """
    for path, content in files.items():
        write_text(path, content)
    page = next(iter(files))
    beside = figures.write(drawn, page)
    for name, content in more.items():
        beside = page.with_name(figures.folder(page))
        write_text(beside / name, content)
    what = "all answers, and the figures" if more else "the figures"
    named = f"; {what} as SVG and CSV: {beside}" if beside else ""
    return f"wrote {', '.join(map(str, files))}{named}"


def _sheet(sheet: sweep.Sheet) -> str:
    """A table, and what is to be known of it."""
    return "\n\n".join([tables.markdown(sheet), *sheet.notes])


def _same(name: str, others: Sequence[str]) -> bool:
    return Path(name).resolve() in [Path(other).resolve() for other in others]
