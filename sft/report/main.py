"""``sft report``: prints a run and writes its ``report.html``."""

from pathlib import Path
from typing import Any

from sft.report import html, terminal
from sft.report.load import load_run


def main(workdir: str) -> dict[str, Any]:
    """Returns ``{"report": path of the page}``.

    Raises:
      UserError: ``workdir`` is not a run directory, or a file in it is malformed.
    """
    run = load_run(workdir)
    path = html.write(run, Path(workdir) / "report.html")
    print(terminal.render(run), end="")
    print(f"wrote {path}")
    return {"report": str(path)}
