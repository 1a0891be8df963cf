"""Evaluations in a run directory: ``eval/<arm>.<set>.json``, made once for what they depend on."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft import config as configs
from sft import hosts, sets
from sft import workdir as workdirs
from sft.eval import baseline, harness
from sft.eval.arms import Arm

Result = dict[str, Any]
# What changes no number: settings of other commands, and where, how fast and when.
_FREE = ("judge.", "mine.", "train.baseline", "train.log_every")
_FREE += tuple(f"eval.{key}" for key in baseline.FREE)


def of_arm(
    config: ConfigDict,
    path: Path,
    arm: Arm,
    splits: Mapping[str, sets.Split],
    model: Callable[[], harness.Model],
    put_shots: harness.PutShots | None = None,
    drawn_from: str = "",
) -> dict[str, Result]:
    """Scores one arm on every set that it has no result for yet, and writes each down at once.

    Args:
      path: of the run.
      model: loads it; called only where something is to be done.
      put_shots: as of ``harness.score``.
      drawn_from: content of the set that those examples are drawn from.

    Returns:
      ``{set: result}``.
    """
    wanted = {name: _fingerprint(config, arm, split, drawn_from) for name, split in splits.items()}
    with hosts.in_turn(f"stored {arm.name}"):
        if arm.step is None and hosts.is_first():
            for name, split in splits.items():
                if _stored(path, arm, name, wanted[name]) is None:
                    baseline.fetch(config, path, arm, name, split, wanted[name], drawn_from)
        stored = {name: _stored(path, arm, name, wanted[name]) for name in splits}
    results = {name: result for name, result in stored.items() if result is not None}
    todo = [name for name in splits if name not in results]
    hosts.compare(f"results of {arm.name}", {"sets to evaluate": todo})
    loaded = model() if todo else None
    for name in todo:
        assert loaded is not None
        numbers, rows = harness.score(loaded, config, splits[name], put_shots)
        result = {
            "arm": arm.name,
            "set": name,
            "data": ", ".join(splits[name].files),
            "content": splits[name].content,
            "checkpoint": "base" if arm.step is None else f"checkpoints/{arm.step}",
            **numbers,
            "fingerprint": wanted[name],
        }
        results[name] = result
        if hosts.is_first():
            harness.write_predictions(_path(path, arm, name, ".predictions.jsonl"), rows)
            workdirs.write_json(_path(path, arm, name, ".json"), result)
            if arm.step is None:
                baseline.keep(config, path, arm, name, splits[name], drawn_from)
    results = {name: results[name] for name in splits}
    if hosts.is_first():
        print("\n".join(line(result) for result in results.values()))
    return results


def line(result: Result) -> str:
    """One result for a person."""
    low, high = result["exact_match_interval"]
    more = [
        f"{name} {found['value']:.4g} [{found['interval'][0]:.4g}, {found['interval'][1]:.4g}]"
        for name, found in result["metrics"].items()
        if name not in ("exact_match", "loss", "token_accuracy", "perplexity")
    ]
    words = [
        f"exact match {result['exact_match']:.3f} [{low:.3f}, {high:.3f}] "
        f"({result['correct']}/{result['count']})",
        *more,
        f"loss {result['loss']:.4f}",
        f"token accuracy {result['token_accuracy']:.4f}",
    ]
    return f"{result['arm']} on {result['set']}: {', '.join(words)}"


def _path(path: Path, arm: Arm, name: str, ending: str) -> Path:
    return path / "eval" / f"{arm.name}.{name}{ending}"


def decisive(config: ConfigDict) -> dict[str, Any]:
    """The settings that could change a number."""
    return {k: v for k, v in configs.flatten(config) if not k.startswith(_FREE)}


def _fingerprint(config: ConfigDict, arm: Arm, split: sets.Split, drawn_from: str) -> str:
    """Of everything that could change the numbers."""
    about = [arm.name, arm.step, drawn_from, split.content, harness.signatures(config, split)]
    text = json.dumps([decisive(config), *about])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _stored(path: Path, arm: Arm, name: str, fingerprint: str) -> Result | None:
    stored = _path(path, arm, name, ".json")
    if not stored.exists():
        return None
    result = workdirs.read_json(stored)
    return result if result.get("fingerprint") == fingerprint else None
