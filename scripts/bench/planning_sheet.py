"""A table of what fits where: every model, slice and length, compiled ahead of time for TPUs.

    source scripts/env.sh plan
    python scripts/bench/planning_sheet.py                      # what is missing: a minute a cell
    python scripts/bench/planning_sheet.py --models gemma3_1b --slices v5e-8,v6e-8 --lengths 2048

Adds a line to ``planning.jsonl`` for each cell as it is done, and puts the table into README.md.
Started again it goes on where it stopped; what is to be measured again is deleted there. One row a
device, weights shared by all devices, rank 16, ``model.remat = "layer"``; each cell is compiled in
a process of its own. Not compiled: what is longer than the model's published context, and what a
shorter length already rules out.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import plan  # noqa: E402

from sft.errors import UserError  # noqa: E402
from sft.mesh import slices as topology  # noqa: E402
from sft.model import specs  # noqa: E402

SLICES = ("v5e-1", "v5e-8", "v6e-1", "v6e-8", "v5p-8", "tpu7x-8")
LENGTHS = (2048, 8192, 32768)
CELLS = Path(__file__).with_name("planning.jsonl")
README = ROOT / "README.md"
START, END = "<!-- planning sheet -->", "<!-- end of the planning sheet -->"

Cell = tuple[str, str, int]  # model, slice, length


def compile_cell(cell: Cell) -> dict[str, Any]:
    """Compiles one cell in this process: ``{"fits", "total", "limit", "temporaries"}`` in GiB."""
    from sft.plan import compile as compiling

    compiling.prepare()
    model, name, length = cell
    slice_ = topology.get(name)
    config = plan.configured(model, slice_.devices, length, slice_.devices)
    limit = slice_.generation.hbm_bytes
    try:
        memory = compiling.compile_step(config, specs.get(model), slice_).memory
        found = {"fits": True, "total": memory.total, "temporaries": memory.temporaries}
    except compiling.NoFit as no:
        found = {"fits": False, "total": no.needed, "at_least": not no.reason}
    except UserError as error:
        return {"error": str(error)}
    sizes = ("total", "temporaries")
    gib = {k: v / topology.GIB if k in sizes and v else v for k, v in found.items()}
    versions = {library: importlib.metadata.version(library) for library in ("jax", "libtpu")}
    return gib | {"limit": limit / topology.GIB} | versions


def done(path: Path) -> dict[Cell, dict[str, Any]]:
    """The cells of ``planning.jsonl``; a last line that was cut off is no cell."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[(row["model"], row["slice"], row["length"])] = row["found"]
    return found


def sheet(cells: dict[Cell, dict[str, Any]]) -> str:
    """Markdown: a line for each model and length, a column for each slice."""
    slices = [name for name in SLICES if any(name == other for _, other, _ in cells)]
    limits = [f"{topology.get(name).generation.hbm_bytes / topology.GIB:.2f}" for name in slices]
    lines = [
        "| model | length | " + " | ".join(slices) + " |",
        "|" + "---|" * (len(slices) + 2),
        "| *what there is* | | " + " | ".join(limits) + " |",
    ]
    rows = {(model, length) for model, _, length in cells}
    for model, length in sorted(rows, key=lambda row: (list(specs.SPECS).index(row[0]), row[1])):
        row = [_shown(cells.get((model, name, length))) for name in slices]
        lines.append(f"| {model} | {length:,} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def _shown(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    if "ruled_out_by" in found:
        return "no"
    if found.get("total") is None:
        return "—"
    sign = ">" if found.get("at_least") else ""
    text = f"{sign}{found['total']:.1f}"
    return f"**{text}**" if found["fits"] else text


def put(text: str, path: Path) -> None:
    """Replaces what stands between the two marks in ``path``."""
    before, _, rest = path.read_text().partition(START)
    _, mark, after = rest.partition(END)
    if not mark:
        raise UserError(f"{path}: expected the marks {START} and {END}.")
    path.write_text(f"{before}{START}\n{text}\n{END}{after}")


def _in_a_process(cell: Cell) -> dict[str, Any]:
    words = [sys.executable, __file__, "--cell", json.dumps(cell)]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        raise UserError(f"planning_sheet: {cell}: {run.stderr.strip().splitlines()[-1]}")
    return json.loads(run.stdout.splitlines()[-1])


def wanted(models: list[str], slices: list[str], lengths: list[int]) -> list[Cell]:
    """A slice after the other, and shorter before longer, which may rule it out."""
    return [
        (model, name, length)
        for name in slices
        for model in models
        for length in sorted(lengths)
        if length <= specs.get(model).positions
    ]


def fill(path: Path, cells: list[Cell], compile_one=_in_a_process) -> dict[Cell, dict[str, Any]]:
    """Compiles the cells that are not in ``path`` yet, writing each down at once."""
    known = done(path)
    if path.exists() and not path.read_text().endswith("\n"):  # cut off: the next one begins anew
        with path.open("a") as file:
            file.write("\n")
    for i, cell in enumerate(cells):
        if cell in known:
            continue
        model, name, length = cell
        print(f"{i + 1} of {len(cells)}: {model} {name} {length}", file=sys.stderr)
        no = [
            n
            for (*other, n), found in known.items()
            if other == [model, name] and n < length and found.get("fits") is False
        ]
        known[cell] = {"fits": False, "ruled_out_by": min(no)} if no else compile_one(cell)
        row = {"model": model, "slice": name, "length": length, "found": known[cell]}
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return known


def numbers(text: str) -> list[int]:
    """Joined by commas."""
    return [int(n) for n in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(specs.SPECS), help="names joined by commas")
    parser.add_argument("--slices", default=",".join(SLICES), help="names joined by commas")
    lengths = ",".join(map(str, LENGTHS))
    parser.add_argument("--lengths", default=lengths, type=numbers, help="positions a row")
    parser.add_argument("--cell", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        if args.cell:
            model, name, length = json.loads(args.cell)
            print(json.dumps(compile_cell((model, name, length))))
            return 0
        models = [specs.get(name).name for name in args.models.split(",")]
        slices = [topology.get(name).name for name in args.slices.split(",")]
        os.nice(10)
        fill(CELLS, wanted(models, slices, args.lengths))
        put(sheet(done(CELLS)), README)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(sheet(done(CELLS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
