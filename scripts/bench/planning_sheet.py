"""A table of what fits where: every model, slice and length, compiled ahead of time for TPUs.

    source scripts/env.sh plan
    python scripts/bench/planning_sheet.py --out runs/bench/planning                # hours
    python scripts/bench/planning_sheet.py --out runs/bench/planning --models gemma3_1b \\
      --slices v5e-8,v6e-8 --lengths 2048,8192

Writes ``cells.jsonl``, a line for each cell as it is done, and ``sheet.md``, the table. Started
again it goes on where it stopped. One row a device, weights shared by all devices, rank 16,
``model.remat = "layer"``; each cell is compiled in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from sft import topology  # noqa: E402
from sft.errors import UserError  # noqa: E402
from sft.model import specs  # noqa: E402

SLICES = ("v5e-1", "v5e-4", "v5e-8", "v5e-16", "v6e-1", "v6e-4", "v6e-8", "v5p-8", "tpu7x-8")
LENGTHS = (2048, 8192, 32768)

Cell = tuple[str, str, int]  # model, slice, length


def compile_cell(cell: Cell) -> dict[str, Any]:
    """Compiles one cell in this process: ``{"fits", "total", "limit", "temporaries"}`` in GiB."""
    from sft.config import default
    from sft.plan import compile as compiling

    compiling.prepare()
    model, name, length = cell
    slice_ = topology.get(name)
    config = default()
    changes = {
        "model.name": model,
        "lora.rank": 16,
        "lora.alpha": 16.0,
        "data.max_length": length,
        "train.batch_size": slice_.devices,
        "mesh.fsdp": slice_.devices,
    }
    config.update_from_flattened_dict(changes)
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
    return gib | {"limit": limit / topology.GIB}


def done(path: Path) -> dict[Cell, dict[str, Any]]:
    """The cells of ``cells.jsonl``; a last line that was cut off is no cell."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[(row["model"], row["slice"], row["length"])] = row["found"]
    return found


def _line(cell: Cell, found: dict[str, Any]) -> str:
    row = dict(zip(("model", "slice", "length"), cell, strict=True)) | {"found": found}
    return json.dumps(row) + "\n"


def sheet(cells: dict[Cell, dict[str, Any]]) -> str:
    """Markdown: a line for each model and length, a column for each slice."""
    slices = list(dict.fromkeys(name for _, name, _ in cells))
    lines = [
        "| model | length | " + " | ".join(slices) + " |",
        "|" + "---|" * (len(slices) + 2),
    ]
    for model, length in dict.fromkeys((model, length) for model, _, length in cells):
        row = [_shown(cells.get((model, name, length))) for name in slices]
        lines.append(f"| {model} | {length} | " + " | ".join(row) + " |")
    note = "GiB on a device, of what there is; **bold** fits. One row a device, rank 16."
    return "\n".join([*lines, "", note, ""])


def _shown(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    if found.get("total") is None:
        return "—"
    sign = ">" if found.get("at_least") else ""
    text = f"{sign}{found['total']:.1f} / {found['limit']:.1f}"
    return f"**{text}**" if found["fits"] else text


def _in_a_process(cell: Cell) -> dict[str, Any]:
    words = [sys.executable, __file__, "--cell", json.dumps(cell)]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        raise UserError(f"planning_sheet: {cell}: {run.stderr.strip().splitlines()[-1]}")
    return json.loads(run.stdout.splitlines()[-1])


def fill(out: Path, wanted: list[Cell], compile_one=_in_a_process) -> dict[Cell, dict[str, Any]]:
    """Compiles the cells that are not there yet, writing each down at once."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "cells.jsonl"
    cells = done(path)
    path.write_text("".join(_line(cell, found) for cell, found in cells.items()))
    for i, cell in enumerate(wanted):
        if cell in cells:
            continue
        print(f"{i + 1} of {len(wanted)}: {' '.join(map(str, cell))}", file=sys.stderr)
        cells[cell] = compile_one(cell)
        with path.open("a") as file:
            file.write(_line(cell, cells[cell]))
        (out / "sheet.md").write_text(sheet(cells))
    return cells


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs/bench/planning")
    parser.add_argument("--models", default=",".join(specs.SPECS), help="names joined by commas")
    parser.add_argument("--slices", default=",".join(SLICES), help="names joined by commas")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="positions a row")
    parser.add_argument("--cell", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        if args.cell:
            model, name, length = json.loads(args.cell)
            print(json.dumps(compile_cell((model, name, length))))
            return 0
        models = [specs.get(name).name for name in args.models.split(",")]
        slices = [topology.get(name).name for name in args.slices.split(",")]
        lengths = [int(n) for n in args.lengths.split(",")]
        os.nice(10)
        fill(args.out, [(m, s, n) for m in models for n in lengths for s in slices])
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print((args.out / "sheet.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
