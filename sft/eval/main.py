"""``sft eval``: the base model, or a checkpoint of a run, on every file of the test set."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from sft import config as configs
from sft import inputs
from sft import workdir as workdirs
from sft.errors import UserError
from sft.eval import harness
from sft.model import sharding, specs
from sft.train import optim
from sft.train.checkpoint import Checkpoints
from sft.train.steps import make_steps


def main(config: ConfigDict, workdir: str, checkpoint: str) -> dict[str, Any]:
    """Evaluates and writes ``eval/<arm>.<set>.json``, one for each file of ``config.data.test``.

    A result that is there already for the same data, checkpoint and settings is not made again.

    Args:
      checkpoint: ``base``, ``best``, ``latest`` or a step.

    Returns:
      ``{set: result}``.
    """
    path = workdirs.prepare(config, workdir)
    arm, step = _which(path, config, checkpoint)
    files = _files(config)
    wanted = {name: _fingerprint(config, arm, step, name) for name in files}
    stored = {_label(name): _stored(path, arm, name, wanted[name]) for name in files}
    results = {label: result for label, result in stored.items() if result is not None}
    todo = [name for name in files if _label(name) not in results]
    model = _load(config, workdir, step) if todo else None
    for name in todo:
        assert model is not None
        part = config.copy_and_resolve_references()
        part.data.test = name
        split = inputs.split(part, "test", model.spec, model.tokenizer)
        label = _label(name)
        inputs.write_data_report(path, {label: split})
        numbers, rows = harness.score(model, config, split)
        harness.write_predictions(path / "eval" / f"{arm}.{label}.predictions.jsonl", rows)
        result = {
            "arm": arm,
            "set": label,
            "data": name,
            "checkpoint": "base" if step is None else f"checkpoints/{step}",
            **numbers,
            "fingerprint": wanted[name],
        }
        workdirs.write_json(path / "eval" / f"{arm}.{label}.json", result)
        results[label] = result
    for label, result in results.items():
        low, high = result["exact_match_interval"]
        print(
            f"{arm} on {label}: exact match {result['exact_match']:.3f} "
            f"[{low:.3f}, {high:.3f}] ({result['correct']}/{result['count']}), "
            f"loss {result['loss']:.4f}, token accuracy {result['token_accuracy']:.4f}"
        )
    return results


def _files(config: ConfigDict) -> list[str]:
    """The files of ``config.data.test``; each is a set of its own."""
    files = [name.strip() for name in config.data.test.split(",") if name.strip()]
    if not files:
        raise UserError("config.data.test is not set. Give the path of a JSONL file.")
    labels = [_label(name) for name in files]
    for name, label in zip(files, labels, strict=True):
        if labels.count(label) > 1:
            raise UserError(
                f"config.data.test: {name}: more than one file is called {label!r}, and results "
                f"are kept by that name. Rename one."
            )
    return files


def _label(name: str) -> str:
    return Path(name).name.split(".")[0]


def _which(path: Path, config: ConfigDict, checkpoint: str) -> tuple[str, int | None]:
    """Name of the arm and step of the checkpoint (``None`` = base)."""
    if checkpoint == "base":
        return "base", None
    steps = (
        Checkpoints(path, config, read_only=True).steps() if (path / "checkpoints").exists() else []
    )
    if not steps:
        raise UserError(f"{path}/checkpoints: none there. Run sft train first.")
    if checkpoint == "latest":
        return "latest", steps[-1]
    if checkpoint == "best":
        chosen = path / "selection.json"
        if not chosen.exists():
            raise UserError(
                f"{chosen}: missing. Run sft train to its end, or use --checkpoint=latest."
            )
        step = workdirs.read_json(chosen)["step"]
    elif checkpoint.isdigit():
        step = int(checkpoint)
    else:
        raise UserError(
            f"--checkpoint={checkpoint}: expected base, best, latest or one of {steps}."
        )
    if step not in steps:
        raise UserError(f"{path}/checkpoints/{step}: not there. Kept: {steps}.")
    return ("best" if checkpoint == "best" else f"step{step}"), step


def _load(config: ConfigDict, workdir: str, step: int | None) -> harness.Model:
    spec = specs.get(config.model.name)
    tok = inputs.tokenizer(config, spec)
    mesh = sharding.make_mesh(config)
    steps = make_steps(config, spec, optim.make(config.optim, 1), mesh)
    params = inputs.params(config, spec, steps.params_sharding)
    state, frozen = steps.init(jax.random.key(config.seed), params)
    if step is not None:
        state, _ = Checkpoints(workdir, config, read_only=True).restore(step, state)
    return harness.Model(spec, steps, tok, state.trainable, frozen)


def _fingerprint(config: ConfigDict, arm: str, step: int | None, name: str) -> str:
    """Of everything that could change the numbers."""
    file = epath.Path(name)
    if not file.exists():
        raise UserError(f"config.data.test: {name}: no such file.")
    data = hashlib.sha256(file.read_bytes()).hexdigest()
    text = json.dumps([configs.fingerprint(config), arm, step, data])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _stored(path: Path, arm: str, name: str, fingerprint: str) -> dict | None:
    stored = path / "eval" / f"{arm}.{_label(name)}.json"
    if not stored.exists():
        return None
    result = workdirs.read_json(stored)
    return result if result.get("fingerprint") == fingerprint else None
