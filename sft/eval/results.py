"""Evaluations in a run directory: ``eval/<arm>.<set>.json``, made once for what they depend on."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft import config as configs
from sft.config import effects
from sft.eval import baseline, harness, lines, metrics
from sft.eval.arms import Arm
from sft.eval.evalset import EvalSet
from sft.run import directory as workdirs
from sft.run import hosts

Result = dict[str, Any]
# Of settings that can change a score.
_EFFECTS = effects.TRAINING, effects.CHOICE, effects.GENERATION, effects.SCORES


def of_arm(
    config: ConfigDict,
    path: Path,
    arm: Arm,
    given: Mapping[str, EvalSet],
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
    wanted = {name: _fingerprint(config, arm, one, drawn_from) for name, one in given.items()}
    with hosts.in_turn(f"stored {arm.name}"):
        if arm.step is None and hosts.is_first():
            for name, one in given.items():
                if _stored(config, path, arm, name, wanted[name]) is None:
                    ours = _about(config, name, one, wanted[name])
                    baseline.fetch(config, path, arm, name, one, ours, drawn_from)
        stored = {name: _stored(config, path, arm, name, wanted[name]) for name in given}
    results = {name: result for name, result in stored.items() if result is not None}
    todo = [name for name in given if name not in results]
    hosts.compare(f"results of {arm.name}", {"sets to evaluate": todo})
    loaded = model() if todo else None
    for name in todo:
        assert loaded is not None
        numbers, rows = harness.score(loaded, config, given[name], put_shots)
        result = {
            "arm": arm.name,
            "set": name,
            "checkpoint": "base" if arm.step is None else f"checkpoints/{arm.step}",
            **numbers,
            **_about(config, name, given[name], wanted[name]),
        }
        results[name] = result
        if hosts.is_first():
            harness.write_predictions(_path(path, arm, name, ".predictions.jsonl"), rows)
            workdirs.write_json(_path(path, arm, name, ".json"), result)
            if arm.step is None:
                baseline.keep(config, path, arm, name, given[name], drawn_from)
    results = {name: results[name] for name in given}
    if hosts.is_first():
        print("\n".join(lines.result(one) for one in results.values()))
    return results


def _about(config: ConfigDict, name: str, given: EvalSet, fingerprint: str) -> Result:
    """What a result has of the run that it is in, also where another run has made the numbers."""
    return {
        "set": name,
        "data": ", ".join(given.split.files),
        "content": given.split.content,
        "primary": metrics.primary(config),
        "fingerprint": fingerprint,
        "settings": decisive(config),
    }


def _path(path: Path, arm: Arm, name: str, ending: str) -> Path:
    return path / "eval" / f"{arm.name}.{name}{ending}"


def decisive(config: ConfigDict) -> dict[str, Any]:
    """The settings that could change a number."""
    return effects.select(dict(configs.flatten(config)), *_EFFECTS)


def _fingerprint(config: ConfigDict, arm: Arm, given: EvalSet, drawn_from: str) -> str:
    """A digest of everything beside ``decisive`` that could change the numbers."""
    split = given.split
    about = [arm.name, arm.step, drawn_from, split.content, harness.signatures(config, split)]
    text = json.dumps([*about, *given.identity])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _stored(config: ConfigDict, path: Path, arm: Arm, name: str, fingerprint: str) -> Result | None:
    """The result that is there, if it is what is wanted: a setting that it lacks was added since,
    and had its default."""
    stored = _path(path, arm, name, ".json")
    if not stored.exists():
        return None
    result = workdirs.read_json(stored)
    if result.get("fingerprint") != fingerprint or "settings" not in result:
        return None
    return None if configs.difference(decisive(config), result["settings"]) else result
