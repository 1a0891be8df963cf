"""The programs that data.py measures, each in a fresh process, and how one is called."""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from children import HERE, ROOT, TORCH, busy_seconds

from sft.errors import UserError

TRL = [str(TORCH / "bin" / "python"), str(HERE / "trl_data.py")]
OURS = [sys.executable, str(HERE / "ours_data.py")]

# Name: side, processes, what it is given. A round has a cache of its own, which the miss fills.
PROGRAMS = {
    "ours_1": ("ours", 1, ""),
    "trl_1": ("trl", 1, ""),
    "ours_2": ("ours", 2, ""),
    "trl_2": ("trl", 2, ""),
    "ours_cache_miss": ("ours", 1, "cache"),
    "ours_cache_hit": ("ours", 1, "cache"),
    "ours_original": ("ours", 1, "original"),
}
PAIRS = {"trl_1": "ours_1", "trl_2": "ours_2"}


def command(name: str, args: argparse.Namespace, work: Path, cache: Path) -> list[str]:
    """The command line of one measurement."""
    side, processes, given = PROGRAMS[name]
    common = ["--processes", str(processes), "--max-length", str(args.max_length)]
    common += ["--batch-size", str(args.batch_size)]
    if side == "trl":
        files = ["--conversations", str(work / "rows.jsonl"), "--tokenizer", str(args.hf_tokenizer)]
        return [*TRL, *files, *common]
    rows = ["--conversations", str(args.data if given == "original" else work / "rows.jsonl")]
    extra = {"": [], "cache": ["--cache", str(cache)], "original": ["--sharegpt"]}[given]
    return [*OURS, *rows, "--tokenizer", args.gguf, *common, *extra]


def call(command: list[str]) -> dict:
    """The JSON line that a program prints, and ``foreign_cores``: what others used meanwhile.

    Raises:
      UserError: the program cannot run; with its last words.
    """
    if not Path(command[0]).exists():
        raise UserError(f"data: no {command[0]}. Run scripts/bench/peers/setup.sh.")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    began, busy = time.perf_counter(), busy_seconds()
    path = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | path)
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["no message"]
        error = next((w for w in reversed(words) if "Error" in w), words[-1])
        raise UserError(f"data: {Path(command[1]).name}: exit {done.returncode}: {error[:300]}")
    reply = json.loads(done.stdout.splitlines()[-1])
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    others = (busy_seconds() - busy - cpu) / (time.perf_counter() - began)
    return reply | {"cpu_seconds": cpu, "foreign_cores": max(0.0, others)}
