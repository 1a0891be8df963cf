"""Puts the results of ablations into ``configs/ablations/``: tables, a plot, README.md.

    scripts/ablations.sh adapter_size        # any of them
    python scripts/ablation_results.py

What has been run here replaces what is there of the same ablation: ``results/NAME.csv``, the whole
table of ``sft report``, and ``results/NAME.json``, how long and with what. README.md is made of
these and of what the files of the ablations say. ``--check`` writes nothing, and fails where it
would.
"""

import argparse
import ast
import csv
import dataclasses
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from sft.run import display

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "configs" / "ablations"
RESULTS = FOLDER / "results"
SHOWN = ("exact_match", "loss")
HEAD = """\
# Ablations

Made by `scripts/ablation_results.py` from the files here and from `results/`.
`scripts/ablations.sh` runs them all, `scripts/ablations.sh adapter_size` one, and
`scripts/ablations.sh --check adapter_size` runs it apart and holds the scores against those here.
Each begins with what it claims, where the claim is from, its command, and what was found.

The real Gemma 3 270M in bfloat16 on two CPU cores, two runs at a time; what they have in common is
in [`base.py`](base.py): 200 dates in 53 languages, read once, 20 steps. 80 others are the set
`test`. So these are small experiments, and say little of larger ones. Intervals are of 95 %: of a
single run over the test set, of several seeds over the seeds. A change is from the first row, by a
paired test over seeds, or, with one seed, over prompts, which says nothing of another seed. The
minutes are of the clock, some with other work on the machine. All numbers, with fingerprints and
the command of every row, are in `results/*.csv`.

![Exact match of every row, with its interval](results/plot.svg)
"""


@dataclasses.dataclass(frozen=True)
class Ablation:
    """One that has been run: the lines of its CSV, and when and with what."""

    name: str
    lines: list[dict[str, str]]
    about: dict

    @property
    def knobs(self) -> list[str]:
        keys = list(self.lines[0])
        return keys[keys.index("set") + 1 : keys.index("seeds")]

    def rows(self, name: str) -> list[dict[str, dict[str, str]]]:
        """Of a set: a row for each configuration, of lines by metric."""
        found: dict[tuple, dict[str, dict[str, str]]] = {}
        for line in self.lines:
            if line["set"] == name:
                found.setdefault(tuple(line[k] for k in self.knobs), {})[line["metric"]] = line
        return list(found.values())

    @property
    def sets(self) -> list[str]:
        return list(dict.fromkeys(line["set"] for line in self.lines))

    def label(self, row: dict[str, dict[str, str]]) -> str:
        line = next(iter(row.values()))
        return ", ".join(f"{key.rpartition('.')[2]} {_short(line[key])}" for key in self.knobs)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "ablations")
    parser.add_argument(
        "--check", action="store_true", help="fail where README.md is not up to date"
    )
    args = parser.parse_args(argv)
    if not args.check:
        for folder in sorted(path.parent for path in args.runs.glob("*/sweep.csv")):
            take(folder, args.runs / "seconds")
    found = {path.stem: read(path) for path in sorted(RESULTS.glob("*.csv"))}
    text = readme(found)
    if args.check:
        return int((FOLDER / "README.md").read_text() != text)
    (RESULTS / "plot.svg").write_text(plot(list(found.values())))
    (FOLDER / "README.md").write_text(text)
    print(f"{FOLDER}: {len(found)} ablations")
    return 0


def take(folder: Path, seconds: Path) -> None:
    """Copies the table of a sweep, and says when and with what it was made."""
    RESULTS.mkdir(exist_ok=True)
    shutil.copy(folder / "sweep.csv", RESULTS / f"{folder.name}.csv")
    environment = json.loads(next(folder.glob("*/environment.json")).read_text())
    took = [line.split(": ") for line in seconds.read_text().splitlines()]  # a line a call
    whole = sum(float(time.split()[0]) for name, time in took if name == folder.name)
    about = {
        "minutes": round(whole / 60),
        "runs": len(list(folder.glob("*/SCORED"))),
        "revision": environment["git"]["revision"][:7],
        "jax": environment["versions"]["jax"],
        "processor": environment.get("processor", ""),
    }
    (RESULTS / f"{folder.name}.json").write_text(json.dumps(about, indent=1) + "\n")


def read(path: Path) -> Ablation:
    with path.open() as file:
        lines = list(csv.DictReader(file))
    return Ablation(path.stem, lines, json.loads(path.with_suffix(".json").read_text()))


def readme(found: dict[str, Ablation]) -> str:
    """The page: every ablation with its result, those without at the end."""
    parts, missing = [HEAD], []
    for path in sorted(FOLDER.glob("*.py")):
        if path.stem == "base":
            continue
        title, *said = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")
        if path.stem not in found:
            missing.append(f"- [`{path.stem}`]({path.name}): {title}")
            continue
        ablation = found[path.stem]
        about = ablation.about
        parts.append(f"## [`{path.stem}`]({path.name})\n\n**{title}**\n")
        parts += [f"{text}\n" for text in said if not text.startswith("    ")]
        parts.append(table(ablation))
        size = f"{about['runs']} runs, {about['minutes']} minutes"
        made = f"at {about['revision']} with jax {about['jax']}"
        made += f" on {about['processor']}" if about.get("processor") else ""
        parts.append(f"`scripts/ablations.sh {path.stem}`: {size}, {made}.\n")
    if missing:
        parts.append("## Not run yet\n\n" + "\n".join(missing) + "\n")
    return "\n".join(parts)


def table(ablation: Ablation) -> str:
    """Markdown: a line for each configuration and set."""
    several = len(ablation.sets) > 1
    heads = [*["set"] * several, *ablation.knobs, "seeds"]
    heads += [head for metric in SHOWN for head in (display.name(metric), "change")]
    out = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name in ablation.sets:
        for row in ablation.rows(name):
            line = next(iter(row.values()))
            cells = [*[name] * several, *(f"`{_short(line[k])}`" for k in ablation.knobs)]
            cells.append(line["seeds"].replace(" ", ", "))
            cells += [cell for metric in SHOWN for cell in _cells(row.get(metric))]
            out.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(out) + "\n"


def _cells(line: dict[str, str] | None) -> tuple[str, str]:
    """Value with interval, bold if best, and the change from the first row."""
    if line is None:
        return "", ""
    metric = line["metric"]
    text = display.score(float(line["mean"]), metric)
    if line["best"] == "1":
        text = f"**{text}**"
    if line["low"]:
        text += f" [{display.interval(float(line['low']), float(line['high']), metric)}]"
    if not line["change"]:
        return text, ""
    change = f"{display.change(float(line['change']), metric)}, {display.p_value(float(line['p']))}"
    return text, change + (" (prompts)" if line["tested_over"] == "prompts" else "")


def _short(value: str) -> str:
    return Path(value).stem if value.endswith(".jsonl") else value


def plot(ablations: list[Ablation], metric: str = "exact_match") -> str:
    """SVG: a panel for each ablation, a line with its interval for each row, on its first set."""
    import matplotlib
    from matplotlib.figure import Figure

    shown = [(a, rows) for a in ablations if (rows := a.rows(a.sets[0]))]
    style: Any = {"svg.hashsalt": "sft", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(style):
        heights = [len(rows) + 1.2 for _, rows in shown]
        figure = Figure(figsize=(8, 0.27 * sum(heights)), layout="constrained")
        figure.set_facecolor("white")
        panels = figure.subplots(len(shown), 1, sharex=True, height_ratios=heights, squeeze=False)
        for axes, (ablation, rows) in zip(panels[:, 0], shown, strict=True):
            for i, row in enumerate(rows):
                line = row[metric]
                axes.plot(float(line["mean"]), i, "o", color="#1a5fb4", markersize=5)
                if line["low"]:
                    axes.plot([float(line["low"]), float(line["high"])], [i, i], color="#1a5fb4")
            axes.set_yticks(range(len(rows)), [ablation.label(row) for row in rows])
            axes.set_ylim(len(rows) - 0.4, -0.6)
            axes.set_title(ablation.name, loc="left", fontsize=10, fontweight="bold")
            axes.grid(axis="x", alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        panels[-1, 0].set(xlabel=f"{metric.replace('_', ' ')} on the test set", xlim=(0, 1))
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


if __name__ == "__main__":
    sys.exit(main())
