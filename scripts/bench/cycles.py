"""Where the TPU compiler expects the cycles of our step to go, by its own estimates.

    source scripts/env.sh plan
    python scripts/bench/cycles.py --row 4b         # a row of plan.py: a minute or two
    python scripts/bench/cycles.py --row 4b --top 30

The compiled program has an estimate beside every fused operation. Kernels (attention) and what
moves between devices have none, and loops over the vocabulary count once, so the sum is no step
time. Use it to compare two versions of the step, and to find what stands out: a copy of a whole
stack of weights, or an operation that takes far more than its arithmetic. Never run on a TPU.
"""

import argparse
import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE)]

import plan  # noqa: E402

from sft.errors import UserError  # noqa: E402
from sft.mesh import slices  # noqa: E402

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERATION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\(")
_ESTIMATE = re.compile(r'"estimated_cycles":"(\d+)"')
_NAME = re.compile(r'op_name="([^"]*)"')
_BODY = re.compile(r"body=%?([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Operation:
    """One fused operation of the compiled program.

    Attributes:
      cycles: the compiler's estimate for one time.
      times: that it is done in a step.
      part: ``once``, ``forward`` or ``backward``.
    """

    name: str
    shape: str
    traced: str
    cycles: int
    times: int
    part: str

    @property
    def all_cycles(self) -> int:
        return self.cycles * self.times


def operations(text: str, layers: int) -> list[Operation]:
    """Those of the program that have an estimate, and how often each is done.

    Args:
      text: the scheduled HLO of a step.
      layers: how often a loop over stacked weights goes round.
    """
    times: dict[str, tuple[int, str]] = {}
    found: dict[str, list[tuple[str, str, str, int]]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if heading := _COMPUTATION.match(line):
            current = heading[2]
            entry = current if heading[1] else entry
        if not (operation := _OPERATION.match(line)):
            continue
        name, shape, kind = operation.groups()
        traced = match[1] if (match := _NAME.search(line)) else ""
        if kind == "while" and f"[{layers}," in shape and (body := _BODY.search(line)):
            times[body[1]] = layers, "backward" if "transpose(jvp" in traced else "forward"
        if estimate := _ESTIMATE.search(line):
            found.setdefault(current, []).append((name, shape, traced, int(estimate[1])))
    times[entry] = 1, "once"
    return [
        Operation(name, shape, traced, cycles, *times.get(computation, (1, "once")))
        for computation, inside in found.items()
        for name, shape, traced, cycles in inside
    ]


def compiled_text(row: str) -> tuple[str, int]:
    """The program of a row of ``plan.ROWS``, and the number of layers."""
    from sft.plan import compile as compiling

    compiling.prepare()
    from sft.mesh import sharding
    from sft.model import specs
    from sft.train import optim
    from sft.train.steps import make_steps

    model, name, *sizes = plan.ROWS[row]
    config, spec = plan.configured(model, *sizes), specs.get(model)
    mesh = sharding.make_mesh(config, compiling.devices(slices.get(name)))
    steps = make_steps(config, spec, optim.make(config.optim, 1000), mesh)
    described = compiling.arguments(config, spec, steps)
    program = compiling.compile_on(mesh.devices.flat[0], steps.train, *described)
    return program.as_text(), spec.num_layers


def table(found: list[Operation], top: int) -> str:
    """For a person: the parts, then the operations that take most."""
    lines = ["part      million cycles"]
    for part, cycles in parts(found).items():
        lines.append(f"{part:<10}{cycles / 1e6:14.1f}")
    lines += ["", "million cycles  part      operation"]
    for one in sorted(found, key=lambda one: -one.all_cycles)[:top]:
        what = f"{one.name} {one.shape[:60]} {one.traced[-60:]}"
        lines.append(f"{one.all_cycles / 1e6:14.1f}  {one.part:<10}{what}")
    return "\n".join(lines)


def parts(found: list[Operation]) -> dict[str, int]:
    """Cycles by part, and of all."""
    sums = dict.fromkeys(("once", "forward", "backward", "all"), 0)
    for one in found:
        sums[one.part] += one.all_cycles
        sums["all"] += one.all_cycles
    return sums


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", default="4b", help=f"one of {', '.join(plan.ROWS)}")
    parser.add_argument("--top", default=12, type=int, help="operations shown")
    args = parser.parse_args()
    try:
        if args.row not in plan.ROWS:
            raise UserError(f"cycles: no {args.row!r}; known: {', '.join(plan.ROWS)}.")
        found = operations(*compiled_text(args.row))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(found, args.top))
    print(json.dumps(summary(args.row, found)))
    return 0


def summary(row: str, found: list[Operation]) -> dict[str, Any]:
    """The machine-readable result."""
    sums = parts(found)
    return {
        "bench": "cycles",
        "ours": sums["all"],
        "peers": {},
        "ratio": None,
        "unit": f"cycles of a step that the compiler has estimates for, row {row}; less is better",
        "detail": {"row": plan.ROWS[row], "parts": sums},
    }


if __name__ == "__main__":
    sys.exit(main())
