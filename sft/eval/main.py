"""``sft eval``: the base model, or a checkpoint of a run, on every file of the test set."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft import config as configs
from sft import hosts, inputs, sets
from sft import workdir as workdirs
from sft.eval import arms, harness
from sft.model import specs


def main(config: ConfigDict, workdir: str, checkpoint: str) -> dict[str, Any] | None:
    """Evaluates and writes ``eval/<arm>.<set>.json``, one for each file of ``config.data.test``.

    A result that is there already for the same data, checkpoint and settings is not made again.

    Args:
      checkpoint: ``base``, ``best``, ``latest`` or a step.

    Returns:
      ``{set: result}``; ``None`` on other hosts than the first.
    """
    with hosts.started(config):
        return _evaluate(config, workdir, checkpoint)


def _evaluate(config: ConfigDict, workdir: str, checkpoint: str) -> dict[str, Any] | None:
    hosts.compare("versions and configuration", workdirs.facts(config))
    path = workdirs.prepare(config, workdir)
    arm, step = arms.which(path, config, checkpoint)
    spec = specs.get(config.model.name)
    tok = inputs.tokenizer(config, spec)
    splits = sets.tests(config, spec, tok)
    hosts.compare("data", {f"rows of {name}": split.content for name, split in splits.items()})
    if hosts.is_first():
        sets.write_report(path, sets.told_apart(splits))
    wanted = {name: _fingerprint(config, arm, step, split) for name, split in splits.items()}
    stored = {name: _stored(path, arm, name, wanted[name]) for name in splits}
    results = {name: result for name, result in stored.items() if result is not None}
    todo = [name for name in splits if name not in results]
    hosts.compare("results", {"sets to evaluate": todo})
    model = arms.load(config, workdir, step, tok) if todo else None
    for name in todo:
        assert model is not None
        numbers, rows = harness.score(model, config, splits[name])
        result = {
            "arm": arm,
            "set": name,
            "data": ", ".join(splits[name].files),
            "checkpoint": "base" if step is None else f"checkpoints/{step}",
            **numbers,
            "fingerprint": wanted[name],
        }
        results[name] = result
        if hosts.is_first():
            harness.write_predictions(path / "eval" / f"{arm}.{name}.predictions.jsonl", rows)
            workdirs.write_json(path / "eval" / f"{arm}.{name}.json", result)
    if not hosts.is_first():
        return None
    for label, result in results.items():
        low, high = result["exact_match_interval"]
        print(
            f"{arm} on {label}: exact match {result['exact_match']:.3f} "
            f"[{low:.3f}, {high:.3f}] ({result['correct']}/{result['count']}), "
            f"loss {result['loss']:.4f}, token accuracy {result['token_accuracy']:.4f}"
        )
    return results


def _fingerprint(config: ConfigDict, arm: str, step: int | None, split: sets.Split) -> str:
    """Of everything that could change the numbers."""
    text = json.dumps([configs.fingerprint(config), arm, step, split.content])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _stored(path: Path, arm: str, name: str, fingerprint: str) -> dict | None:
    stored = path / "eval" / f"{arm}.{name}.json"
    if not stored.exists():
        return None
    result = workdirs.read_json(stored)
    return result if result.get("fingerprint") == fingerprint else None
