"""What every program of generate.py shares: prompts, counting, clock, protocol. Needs numpy only.

A program is started with ``--exchange DIR --threads N --variant WORDS``. It answers all prompts
once, compilation included, and prints one JSON line with the answers. Then it reads ``go K`` lines,
and answers each with the JSON line of K passes over all prompts; it sleeps in between.
"""

import argparse
import dataclasses
import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Answers = list[list[int]]


@dataclasses.dataclass(frozen=True)
class Task:
    """Prompts and when an answer ends.

    Attributes:
      prompts: int32 ids of each, ``<bos>`` first.
      new_tokens: cap on an answer.
      stop_ids: an answer ends with the first of these; empty = all answers have ``new_tokens``.
      words: of the variant, as in ``float32:64``.
    """

    exchange: Path
    prompts: list[np.ndarray]
    new_tokens: int
    stop_ids: list[int]
    words: list[str]
    threads: int


def task() -> Task:
    """From the command line, after confining the process to ``--threads`` cores."""
    parser = argparse.ArgumentParser(description="answers all prompts, when told to")
    parser.add_argument("--exchange", type=Path, required=True, help="prompts.npz and hf/")
    parser.add_argument("--threads", type=int, default=2, help="CPU cores to use")
    parser.add_argument("--variant", default="")
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    data = np.load(args.exchange / "prompts.npz")
    prompts = [data["tokens"][a:b] for a, b in itertools.pairwise(data["offsets"])]
    cap, stops = int(data["new_tokens"]), data["stop_ids"].tolist()
    return Task(args.exchange, prompts, cap, stops, args.variant.split(":"), args.threads)


def sorted_batches(task: Task, rows: int) -> list[list[int]]:
    """Indices of prompts of like length, ``rows`` at a time."""
    order = sorted(range(len(task.prompts)), key=lambda i: len(task.prompts[i]))
    return [order[start : start + rows] for start in range(0, len(order), rows)]


def end(task: Task, ids: list[int]) -> list[int]:
    """What belongs to the answer: up to its stop token, which is counted too."""
    stop = next((i for i, token in enumerate(ids) if token in task.stop_ids), len(ids) - 1)
    return ids[: min(stop + 1, task.new_tokens)]


def serve(task: Task, answer: Callable[[], Answers]) -> None:
    """``answer`` answers all prompts, in order; stop tokens included where there are any."""
    reply = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not end up among the replies
    begun = time.perf_counter()
    answers = answer()
    warm = {"answers": answers, "seconds": time.perf_counter() - begun}
    print(json.dumps(warm), file=reply, flush=True)
    for line in sys.stdin:
        rows, cpu = [], time.process_time()
        for _ in range(int(line.split()[1])):
            begun = time.perf_counter()
            count = sum(map(len, answer()))
            rows.append((time.perf_counter() - begun, count))
        seconds, counts = zip(*rows, strict=True)
        block = {
            "seconds": seconds,
            "new_tokens": counts,
            "cpu_seconds": time.process_time() - cpu,
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        print(json.dumps(block), file=reply, flush=True)
