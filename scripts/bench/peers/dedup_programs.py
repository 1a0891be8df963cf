"""The programs that dedup.py measures, each in a fresh process, and how one is called."""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent.parent), str(HERE)]

import dedup_reference  # noqa: E402
from children import busy_seconds  # noqa: E402

from sft.data.dedup import engines, windows  # noqa: E402
from sft.data.dedup.stretches import flagged, runs  # noqa: E402
from sft.errors import BAD_INPUT, UserError  # noqa: E402

OURS = ("suffix_array", "hash")
PEERS = ("pydivsufsort", "pydivsufsort_text")
ON_TEXT, REFERENCE = "suffix_array_text", "reference"  # the same task, run with --reference only

# What the hash engine may hold beside its memory. A member of the batch it has given out: 16 bytes
# there and 48 in ``digest``; in a class larger than a block, also 8 in its pass and 56 at work.
MEMBER_BYTES, LARGE_MEMBER_BYTES, BLOCK = 64, 64, 131_072
OTHER_BYTES = 2**22  # of the interpreter and its libraries: code first run and pages first touched


def names(reference: Path | None) -> tuple[str, ...]:
    """The programs, in the order in which a round runs them."""
    return (*OURS, *PEERS, *((ON_TEXT, REFERENCE) if reference else ()))


def call(name: str, args: argparse.Namespace, work: Path) -> dict:
    """``measure`` in a fresh process, and ``foreign_cores``: what others used meanwhile.

    Raises:
      UserError: the program cannot run; with its last words.
    """
    command = [sys.executable, __file__, "--program", name, "--corpus", str(work)]
    command += ["--length", str(args.length), "--text-length", str(args.text_length)]
    command += ["--memory", str(args.memory)]
    if args.reference:
        command += ["--reference", str(args.reference)]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    began, busy = time.perf_counter(), busy_seconds()
    one = {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | one)
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["no message"]
        code = "" if done.returncode == BAD_INPUT else f"exit {done.returncode}: "
        raise UserError(f"dedup: {name}: {code}{words[-1][:400]}")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    others = (busy_seconds() - busy - cpu) / (time.perf_counter() - began)
    return json.loads(done.stdout) | {"foreign_cores": max(0.0, others)}


def measure(args: argparse.Namespace) -> dict:
    """Runs one program: ``seconds``, ``peak_bytes`` over the input, and what it ``found``."""
    name = args.program
    if name == REFERENCE:  # has its own process, and its input in the peak
        return dedup_reference.run(args.reference, args.corpus / "text", args.text_length)
    tables(np.zeros(4, np.uint8))  # imports
    if name.endswith("_text"):
        text = np.fromfile(args.corpus / "text", np.uint8)
        before = resident("VmRSS")
        found = spans(text, args.text_length) if name == ON_TEXT else spent(lambda: tables(text))
        return found | {"peak_bytes": resident("VmHWM") - before}
    corpus = windows.Corpus(*(np.load(args.corpus / f"{p}.npy") for p in ("tokens", "starts")))
    before, memory = resident("VmRSS"), int(args.memory * len(corpus.tokens))
    if name in OURS:
        found = digest(engines.classes(corpus, args.length, name, memory))
    else:
        found = spent(lambda: tables(corpus.tokens))
    peak = resident("VmHWM") - before
    if name == "hash":
        allowed = memory + beside(found["largest_batch"])
        found["memory"] = {"configured": memory, "allowed": allowed, "peak": peak}
    return found | {"peak_bytes": peak}


def beside(members: int) -> int:
    """Bytes that the hash engine may hold beside its memory, by members of its largest batch."""
    large = max(0, members - BLOCK)
    return MEMBER_BYTES * members + LARGE_MEMBER_BYTES * large + OTHER_BYTES


def resident(key: str) -> int:
    """Bytes of this process in memory: ``VmRSS`` now, ``VmHWM`` at the most so far.

    Not ``ru_maxrss``, which begins with that of the process that started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(key + ":"))
    return int(line.split()[1]) * 1024


def tables(given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Suffix array and common prefixes, of bytes or of ids below 2^24 packed to three bytes."""
    from pydivsufsort import divsufsort, kasai

    if given.dtype == np.uint8:
        order = divsufsort(given)
        return order, kasai(given, order)
    packed = np.ascontiguousarray(given.astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:])
    order = divsufsort(packed.reshape(-1))
    order = order[order % 3 == 0] // 3
    return order, kasai(given, order)


def spent(work: Callable) -> dict[str, float]:
    """CPU seconds."""
    began = time.process_time()
    work()
    return {"seconds": time.process_time() - began}


def spans(text: np.ndarray, length: int) -> dict:
    """The reference's task by our suffix array: repeated windows of bytes, merged into spans.

    The text is one span, as it is for the reference. The clock and the peak include widening the
    bytes to int32, which is what a corpus has.
    """
    began = time.process_time()
    corpus = windows.Corpus(text.astype(np.int32), np.array([0, len(text)]))
    is_repeated = np.zeros(len(text), bool)
    for batch in engines.classes(corpus, length, "suffix_array"):
        is_repeated[batch.positions] = True
    first = np.flatnonzero(is_repeated)
    covered = runs(flagged(first, first + length, len(text)), corpus.starts)
    seconds = time.process_time() - began
    sizes = {"spans": len(covered.begins), "bytes": int(covered.lengths.sum())}
    return {"seconds": seconds, "found": {"windows": len(first), **sizes}}


def digest(batches: Iterator[windows.Classes]) -> dict:
    """Counts and a sum that no order or batching changes; making it is not timed."""
    seconds, classes, repeated, total, largest = 0.0, 0, 0, 0, 0
    while True:
        began = time.process_time()
        batch = next(batches, None)
        seconds += time.process_time() - began
        if batch is None:
            break
        firsts = np.repeat(batch.positions[batch.starts[:-1]], np.diff(batch.starts))
        mixed = (firsts.astype(np.uint64) << 32) ^ batch.positions.astype(np.uint64)
        mixed *= 0x9E3779B97F4A7C15
        total += int((mixed ^ (mixed >> 29)).sum())
        classes += len(batch)
        repeated += len(batch.positions)
        largest = max(largest, len(batch.positions))
    found = {"classes": classes, "windows": repeated, "digest": f"{total % 2**64:016x}"}
    return {"seconds": seconds, "found": found, "largest_batch": largest}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="one program of dedup.py")
    parser.add_argument("--program", required=True, choices=names(Path()))
    parser.add_argument("--corpus", type=Path, required=True, help="tokens.npy, starts.npy, text")
    parser.add_argument("--length", type=int, required=True, help="tokens of a window")
    parser.add_argument("--text-length", type=int, required=True, help="bytes of a window")
    parser.add_argument("--memory", type=float, required=True, help="bytes a token for the hashes")
    parser.add_argument("--reference", type=Path)
    return parser.parse_args()


def main() -> int:
    try:
        print(json.dumps(measure(arguments())))
    except UserError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
