"""What every program of the comparison shares: the examples, the batches, the clock, the protocol.

Needs numpy only, so that it runs in each peer's own environment. A program is

    python peers/peft_stock.py --exchange DIR --warmup 2 --steps 4     # prints one JSON line
    python peers/peft_stock.py --exchange DIR --warmup 2 --serve       # as train_step.py runs it

With ``--serve`` it prints one JSON line after the warm-up, then reads ``go K`` lines, and answers
each with the JSON line of a block of K optimiser steps; it sleeps in between and ends when its
standard input does.
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

RANK = 8
ALPHA = 8
LEARNING_RATE = 2e-4
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclasses.dataclass(frozen=True)
class Example:
    """``tokens`` int32 ``[L]``; ``is_target`` bool ``[L]``, true where that token is trained."""

    tokens: np.ndarray
    is_target: np.ndarray


def arguments(name: str) -> argparse.Namespace:
    """The command line of a program, after confining the process to ``--threads`` cores."""
    parser = argparse.ArgumentParser(description=f"{name}: LoRA steps on the exchanged examples")
    parser.add_argument("--exchange", type=Path, required=True, help="examples.npz, config, hf/")
    parser.add_argument("--examples-per-step", type=int, default=16)
    parser.add_argument("--warmup", type=int, default=2, help="untimed steps; compilation included")
    parser.add_argument("--steps", type=int, default=2, help="timed steps, without --serve")
    parser.add_argument("--threads", type=int, default=2, help="CPU cores to use")
    parser.add_argument("--serve", action="store_true", help="one block per line read: go STEPS")
    parser.add_argument("--variant", default="", help="of the programs that have several")
    args = parser.parse_args()
    args.name = name
    # The libraries differ in which of their thread settings they honour; all honour affinity.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    return args


def read_examples(exchange: Path) -> list[Example]:
    """The examples in the order in which every program trains on them."""
    data = np.load(exchange / "examples.npz")
    cuts = data["offsets"]
    return [
        Example(data["tokens"][a:b], data["is_target"][a:b]) for a, b in itertools.pairwise(cuts)
    ]


def cut(examples: list[Example], per_step: int) -> list[list[Example]]:
    """Lists of ``per_step`` consecutive examples; a short last one is left out."""
    whole = len(examples) // per_step
    if not whole:
        raise SystemExit(f"{len(examples)} examples are fewer than --examples-per-step {per_step}")
    return [examples[i * per_step : (i + 1) * per_step] for i in range(whole)]


def group_by_length(steps: list[list[Example]], seed: int = 0) -> list[list[Example]]:
    """The same examples with those of like length in one step, for programs that pad.

    As the Trainer's ``group_by_length``: sorted within stretches of 50 steps. The steps of a
    stretch are then shuffled, so that a short measurement does not see only the longest. The first
    step is left as it is: every program's first loss is on the same examples.
    """
    random, grouped = np.random.default_rng(seed), steps[:1]
    for start in range(1, len(steps), 50):
        stretch = [e for step in steps[start : start + 50] for e in step]
        by_length = cut(sorted(stretch, key=lambda e: len(e.tokens)), len(steps[0]))
        grouped += [by_length[i] for i in random.permutation(len(by_length))]
    return grouped


def pad(examples: list[Example], length: int | None = None) -> dict[str, np.ndarray]:
    """Rows padded on the right to ``length``, or to the longest example.

    Returns:
      int32 ``tokens_BxL``, bool ``is_target_BxL`` and ``is_token_BxL``.
    """
    length = length or max(len(e.tokens) for e in examples)
    shape = (len(examples), length)
    tokens, is_target = np.zeros(shape, np.int32), np.zeros(shape, bool)
    is_token = np.zeros(shape, bool)
    for row, e in enumerate(examples):
        tokens[row, : len(e.tokens)] = e.tokens
        is_target[row, : len(e.tokens)] = e.is_target
        is_token[row, : len(e.tokens)] = True
    return {"tokens_BxL": tokens, "is_target_BxL": is_target, "is_token_BxL": is_token}


def peak_rss_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Blocks:
    """Times the steps, and stops between blocks until told to go on.

    Call ``begin()`` before an optimiser step and ``end(examples, loss)`` when its result is there;
    ``end`` returns False after the last step. ``loss`` is the mean negative log-likelihood of a
    target token before the update, in nats.
    """

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.reply = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever a library prints must not end up among the replies
        self.left, self.phase = args.warmup, "warmup"
        self.rows: list[dict] = []

    def begin(self) -> None:
        if self.left == 0 and self.phase == "wait":
            line = sys.stdin.readline().split()
            if not line:  # the driver is gone or done
                os._exit(0)
            self.left, self.phase = int(line[1]), "block"
        if not self.rows:
            self.cpu_started = time.process_time()
        self.started = time.perf_counter()

    def end(self, examples: list[Example], loss: float) -> bool:
        self.rows.append(
            {
                "seconds": time.perf_counter() - self.started,
                "trained_tokens": int(sum(e.is_target.sum() for e in examples)),
                "tokens": sum(len(e.tokens) for e in examples),
                "loss": float(loss),
            }
        )
        self.left -= 1
        if self.left:
            return True
        if self.phase == "warmup" and not self.args.serve:
            self.left, self.phase, self.rows = self.args.steps, "block", []
            return True
        self._print()
        self.phase, self.rows = "wait", []
        return self.args.serve

    def _print(self) -> None:
        columns = {key: [row[key] for row in self.rows] for key in self.rows[0]}
        head = {"name": self.args.name, "phase": self.phase}
        used = {
            "cpu_seconds": time.process_time() - self.cpu_started,
            "peak_rss_bytes": peak_rss_bytes(),
        }
        line = json.dumps(head | columns | used)
        print(line, file=self.reply, flush=True)


def run(
    args: argparse.Namespace, steps: list[list[Example]], step: Callable[[list[Example]], float]
) -> None:
    """Runs ``step`` on the steps' examples, over and over. ``step`` returns its loss."""
    blocks = Blocks(args)
    for examples in itertools.cycle(steps):
        blocks.begin()
        if not blocks.end(examples, step(examples)):
            return
