"""A run directory as values. Reads and checks files, judges nothing, needs no device."""

import dataclasses
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

from sft.errors import UserError
from sft.report import shapes
from sft.report.shapes import Fields
from sft.run.directory import path_of

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


_DIGITS = 30  # of a whole number in a file; no count has as many
_SHOWN = 80  # characters of what a JSON parser says


def damaged(where: str | Path, found: str, remedy: str) -> UserError:
    """The error that says what is wrong with a file, and what to do: one line whatever its name."""
    text = f"{where}: {found}. {remedy}"
    return UserError("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))


def named(path: str | Path) -> Path:
    """The path, whose name can be written into a page.

    Raises:
      UserError: it is not UTF-8, or not one of a bucket that can be had.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise damaged(path, "its name is not UTF-8", "Rename it.") from None
    return path_of(path)


def load_run(workdir: str | Path) -> Run:
    """Reads everything a report needs from ``workdir``.

    Only ``config.json`` must exist; a run may be reported at any time.

    Raises:
      UserError: ``config.json`` is missing, or a file is damaged: names the file, the line or
        field, what it is and what was expected, and what to do.
    """
    path = named(workdir)
    again = f"--workdir={shlex.quote(str(path))}"
    redo = f"Restore it, or remove it and run `sft {{}} {again}`."
    config = read_object(path / "config.json", _config_remedy(again), shapes.CONFIG)
    if config is None:
        raise damaged(
            path / "config.json",
            "no such file, so this is not a run directory",
            "Make one with `sft train`, or check --workdir.",
        )
    _check_settings(config["config"], path / "config.json", "config", _config_remedy(again))
    metrics = read_lines(
        path / "metrics.jsonl",
        "Restore it, or remove what is damaged: the report goes without those numbers, which only "
        "a new `sft train` in another --workdir makes again.",
        shapes.METRICS,
        torn_tail=True,
    )
    forgo = "Restore it, or remove it: the report goes without what it says{}."
    environment = forgo.format(" of versions and devices")
    evals, predictions, suites = _read_evals(path / "eval", again)
    return Run(
        path=path,
        fingerprint=config.get("fingerprint", ""),
        config=config["config"],
        environment=read_object(path / "environment.json", environment, shapes.ENVIRONMENT) or {},
        data=read_object(path / "data" / "report.json", redo.format("data"), shapes.DATA) or {},
        train=_last_of_each_step(metrics, "train"),
        validation=_last_of_each_step(metrics, "validation"),
        selection=_selection(path / "selection.json", redo.format("train")),
        evals=evals,
        predictions=predictions,
        suites=suites,
        summary=read_object(path / "summary.json", forgo.format(""), shapes.SUMMARY),
        done=(path / "DONE").exists(),
    )


def _config_remedy(again: str) -> str:
    return (
        f"Restore it, or remove it and run `sft train --config=FILE {again}` with the "
        "configuration that made the run."
    )


def read_object(path: Path, remedy: str, shape: Fields) -> Record | None:
    """The JSON object in ``path``, or None where there is no such file.

    Raises:
      UserError: unreadable, not a JSON object, or not of the ``shape``; ends with the ``remedy``.
    """
    content = read_bytes(path, remedy)
    return None if content is None else _parse(content, str(path), remedy, shape)


def read_lines(
    path: Path, remedy: str, shape: Fields | None = None, torn_tail: bool = False
) -> list[Record]:
    """The JSON objects in ``path``, one a line; none where there is no such file.

    With ``torn_tail`` a last line without its newline is left out: a run that was killed may
    have been writing it.

    Raises:
      UserError: as of ``read_object``.
    """
    content = read_bytes(path, remedy)
    if content is None:
        return []
    lines = content.split(b"\n")
    if torn_tail:
        lines = lines[:-1]
    return [
        _parse(line, f"{path}:{number}", remedy, shape or Fields())
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def read_bytes(path: Path, remedy: str) -> bytes | None:
    """What is in a file, or None where there is none.

    Raises:
      UserError: it cannot be read, is a directory or a link to nothing, or its folder is a file.
    """
    try:
        if path.exists():
            return path.read_bytes()
        if os.path.islink(path):
            raise damaged(path, "a link to nothing", remedy)
        if path.parent.exists() and not path.parent.is_dir():
            raise damaged(path.parent, "expected a directory, found a file", "Remove it.")
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror or error})", remedy) from None
    return None


def _parse(content: bytes, where: str, remedy: str, shape: Fields) -> Record:
    try:
        value = json.loads(content.decode(), parse_int=_whole)
    except UnicodeDecodeError as error:
        raise damaged(where, f"not UTF-8 at byte {error.start}", remedy) from None
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:_SHOWN]
        raise damaged(where, f"not JSON ({why})", remedy) from None
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise damaged(where, f"expected a JSON object, found {kind}", remedy)
    if found := shapes.fault(value, shape):
        raise damaged(where, found, remedy)
    return value


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _check_settings(values: Record, path: Path, field: str, remedy: str) -> None:
    if found := shapes.settings_fault(values, field):
        raise damaged(path, found, remedy)


def _selection(path: Path, remedy: str) -> Record | None:
    selection = read_object(path, remedy, shapes.SELECTION)
    if selection and (metric := selection.get("metric")):
        for i, epoch in enumerate(selection["epochs"]):
            found = shapes.fault(epoch.get(metric, 0), shapes.NUMBER, f"epochs[{i}].{metric}")
            if found:
                raise damaged(path, found, remedy)
    return selection


def _last_of_each_step(metrics: list[Record], split: str) -> list[Record]:
    """A resumed run repeats the steps after its last checkpoint: the later record counts."""
    by_step = {record["step"]: record for record in metrics if record["split"] == split}
    return [by_step[step] for step in sorted(by_step)]


_ARM = r"(?P<arm>best|latest|step(?P<step>[0-9]+)|base(\.(?P<shots>[0-9]+)shot)?)"
_RESULT = re.compile(rf"{_ARM}\.(?P<suite>suite\.)?(?P<set>.+)\.json", re.DOTALL)
_NOT_OURS = re.compile(r"(judge|lm)\..*", re.DOTALL)  # of sft eval judge and lm


def _read_evals(folder: Path, again: str) -> tuple[dict, dict, dict]:
    evals, predictions, suites = {}, {}, {}
    if folder.exists() and not folder.is_dir():
        raise damaged(
            folder, "expected a directory, found a file", f"Remove it and run `sft eval {again}`."
        )
    for path in sorted(folder.glob("*.json")):
        if _NOT_OURS.match(path.name):
            continue
        name = _RESULT.fullmatch(path.name)
        if not name:
            raise damaged(path, "not a name that `sft eval` gives a result", _AWAY)
        if name["suite"]:
            record = _read_suite(path, _remedy([path.name], f"eval suite {again}", name))
            suites[record["arm"], record["suite"]] = record
            continue
        beside = path.with_name(path.stem + ".predictions.jsonl")
        remedy = _remedy([path.name, beside.name], f"eval {again}", name)
        record = _read_eval(path, remedy)
        key = record["arm"], record["set"]
        evals[key] = record
        predictions[key] = read_lines(beside, remedy, shapes.PREDICTION)
    return evals, predictions, suites


_AWAY = "Move it to another folder, or remove it."


def _remedy(files: list[str], command: str, name: re.Match) -> str:
    """What to do with the damaged files of an evaluation."""
    arm = "base" if name["arm"].startswith("base") else name["step"] or name["arm"]
    shots = f" --config.eval.shots={name['shots']}" if name["shots"] else ""
    return (
        f"Restore it, or remove {' and '.join(map(shlex.quote, files))} and run "
        f"`sft {command} --checkpoint={arm}{shots}` again, with the --config flags that it had."
    )


def _read_suite(path: Path, remedy: str) -> Record:
    record = read_object(path, remedy, shapes.SUITE)
    assert record is not None
    _check_name(path, f"{record['arm']}.suite.{record['suite']}.json")
    return record


def _read_eval(path: Path, remedy: str) -> Record:
    record = read_object(path, remedy, shapes.EVAL)
    assert record is not None
    _check_name(path, f"{record['arm']}.{record['set']}.json")
    _check_settings(record.get("settings", {}), path, "settings", remedy)
    for part in ("correct", "cut"):
        if record.get(part, 0) > record["count"]:
            found = f"field {part!r} is {record[part]}, expected at most the number of answers"
            raise damaged(path, f"{found}, {record['count']}", remedy)
    return record


def _check_name(path: Path, expected: str) -> None:
    """Otherwise one result would hide another."""
    if path.name != expected:
        raise damaged(path, f"its fields are those of {expected!a}", _AWAY)
