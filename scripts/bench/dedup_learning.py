"""Does deduplication make a better model? Duplicates left in, masked, cut and dropped; and a leak.

    source scripts/env.sh demo
    python scripts/bench/dedup_learning.py             # 18 runs; a second call goes on

Three dates are to be written as ISO 8601, one a line: ``scripts/quickstart_data.py``'s strings.
Of 40 rows, 6 are popular, as some rows of real sets are: each is there twice more as it is, and
four times more with its first two dates and a new third one. So 76 rows, of whose text more than a
third is repeated. The real Gemma 3 270M is tuned on them, with each of

    left in       all rows as they are
    mask          equal rows dropped; repeated stretches of 16 tokens are context
    cut           ... are taken out of the answers
    drop          ... and rows that have one are dropped: what is left is the 40 rows
    drop, longer  ... twice, which is about as many steps as ``left in`` has

and, for what a leak does to the reported number, ``leak``: the 40 rows and half of the rows of one
of two like test sets, twice. Each arm is trained with every seed, which draws the dates, their
order and the adapters anew. Arms are compared within a seed.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts"), str(HERE / "peers")]

import quickstart_data as dates  # noqa: E402
from children import note  # noqa: E402

from sft.data.read.records import Conversation, Turn, gemini_row  # noqa: E402
from sft.errors import UserError  # noqa: E402

INSTRUCTION = "Write the dates as YYYY-MM-DD, one a line."
ROWS, POPULAR, EQUAL, PARTLY, HELD = 40, 6, 2, 4, 30
REPEATS = ["--config.data.dedup.substring=16"]
ARMS = {  # file of training rows, overrides
    "left in": ("train", ["--config.data.dedup.exact=False", "--config.train.epochs=1"]),
    "mask": ("train", [*REPEATS, "--config.train.epochs=1"]),
    "cut": ("train", [*REPEATS, "--config.data.dedup.action=cut", "--config.train.epochs=1"]),
    "drop": ("train", [*REPEATS, "--config.data.dedup.action=drop", "--config.train.epochs=1"]),
    "drop, longer": (
        "train",
        [*REPEATS, "--config.data.dedup.action=drop", "--config.train.epochs=2"],
    ),
    "leak": ("leaky", ["--config.train.epochs=2"]),
}
TESTS = ("test", "leaked")  # two like sets; half of the second is in ``leaky``
ON_BOTH = ("drop, longer", "leak")  # the arms that are scored on both


def write_data(folder: Path, seed: int) -> None:
    """``train``, ``leaky``, ``validation``, ``test`` and ``leaked``, as JSONL; no two share a day
    but where they are meant to."""
    sizes = {"fresh": 3 * ROWS, "thirds": POPULAR * PARTLY} | {
        name: 3 * HELD for name in ("validation", *TESTS)
    }
    days = dates.shuffled_days(seed)
    drawn = {
        name: dates.draw(size, days, random.Random(f"{seed}/{name}"), held_out=False)
        for name, size in sizes.items()
    }
    rows = triples(drawn["fresh"])
    copies = [row for row in rows[:POPULAR] for _ in range(EQUAL)]
    thirds = iter(drawn["thirds"])
    copies += [[*row[:2], next(thirds)] for row in rows[:POPULAR] for _ in range(PARTLY)]
    held = {name: triples(drawn[name]) for name in ("validation", *TESTS)}
    sets = held | {
        # The popular rows come first and their copies after all others, which keeps the first.
        "train": rows + random.Random(seed).sample(copies, len(copies)),
        "leaky": rows + held["leaked"][: HELD // 2],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in sets.items():
        lines = [json.dumps(gemini_row(conversation(row)), ensure_ascii=False) for row in content]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def triples(drawn: Sequence[dict]) -> list[list[dict]]:
    return [list(drawn[i : i + 3]) for i in range(0, len(drawn), 3)]


def conversation(row: Sequence[dict]) -> Conversation:
    said = ("\n".join(one[key] for one in row) for key in ("text", "day"))
    asked, answer = said
    return Conversation((Turn("user", asked), Turn("model", answer)), INSTRUCTION, "")


def run_arm(arm: str, folder: Path, seed: int) -> dict[str, Any]:
    """Trains and evaluates one arm, or finds it done; its numbers by test set."""
    workdir, (file, overrides) = folder / arm.replace(", ", "_").replace(" ", "_"), ARMS[arm]
    names = TESTS if arm in ON_BOTH else TESTS[:1]
    tests = ",".join(str(folder / f"{name}.jsonl") for name in names)
    common = [
        f"--config={ROOT / 'configs/quickstart.py'}",
        f"--workdir={workdir}",
        f"--config.seed={seed}",
        f"--config.data.train={folder / file}.jsonl",
        f"--config.data.validation={folder / 'validation.jsonl'}",
        f"--config.data.test={tests}",
        "--config.train.batch_size=1",
        f"--config.eval.batch_size={HELD}",
        "--config.eval.max_new_tokens=40",
        *overrides,
    ]
    for command in ("train", "eval"):
        done = subprocess.run(
            [sys.executable, "-m", "sft", command, *common], capture_output=True, text=True
        )
        if done.returncode:
            raise UserError(f"{workdir}: sft {command}: {done.stderr.strip()[-300:]}")
    selection = json.loads((workdir / "selection.json").read_text())
    report = json.loads((workdir / "data" / "report.json").read_text())["sets"]["train"]
    metrics = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {
        "rows": report["rows"],
        "trained_tokens": report["trained_tokens"],
        "steps": max(line["step"] for line in metrics),
        "epoch": selection["epoch"],
        "validation_loss": min(m["loss"] for m in metrics if m["split"] == "validation"),
    }
    for name in names:
        result = json.loads((workdir / "eval" / f"best.{name}.json").read_text())
        found[name] = {key: result[key] for key in ("loss", "exact_match")}
        found[name]["dates"] = date_accuracy(workdir / "eval" / f"best.{name}.predictions.jsonl")
    note(f"seed {seed} {arm}: {found}")
    return found


def date_accuracy(path: Path) -> float:
    """Share of the dates, not of the rows, that are right."""
    right = total = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        wanted, given = (row[key].split("\n") for key in ("expected", "predicted"))
        total += len(wanted)
        right += sum(a == b for a, b in zip(wanted, given, strict=False))
    return right / total


def compared(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Means over seeds, and the differences from ``left in`` of the same seed."""
    measures = {
        "validation_loss": lambda run: run["validation_loss"],
        "loss": lambda run: run["test"]["loss"],
        "exact_match": lambda run: run["test"]["exact_match"],
        "dates": lambda run: run["test"]["dates"],
    }
    found: dict[str, Any] = {}
    for arm, results in runs.items():
        found[arm] = {key: results[0][key] for key in ("rows", "trained_tokens", "steps")}
        for key, measure in measures.items():
            values = [measure(run) for run in results]
            others = [measure(run) for run in runs["left in"]]
            change = [a - b for a, b in zip(values, others, strict=True)]
            found[arm][key] = {"mean": statistics.mean(values), "seeds": values}
            found[arm][key]["change"] = {"mean": statistics.mean(change), "seeds": change}
    for arm in ON_BOTH:
        gaps = [run["leaked"]["dates"] - run["test"]["dates"] for run in runs[arm]]
        losses = [run["leaked"]["loss"] - run["test"]["loss"] for run in runs[arm]]
        found[arm]["leaked_less_test"] = {"dates": gaps, "loss": losses}
    return found


def table(found: dict[str, Any]) -> str:
    lines = [
        f"{'arm':<14}{'rows':>6}{'tokens':>8}{'steps':>7}{'val. loss':>11}{'test loss':>11}"
        f"{'rows right':>12}{'dates right':>13}   dates right, less left in, by seed"
    ]
    for arm, one in found.items():
        by_seed = " ".join(f"{change:+.3f}" for change in one["dates"]["change"]["seeds"])
        lines.append(
            f"{arm:<14}{one['rows']:>6}{one['trained_tokens']:>8}{one['steps']:>7}"
            f"{one['validation_loss']['mean']:>11.4f}{one['loss']['mean']:>11.4f}"
            f"{one['exact_match']['mean']:>12.3f}{one['dates']['mean']:>13.3f}   {by_seed}"
        )
    for arm in ON_BOTH:
        gap = one_line(found[arm]["leaked_less_test"]["dates"])
        loss = one_line(found[arm]["leaked_less_test"]["loss"])
        lines.append(f"{arm}: leaked set less test set: dates right {gap}; loss {loss}")
    return "\n".join(lines)


def one_line(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):+.3f} ({', '.join(f'{value:+.3f}' for value in values)})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "dedup_learning")
    args = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    try:
        for seed in range(args.seeds):
            folder = args.out / f"seed{seed}"
            if not (folder / "train.jsonl").exists():
                write_data(folder, seed)
            for arm, results in runs.items():
                results.append(run_arm(arm, folder, seed))
    except UserError as error:
        print(f"dedup_learning: {error}", file=sys.stderr)
        return 2
    found = compared(runs)
    print(table(found))
    means = {arm: round(one["dates"]["mean"], 4) for arm, one in found.items()}
    ours = means.pop("mask")
    ratio = {arm: round(ours / max(mean, 1e-9), 3) for arm, mean in means.items()}
    result = {"bench": "dedup_learning", "ours": ours, "peers": means, "ratio": ratio}
    print(json.dumps(result | {"unit": "share of dates right", "detail": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
