"""Scores of the base model, kept once for each model, data and prompt, whatever is tuned.

Twenty runs of a sweep share their baseline: it is made by the first, and copied by the others.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft import inputs, sets
from sft import workdir as workdirs
from sft.eval import metrics
from sft.eval.arms import Arm

# Of config.eval: where, how fast and when, never a number.
_FREE = ("batch_size", "cache", "during_training", "suites")
_ENDINGS = (".json", ".predictions.jsonl")


def fetch(
    config: ConfigDict, path: Path, arm: Arm, name: str, split: sets.Split, fingerprint: str
) -> bool:
    """Copies the result of an earlier run into that in ``path``; whether there was one."""
    folder = _folder(config, arm, split)
    if folder is None or not (folder / _ENDINGS[0]).exists():
        return False
    result = workdirs.read_json(folder / _ENDINGS[0])
    predictions = (folder / _ENDINGS[1]).read_text()
    target = path / "eval" / f"{arm.name}.{name}"
    workdirs.write_text(target.with_name(target.name + _ENDINGS[1]), predictions)
    ours = {"set": name, "data": ", ".join(split.files), "fingerprint": fingerprint}
    workdirs.write_json(target.with_name(target.name + _ENDINGS[0]), result | ours)
    return True


def keep(config: ConfigDict, path: Path, arm: Arm, name: str, split: sets.Split) -> None:
    """Copies the result of the run in ``path`` to where other runs find it."""
    folder = _folder(config, arm, split)
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for ending in reversed(_ENDINGS):  # the result last: it says that the rest is there
        partial = folder / f"{ending}.tmp"
        shutil.copyfile(path / "eval" / f"{arm.name}.{name}{ending}", partial)
        partial.replace(folder / ending)


def _folder(config: ConfigDict, arm: Arm, split: sets.Split) -> Path | None:
    if not config.eval.cache:
        return None
    return Path(config.eval.cache).expanduser() / _key(config, arm, split)


def _key(config: ConfigDict, arm: Arm, split: sets.Split) -> str:
    """Twelve hex digits of everything that could change the numbers of the base model."""
    import jax

    answers = [c.turns[-1].text for c in split.conversations]
    found = metrics.of(config, answers)
    settings: dict[str, Any] = {
        "arm": arm.name,
        "model": {key: config.model[key] for key in ("name", "sha256", "dtype", "attention")},
        "files": inputs.identity(config),
        "chat": config.data.chat,
        "eval": {key: value for key, value in config.eval.items() if key not in _FREE},
        "signatures": [[name, metric.signature] for name, metric in found.items()],
        "seed": config.seed,
        "rows": split.content,
        "answers": answers,
        "versions": workdirs.facts(config).get("gemma-sft"),
        "platform": jax.default_backend(),
    }
    if config.eval.shots and arm.name != "base":
        settings["shots from"] = [config.data.train, dict(config.data.split)]
    return hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()[:24]
