"""Memory of a LoRA step on TPU slices, as the TPU compiler counts it: ours and other libraries'.

    source scripts/env.sh plan && scripts/bench/peers/setup.sh
    python scripts/bench/plan.py                      # six rows and the peers: an hour on two cores
    python scripts/bench/plan.py --rows 1b --peers "" # ours alone, one row

Needs no TPU: programs are compiled ahead of time and never run. Bytes do not depend on the machine;
compile seconds do. Rank 16 on every projection, each program in a process of its own.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from sft.errors import UserError  # noqa: E402
from sft.mesh import slices  # noqa: E402

GIB = slices.GIB
# Name: model, slice, rows, positions a row, devices that share the weights.
ROWS: dict[str, tuple[str, str, int, int, int]] = {
    "1b": ("gemma3_1b", "v5e-8", 8, 2048, 8),
    "4b": ("gemma3_4b", "v5e-1", 1, 2048, 1),
    "12b": ("gemma3_12b", "v5e-4", 4, 2048, 4),
    "27b": ("gemma3_27b", "v5e-8", 8, 2048, 8),
    "27b_long": ("gemma3_27b", "v6e-8", 8, 8192, 8),
    "4b_long": ("gemma3_4b", "v6e-1", 1, 32768, 1),
}
WITH_PEERS = ("1b", "4b")
# Name: environment, program, variant.
PEERS = {
    "gemma": (".venv", "plan_gemma.py", ""),
    "tunix_none": (".venv-peers-tunix", "plan_tunix.py", "none"),
    "tunix_block": (".venv-peers-tunix", "plan_tunix.py", "block"),
    "tunix_decoder": (".venv-peers-tunix", "plan_tunix.py", "decoder"),
}
COLUMNS = ("weights", "adapters", "arguments", "temporaries", "total", "limit", "code")


def one_of_ours(row: str) -> dict[str, Any]:
    """Compiles one row in this process: GiB by kind, seconds, or the refusal."""
    from sft.plan import compile as compiling

    compiling.prepare()
    from sft.model import specs

    model, name, *sizes = ROWS[row]
    config, slice_ = configured(model, *sizes), slices.get(name)
    limit = slice_.generation.hbm_bytes / GIB
    try:
        compiled = compiling.compile_step(config, specs.get(model), slice_)
    except compiling.NoFit as no:
        assert no.memory
        needed = None if no.needed is None else no.needed / GIB
        return {
            **_gib(no.memory), "total": needed, "limit": limit, "fits": False,
            "compile_seconds": no.seconds,
        }  # fmt: skip
    return {
        **_gib(compiled.memory), "total": compiled.memory.total / GIB, "limit": limit,
        "fits": True, "compile_seconds": compiled.seconds,
    }  # fmt: skip


def configured(model: str, rows: int, length: int, fsdp: int) -> Any:
    """The configuration of a row, and of a cell of the planning sheet."""
    from sft.config import default

    config = default()
    config.update_from_flattened_dict(
        {
            "model.name": model,
            "lora.rank": 16,
            "lora.alpha": 16.0,
            "train.batch_size": rows,
            "data.max_length": length,
            "mesh.fsdp": fsdp,
        }
    )
    return config


def _gib(memory) -> dict[str, float]:
    arguments = memory.parts - memory.temporaries - memory.code
    names = ("weights", "adapters", "temporaries", "code")
    return {"arguments": arguments / GIB} | {name: getattr(memory, name) / GIB for name in names}


def peer(name: str, row: str) -> dict[str, Any]:
    """Runs a peer's program; ``{"error": …}`` where it cannot."""
    environment, program, variant = PEERS[name]
    model, slice_name, rows, length, _ = ROWS[row]
    slice_ = slices.get(slice_name)
    python = ROOT / environment / "bin" / "python"
    if not python.exists():
        return {"error": f"no {environment}: run scripts/bench/peers/setup.sh"}
    words = [
        *("--model", model, "--topology", slice_.topology[0]),
        *("--host", ",".join(map(str, slice_.host)), "--rows", str(rows), "--length", str(length)),
        f"--variant={variant}",
    ]
    found = _last_line([str(python), str(HERE / "peers" / program), *words])
    if "error" in found:
        return found
    sizes = {key: found[key] / GIB for key in ("arguments", "temporaries", "code", "total")}
    return {**sizes, "compile_seconds": found["compile_seconds"]}


def _last_line(words: list[str]) -> dict[str, Any]:
    """The JSON that a program prints last."""
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode or not run.stdout.strip():
        said = run.stderr.strip().splitlines() or [""]
        return {"error": f"exit code {run.returncode}: {said[-1][:300]}"}
    return json.loads(run.stdout.splitlines()[-1])


def table(ours: dict[str, dict], peers: dict[str, dict[str, dict]]) -> str:
    """For a person: GiB on a device."""
    head = ["row", "program", *COLUMNS, "compile s"]
    lines = [head]
    for row, found in ours.items():
        lines.append([row, "ours", *_cells(found)])
        for name, theirs in peers.get(row, {}).items():
            lines.append([row, name, *_cells(theirs)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(line.rstrip() for line in text)


def _cells(found: dict) -> list[str]:
    if "error" in found:
        return [found["error"][:60], *[""] * len(COLUMNS)]
    cells = ["" if found.get(name) is None else f"{found[name]:.2f}" for name in COLUMNS]
    return [*cells, f"{found['compile_seconds']:.0f}"]


def summary(ours: dict[str, dict], peers: dict[str, dict[str, dict]]) -> dict[str, Any]:
    """The machine-readable result: temporaries of the first row that was measured."""
    first = next(iter(ours))
    theirs = {n: p["temporaries"] for n, p in peers.get(first, {}).items() if "error" not in p}
    mine = ours[first].get("temporaries")
    return {
        "bench": "plan",
        "ours": mine,
        "peers": theirs,
        "ratio": min(theirs.values()) / mine if theirs and mine else None,
        "unit": f"GiB of temporaries on a device, row {first}; less is better",
        "detail": {"rows": {name: ROWS[name] for name in ours}, "ours": ours, "peers": peers},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default=",".join(ROWS), help="names joined by commas")
    parser.add_argument("--peers", default=",".join(PEERS), help="names joined by commas")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        if args.child:
            print(json.dumps(one_of_ours(args.child)))
            return 0
        for names, known in ((args.rows, ROWS), (args.peers, PEERS)):
            unknown = [name for name in names.split(",") if name and name not in known]
            if unknown:
                raise UserError(f"plan: no {unknown[0]!r}; known: {', '.join(known)}.")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    ours, peers = {}, {}
    for row in filter(None, args.rows.split(",")):
        print(f"{row}: ours", file=sys.stderr)
        ours[row] = _last_line([sys.executable, str(HERE / "plan.py"), "--child", row])
        for name in filter(None, args.peers.split(",") if row in WITH_PEERS else []):
            print(f"{row}: {name}", file=sys.stderr)
            peers.setdefault(row, {})[name] = peer(name, row)
    print(table(ours, peers))
    print(json.dumps(summary(ours, peers)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
