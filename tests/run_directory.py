"""Makes a small finished run directory, for tests of what reads one."""

import json
import random
from pathlib import Path

from sft.config import default, fingerprint, flatten
from sft.eval import stats

STEPS, EPOCHS = 180, 3
HEBREW = "עשרים ושלושה במאי 2024"


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False))


def write_lines(path: Path, records: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))


def metrics() -> list[dict]:
    noise = random.Random(0)
    records = []
    for step in range(STEPS + 1):
        epoch = step * EPOCHS / STEPS
        loss = 2.8 * 0.97**step + 0.12
        if step:
            loss_here = loss * (1 + 0.25 * noise.uniform(-1, 1))
            records.append(
                {
                    "split": "train",
                    "step": step,
                    "epoch": epoch,
                    "loss": loss_here,
                    "token_accuracy": 1 - 0.3 * loss_here,
                    "learning_rate": 2e-4,
                    "grad_norm": 1.0,
                    "trained_tokens_per_second": 1500.0 + step,
                    "tokens_per_second": 4000.0,
                    "seconds": 0.4,
                }
            )
        if epoch.is_integer():
            value = [3.0, 0.41, 0.2125, 0.23][int(epoch)]
            record = {"split": "validation", "step": step, "epoch": epoch, "loss": value}
            records.append(record | {"token_accuracy": 1 - 0.3 * value, "weight": 900.0})
    return records


def write_eval(root: Path, arm: str, name: str, right: list[bool]) -> None:
    low, high = stats.wilson(sum(right), len(right))
    record = {
        "arm": arm,
        "set": name,
        "data": f"data/dates/{name}.jsonl",
        "checkpoint": "checkpoints/best/120" if arm == "best" else "",
        "count": len(right),
        "correct": sum(right),
        "exact_match": sum(right) / len(right),
        "exact_match_interval": [low, high],
        "loss": 3.01 if arm == "base" else 0.22,
        "token_accuracy": 0.41 if arm == "base" else 0.95,
        "seconds": 41.3,
        "peak_rss_bytes": 1_900_000_000,
    }
    write_json(root / "eval" / f"{arm}.{name}.json", record)
    predictions = []
    for i, correct in enumerate(right):
        prompt = HEBREW if i % 4 == 1 else f"<b>Le {i} mai 2024</b> & après\nthe ISO date?"
        expected = f"2024-05-{i:02d}"
        answer = expected if correct else f"The date is <i>{i}</i>."
        predictions.append(
            {
                "source": f"data/dates/{name}.jsonl:{i + 1}",
                "prompt": prompt,
                "expected": expected,
                "predicted": answer,
                "correct": correct,
            }
        )
    write_lines(root / "eval" / f"{arm}.{name}.predictions.jsonl", predictions)


def make_run(root: Path) -> Path:
    """A finished run: tuning helps on ``test``, nothing certain on ``test_held_out``."""
    config = default()
    config.optim.learning_rate = 1e-3
    config.data.train = "data/dates/train.jsonl"
    flat = dict(flatten(config))
    write_json(root / "config.json", {"fingerprint": fingerprint(config), "config": flat})
    environment = {
        "command": "sft train --config configs/quickstart.py --workdir runs/quickstart",
        "versions": {"jax": "0.12.0", "flax": "0.12.1"},
        "python": "3.12.1",
        "platform": "Linux x86_64",
        "devices": ["cpu:0"],
        "git": {"revision": "3f5e08f", "dirty": True},
    }
    write_json(root / "environment.json", environment)
    split = {"files": ["data/dates/train.jsonl"], "rows": 2000, "rejected": {"empty answer": 3}}
    split |= {"tokens": 61234, "trained_tokens": 21987, "max_tokens": 44, "mean_tokens": 30.617}
    write_json(root / "data" / "report.json", {"sets": {"train": split, "validation": split}})
    write_lines(root / "metrics.jsonl", metrics())
    points = [r for r in metrics() if r["split"] == "validation"]
    selection = {
        "metric": "validation loss",
        "epoch": 2,
        "step": 120,
        "checkpoint": "checkpoints/best/120",
        "epochs": points,
        "why": "lowest validation loss of 3 epochs",
    }
    write_json(root / "selection.json", selection)
    write_eval(root, "base", "test", [i % 9 == 0 for i in range(90)])
    write_eval(root, "best", "test", [i % 8 != 3 for i in range(90)])
    write_eval(root, "base", "test_held_out", [i % 2 == 0 for i in range(20)])
    write_eval(root, "best", "test_held_out", [i % 2 == 0 or i == 5 for i in range(20)])
    (root / "DONE").touch()
    return root
