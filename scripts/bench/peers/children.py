"""Child processes that train in turns; see ``common.py`` for what is said over their pipes."""

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from sft.errors import UserError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
QUIET = 0.1  # cores that other processes may use; OpenMP's busy waiting suffers most from more
TORCH, TUNIX = ROOT / ".venv-peers-torch", ROOT / ".venv-peers-tunix"

Entry = tuple[Path | None, str, str]  # environment (None: this one), program, variant
PROGRAMS: dict[str, Entry] = {
    "ours": (None, "ours.py", ""),
    "peft_stock": (TORCH, "peft_stock.py", ""),
    "peft_target_only": (TORCH, "peft_target_only.py", ""),
    "trl": (TORCH, "trl_sft.py", ""),
    "trl_no_checkpointing": (TORCH, "trl_sft.py", "no_checkpointing"),
    "tunix_none": (TUNIX, "tunix_lora.py", "none"),
    "tunix_block": (TUNIX, "tunix_lora.py", "block"),
    "tunix_decoder": (TUNIX, "tunix_lora.py", "decoder"),
    "gemma": (None, "gemma_lora.py", ""),
}


def busy_seconds() -> float:
    """Core-seconds that the whole machine has worked since it started."""
    user, nice, system = Path("/proc/stat").read_text().split()[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A program that cannot run, with its own last words."""


@dataclasses.dataclass
class Program:
    """A child process that trains a block of steps when told to."""

    name: str
    process: subprocess.Popen
    log: Path
    warm: dict = dataclasses.field(default_factory=dict)
    blocks: list[dict] = dataclasses.field(default_factory=list)

    @classmethod
    def start(cls, name: str, program: Entry, options: dict, log: Path) -> "Program":
        """Starts an entry of ``PROGRAMS`` with ``options``, and waits until it is warm."""
        environment, script, variant = program
        python = environment / "bin" / "python" if environment else Path(sys.executable)
        if not python.exists():
            raise Failed(f"no {environment.name}: run scripts/bench/peers/setup.sh")
        command = [python, HERE / script, "--variant", variant]
        for key, value in options.items():
            command += [f"--{key.replace('_', '-')}", *([] if value is True else [str(value)])]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        )
        program = cls(name, process, log)
        program.warm = program.reply()
        return program

    def reply(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            if code < 0:
                raise Failed(f"killed by signal {-code}; 9 may mean out of memory (--resident)")
            words = self.log.read_text().strip().splitlines() or ["no message"]
            error = next((w for w in reversed(words) if "Error" in w), words[-1])
            raise Failed(f"exit {code}: {error.strip()[:300]}")
        return json.loads(line)

    def block(self, steps: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # reply() says why
            self.process.stdin.write(f"go {steps}\n")
            self.process.stdin.flush()
        began, busy = time.perf_counter(), busy_seconds()
        reply = self.reply()
        others = busy_seconds() - busy - reply["cpu_seconds"]
        reply["foreign_cores"] = max(0.0, others / (time.perf_counter() - began))
        self.blocks.append(reply)

    def rate(self, key: str = "trained_tokens") -> list[float]:
        """Tokens per second of each block."""
        return [sum(b[key]) / sum(b["seconds"]) for b in self.blocks]

    def stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def start_all(
    entries: dict[str, Entry], options: dict, logs: Path, failed: dict[str, str]
) -> dict[str, Program]:
    """Starts one program after the other, each with ``options``; a failure is kept by name."""
    programs = {}
    for name, entry in entries.items():
        note(f"{name}: starting")
        began = time.perf_counter()
        try:
            programs[name] = Program.start(name, entry, options, logs / f"{name}.log")
        except Failed as error:
            failed[name] = str(error)
            note(f"{name}: {error}")
            continue
        note(f"{name}: warm after {time.perf_counter() - began:.0f} s")
    return programs


def measure(
    programs: dict[str, Program],
    failed: dict[str, str],
    rounds: int,
    block: int,
    key: str = "trained_tokens",
) -> None:
    """Rounds of one block each; a program that fails on the way leaves the comparison.

    Args:
      block: steps, or passes.
      key: what of the replies is counted.
    """
    for round_ in range(rounds):
        for name in list(programs):
            try:
                programs[name].block(block)
            except Failed as error:
                failed[name] = str(error)
                programs.pop(name).stop()
                note(f"{name}: {error}")
                continue
            rate, others = programs[name].rate(key)[-1], programs[name].blocks[-1]["foreign_cores"]
            note(
                f"round {round_ + 1} {name}: {rate:.1f} {key.replace('_', ' ')}/s"
                f" (other processes: {others:.2f} cores)"
            )


def last_lines(detail: dict) -> list[str]:
    """Under the table of a result: what could not run, and whether the numbers can be quoted."""
    lines = [f"{name}: could not run: {error}" for name, error in detail["failed"].items()]
    others = max(max(program["foreign_cores"]) for program in detail["programs"].values())
    if others > QUIET:
        lines.append(
            f"WARNING: other processes used up to {others:.2f} cores during a block. Contention "
            "slows the programs unequally: do not quote these numbers."
        )
    return lines


def add_peers(parser: argparse.ArgumentParser, known: Iterable[str]) -> None:
    """``--peers A,B``, by default all but ours; gives a list.

    Raises:
      UserError: when parsed, a name that is none.
    """
    peers = [name for name in known if name != "ours"]

    def names(text: str) -> list[str]:
        found = [name for name in text.split(",") if name]
        unknown = [name for name in found if name not in peers]
        if unknown:
            raise UserError(f"--peers: no peer {unknown[0]!r}; known: {', '.join(peers)}.")
        return found

    parser.add_argument("--peers", type=names, default=peers, help="names joined by commas")


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
