"""Scores of the base model, kept once for each model, data and prompt, whatever is tuned.

Twenty runs of a sweep share their baseline: it is made by the first, and copied by the others.
"""

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft import config as configs
from sft import session
from sft.config import effects
from sft.eval import harness
from sft.eval.arms import Arm
from sft.eval.evalset import EvalSet
from sft.run import directory as workdirs

_RESULT, _PREDICTIONS = ".json", ".predictions.jsonl"


def fetch(
    config: ConfigDict,
    path: Path,
    arm: Arm,
    name: str,
    given: EvalSet,
    ours: dict[str, Any],
    drawn_from: str,
) -> None:
    """Copies the result of an earlier run into that in ``path``, if there is one, with ``ours``."""
    folder = _folder(config, arm, given, drawn_from)
    if folder is None or not folder.exists():
        return
    result = workdirs.read_json(folder / _RESULT)
    target = path / "eval" / f"{arm.name}.{name}"
    predictions = (folder / _PREDICTIONS).read_text()
    workdirs.write_text(target.with_name(target.name + _PREDICTIONS), predictions)
    workdirs.write_json(target.with_name(target.name + _RESULT), result | ours)


def keep(
    config: ConfigDict, path: Path, arm: Arm, name: str, given: EvalSet, drawn_from: str
) -> None:
    """Copies the result of the run in ``path`` to where other runs find it, whole or not at all.

    Where that cannot be written, it says so on standard error.
    """
    folder = _folder(config, arm, given, drawn_from)
    if folder is None or folder.exists():
        return
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
        for ending in (_RESULT, _PREDICTIONS):
            content = (path / "eval" / f"{arm.name}.{name}{ending}").read_bytes()
            (temporary / ending).write_bytes(content)
        temporary.rename(folder)
    except OSError as error:  # also where another run has just kept the same
        if not folder.exists():
            said = f"warning: {folder.parent}: the base model's scores are not kept: "
            print(said + (error.strerror or str(error)), file=sys.stderr)
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _folder(config: ConfigDict, arm: Arm, given: EvalSet, drawn_from: str) -> Path | None:
    if not config.eval.cache:
        return None
    return Path(config.eval.cache).expanduser() / _key(config, arm, given, drawn_from)


def _key(config: ConfigDict, arm: Arm, given: EvalSet, drawn_from: str) -> str:
    """24 hex digits of everything that could change the numbers of the base model."""
    import jax

    ours = dict(configs.flatten(config.eval, "eval."))
    settings: dict[str, Any] = {
        "arm": arm.name,
        "model": {key: config.model[key] for key in ("name", "sha256", "dtype", "attention")},
        "files": session.identity(config),
        "chat": config.data.chat,
        "eval": effects.counted(effects.select(ours, effects.GENERATION, effects.SCORES)),
        "signatures": harness.signatures(config, given.split),
        "labels": given.identity,
        "seed": config.seed,
        "rows": given.split.content,
        "shots from": drawn_from,
        "versions": workdirs.facts(config).get("gemma-sft"),
        "platform": jax.default_backend(),
    }
    return hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()[:24]
