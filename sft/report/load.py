"""A run directory as values. Reads files, judges nothing, needs no device."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from sft.errors import UserError
from sft.eval.suites.compare import FIELDS as SUITE_FIELDS
from sft.workdir import path_of

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run directory holds. A part whose command has not been run yet is empty or None.

    Attributes:
      config: flattened, ``{"optim.learning_rate": 2e-4, …}``.
      train: one record per logged step, in step order.
      validation: one record per epoch, epoch 0 (before the first step) first.
      evals: by ``(arm, set)``, as in ``("best", "test")``.
      predictions: by ``(arm, set)``, in file order.
      suites: by ``(arm, suite)``.
    """

    path: Path
    fingerprint: str
    config: Record
    environment: Record
    data: Record
    train: list[Record]
    validation: list[Record]
    selection: Record | None
    evals: dict[tuple[str, str], Record]
    predictions: dict[tuple[str, str], list[Record]]
    suites: dict[tuple[str, str], Record]
    summary: Record | None
    done: bool

    def eval(self, arm: str, name: str) -> Record | None:
        return self.evals.get((arm, name))

    @property
    def sets(self) -> list[str]:
        """Names of the evaluated sets, alphabetically."""
        return sorted({name for _, name in self.evals})


_METRICS = {"split", "step", "epoch", "loss", "token_accuracy"}
_EVAL = {"arm", "set", "count", "correct", "exact_match", "exact_match_interval"}
_PREDICTION = {"source", "prompt", "expected", "predicted", "correct"}


def load_run(workdir: str | Path) -> Run:
    """Reads everything a report needs from ``workdir``.

    Only ``config.json`` must exist; a run may be reported at any time.

    Raises:
      UserError: ``config.json`` is missing, or a file is malformed; names the file, the line or
        field, and the command that makes it.
    """
    path = path_of(workdir)
    config = read_object(path / "config.json", "sft train", {"config"})
    if config is None:
        raise UserError(
            f"{path / 'config.json'}: no such file, so this is not a run directory. "
            "Make one with `sft train`, or check --workdir."
        )
    metrics = read_lines(path / "metrics.jsonl", "sft train", _METRICS, torn_tail=True)
    evals, predictions, suites = _read_evals(path / "eval")
    return Run(
        path=path,
        fingerprint=config.get("fingerprint", ""),
        config=config["config"],
        environment=read_object(path / "environment.json", "sft train") or {},
        data=read_object(path / "data" / "report.json", "sft data") or {},
        train=_last_of_each_step(metrics, "train"),
        validation=_last_of_each_step(metrics, "validation"),
        selection=read_object(path / "selection.json", "sft train", {"epoch", "step", "epochs"}),
        evals=evals,
        predictions=predictions,
        suites=suites,
        summary=read_object(path / "summary.json", "scripts/quickstart.sh"),
        done=(path / "DONE").exists(),
    )


def read_object(path: Path, command: str, keys: set[str] | None = None) -> Record | None:
    """The JSON object in ``path``, or None where there is no such file.

    Raises:
      UserError: not a JSON object, or without one of ``keys``.
    """
    if not path.exists():
        return None
    return _parse(_text(path), str(path), command, keys)


def read_lines(
    path: Path, command: str, keys: set[str] | None = None, torn_tail: bool = False
) -> list[Record]:
    """The JSON objects in ``path``, one a line; none where there is no such file.

    With ``torn_tail`` a last line without its newline is left out: a run that was killed may
    have been writing it.

    Raises:
      UserError: a line is not a JSON object, or lacks one of ``keys``.
    """
    if not path.exists():
        return []
    lines = _text(path).split("\n")
    if torn_tail:
        lines = lines[:-1]
    return [
        _parse(line, f"{path}:{number}", command, keys)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="replace")


def _parse(text: str, where: str, command: str, keys: set[str] | None) -> Record:
    remedy = f"Repair it, or remove the file and run `{command}` again."
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error}). {remedy}") from None
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise UserError(f"{where}: expected a JSON object, found {kind}. {remedy}")
    missing = sorted((keys or set()) - value.keys())
    if missing:
        raise UserError(f"{where}: field {missing[0]!r} is missing. {remedy}")
    return value


def _last_of_each_step(metrics: list[Record], split: str) -> list[Record]:
    """A resumed run repeats the steps after its last checkpoint: the later record counts."""
    by_step = {record["step"]: record for record in metrics if record["split"] == split}
    return [by_step[step] for step in sorted(by_step)]


def _read_evals(folder: Path) -> tuple[dict, dict, dict]:
    evals, predictions, suites = {}, {}, {}
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith(("judge.", "lm.")):  # of sft eval judge and lm
            continue
        if ".suite." in path.name:
            record = read_object(path, "sft eval suite", set(SUITE_FIELDS)) or {}
            suites[record["arm"], record["suite"]] = record
            continue
        record = read_object(path, "sft eval", _EVAL) or {}
        key = record["arm"], record["set"]
        evals[key] = record
        beside = path.with_name(path.stem + ".predictions.jsonl")
        predictions[key] = read_lines(beside, "sft eval", _PREDICTION)
    return evals, predictions, suites
