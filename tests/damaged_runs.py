"""A small run directory with every file that a report reads, and ways of damaging one of them."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from run_directory import write_json, write_lines
from suite_results import result_of, suite_of

from sft import config as configs
from sft.eval import constant, faults, scores
from sft.eval.metrics import RANKED

LABELS = ("yes", "no", "maybe")
ROWS = 8
# What no field of every file can be at once, and what few can.
VALUES: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 0.5, -0.5, 3.7, 1e308, float("nan"), float("inf")),
    *(10**25, 10**40, "", "x", "0", "\x00", "a\nb", "\ud800", "<script>", "x" * 5000, "2024-05-01"),
    *([], [1], ["x"], [[]], [None, None], [0.1, 0.9], {}, {"x": 1}, {"value": 1}, {"": {}}),
]
NAMES = (
    *("best.json", ".json", "best..json", "a.b.c.json", "best.test.json.json", "x.suite.y.json"),
    *("best.te\nst.json", "best.\x1b[31m.json", "best.<script>.json", "best.$(id).json"),
    *("best.\udcff.json", "judge.json", "lm.json", "best. test.json", "base.00shot.test.json"),
    *("best.suite..json", "best.suite.\u202e.json", "best.test.predictions.jsonl.json"),
    *(f"best.{'x' * 200}.json", "-best.test.json", "best.'.json", "step9.test.json"),
)


def whole(root: Path) -> Path:
    """A finished run on labelled data: base, few-shot, tuned; a behaviour suite."""
    config = configs.default()
    config.data.train, config.data.test = "train.jsonl", "test.jsonl"
    config.eval.resamples, config.eval.metrics = 100, "accuracy,macro_f1,token_f1"
    config.eval.labels = ",".join(LABELS)
    flat = dict(configs.flatten(config))
    write_json(root / "config.json", {"fingerprint": configs.fingerprint(config), "config": flat})
    versions = {"command": "sft train", "versions": {"jax": "0.12.0"}, "python": "3.12.1"}
    machine = {"platform": "Linux", "devices": ["cpu:0"], "git": {"revision": "a", "dirty": True}}
    write_json(root / "environment.json", versions | machine)
    _write_data(root / "data" / "report.json")
    rows = _metrics()
    write_lines(root / "metrics.jsonl", rows)
    epochs = [row for row in rows if row["split"] == "validation" and row["step"]]
    chosen = {"metric": "exact_match", "better": "higher", "epoch": 2, "step": 6, "why": "best"}
    chosen |= {"epochs": epochs, "checkpoint": "checkpoints/6", "warning": "It chose nothing."}
    write_json(root / "selection.json", chosen)
    write_json(root / "summary.json", {"wall_seconds": {"train": 3.5}, "peak_rss_bytes": 10**9})
    for arm, right in (("base", 3), ("base.2shot", 4), ("best", 6)):
        _write_eval(root, config, arm, "test", right)
    suite = suite_of(root, [{"expect": {"equals": "x"}, "note": "n"}] * 4)
    for arm, answers in (("base", "xxyy"), ("best", "xyyx")):
        result = result_of(suite, answers, arm)
        write_json(root / "eval" / f"{arm}.suite.toy.json", result)
    (root / "DONE").touch()
    return root


def _write_data(path: Path) -> None:
    fit = {"over": 3, "truncated": 2, "dropped": 1, "lost_trained_tokens": 9, "share": 0.1}
    split = {"files": ["train.jsonl"], "rows": 30, "rejected": {"empty answer": 3}, "tokens": 900}
    split |= {"trained_tokens": 90, "trained_ends": 30, "max_tokens": 44, "mean_tokens": 30.6}
    split |= {"fit": fit | {"max_length": 40}, "untrained": {"rows": 1, "first": "train.jsonl:2"}}
    skew = [{"left": "train", "right": "validation", "differs": 2, "summary": "In two ways."}]
    warnings = [{"severity": "error", "text": "A fault.", "remedy": ""}]
    sets = {"train": split | {"content": "ab"}, "validation": split, "test test": split}
    write_json(path, {"sets": sets, "skew": skew, "warnings": warnings})


def _metrics() -> list[dict]:
    rows = []
    for step in range(7):
        epoch = step / 3
        if step:
            row = {"split": "train", "step": step, "epoch": epoch, "loss": 3 / step}
            row |= {"token_accuracy": 0.1 * step, "learning_rate": 1e-3, "grad_norm": 1.5 / step}
            rows.append(row | {"trained_tokens": 40.0, "trained_tokens_per_second": 90.0})
        if step % 3 == 0:
            row = {"split": "validation", "step": step, "epoch": epoch, "loss": 2 - epoch / 2}
            row |= {"token_accuracy": 0.3 * epoch, "weight": 50.0, "loss_se": 0.1}
            row |= {"end_loss": 1.0, "prompt_loss": 4.0, "answer_loss": 2.0}
            rows.append(row | ({"exact_match": 0.4 * epoch, "cut": 0.05} if step else {}))
    return rows


def _write_eval(root: Path, config, arm: str, name: str, right: int) -> None:
    rows = []
    for i in range(ROWS):
        expected = LABELS[i % 3]
        answer = expected if i < right else LABELS[(i + 1) % 3]
        row = {"source": f"{name}.jsonl:{i + 1}", "prompt": f"question {i}", "expected": expected}
        row |= {"predicted": answer, "correct": i < right, "compared": answer, "cut": i == 7}
        row |= {"stop": "end", "error": None if i < right else "other_label", "ranks": len(LABELS)}
        row |= {"ranked": answer, "ranked_norm": answer, "log_likelihoods": [-1.0, -2.0, -3.0]}
        rows.append(row | {"nll": 2.0 - 0.1 * right, "right_tokens": 1, "trained": 2})
    table = scores.table(config, rows)
    for i, row in enumerate(rows):
        row["scores"] = scores.of_row(table, i)
    found = scores.summary(config, table)
    exact = found["accuracy"]
    expected = [row["expected"] for row in rows]
    record = {"arm": arm, "set": name, "data": f"{name}.jsonl", "checkpoint": "checkpoints/6"}
    record |= {"content": "cd", "primary": RANKED[0], "fingerprint": "f", "count": ROWS}
    record |= {"correct": right, "exact_match": right / ROWS, "metrics": found, "loss": 1.5}
    record |= {"exact_match_interval": exact["interval"], "token_accuracy": 0.5, "cut": 1}
    record |= {"max_new_tokens": 32, "seconds": 4.5, "peak_rss_bytes": 10**9, "labels": [*LABELS]}
    record |= {"settings": {"eval.max_new_tokens": 32, "eval.resamples": 100}}
    record["constant"] = constant.scored(config, expected, "yes", "training", LABELS)
    record["errors"] = faults.summary(rows)
    write_json(root / "eval" / f"{arm}.{name}.json", record)
    write_lines(root / "eval" / f"{arm}.{name}.predictions.jsonl", rows)


def damage(root: Path, rng: random.Random) -> str:
    """Damages one file of the run; returns what was done."""
    files = sorted(path for path in root.rglob("*.json*") if path.name != "toy.jsonl")
    path = rng.choice(files)
    way = rng.choice([_structure] * 6 + [_bytes] * 3 + [_kind, _named])
    return f"{path.relative_to(root)}: {way.__name__} {way(path, rng)}"


def _structure(path: Path, rng: random.Random) -> str:
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    number = rng.randrange(len(lines))
    value = json.loads(lines[number])
    for _ in range(rng.choice((1, 1, 2))):
        holder, key = _place(value, rng)
        way = rng.choice(("value", "value", "value", "remove", "rename"))
        if way == "value":
            holder[key] = rng.choice(VALUES)
        elif way == "remove":
            del holder[key]
        elif isinstance(holder, dict):
            holder[str(rng.choice(VALUES))[:20]] = holder.pop(key)
        if not value:
            break
    lines[number] = json.dumps(value if rng.random() < 0.95 else rng.choice(VALUES))
    path.write_text("".join(line + "\n" for line in lines))
    return f"{way} {key}"


def _place(value: Any, rng: random.Random) -> tuple[Any, Any]:
    """An object or list somewhere in the value, and a key of it."""
    while True:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = rng.choice(list(keys))
        if not (isinstance(value[key], dict | list) and value[key]) or rng.random() < 0.25:
            return value, key
        value = value[key]


def _bytes(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    place = rng.randrange(len(data))
    junk = bytes(rng.randrange(256) for _ in range(rng.randint(1, 9)))
    ways: dict[str, Callable[[], bytes]] = {
        "cut": lambda: data[:place],
        "flip": lambda: (
            data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        ),
        "insert": lambda: data[:place] + junk + data[place:],
        "zeros": lambda: data[:place] + bytes(len(data) - place),
        "empty": lambda: b"",
        "utf-16": lambda: data.decode().encode("utf-16"),
        "mark": lambda: b"\xef\xbb\xbf" + data,
        "twice": lambda: data + data,
        "deep": lambda: b"[" * 100_000,
        "digits": lambda: data.replace(b": 1", b": " + b"1" * 5000, 1),
    }
    way = rng.choice(list(ways))
    path.write_bytes(ways[way]())
    return f"{way} at {place}"


def _kind(path: Path, rng: random.Random) -> str:
    """A directory in place of the file, a file in place of its directory, a link to nothing."""
    way = rng.choice(("directory", "file", "link", "loop", "gone"))
    if way == "file":
        folder = path.parent
        shutil.rmtree(folder)
        folder.write_text("{}")
        return way
    path.unlink()
    if way == "directory":
        path.mkdir()
    elif way != "gone":
        path.symlink_to("nowhere" if way == "link" else path.name)
    return way


def _named(path: Path, rng: random.Random) -> str:
    """A copy of the file in ``eval`` under a name that nothing writes."""
    folder = next(parent for parent in path.parents if (parent / "config.json").exists()) / "eval"
    name = rng.choice(NAMES)
    target = folder / name
    if rng.random() < 0.2:
        target.mkdir(exist_ok=True)
    elif target.exists():
        target.unlink()
    if not target.exists():
        shutil.copy(path, target)
    return ascii(name)
