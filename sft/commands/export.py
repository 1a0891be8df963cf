"""``sft export``: a checkpoint in formats that others read, each checked before it is there."""

import contextlib
import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft.errors import UserError
from sft.export import base as base_lib
from sft.export import card, formats, publish, verify
from sft.export import tuned as tuned_lib
from sft.export.formats import Format
from sft.export.verify import Difference
from sft.run import bucket
from sft.session import Session


def main(
    config: ConfigDict,
    workdir: str,
    checkpoint: str,
    format: Sequence[str],
    dtype: str,
    out: str,
    base: str,
    overwrite: bool,
) -> dict[str, Any]:
    """Writes ``OUT/FORMAT`` for each of the formats.

    Each is written beside its place, read back and compared with the checkpoint; when all are
    right, they are moved there. What is there is whole, and the same command can be run again.

    Args:
      checkpoint: ``best``, ``latest`` or a step.
      format: names of formats.
      dtype: of merged weights; ``""`` = the first of each format.
      out: ``""`` = ``export`` in the run directory.
      base: what the base model is called on Hugging Face; ``""`` = as ``config.model.weights``
        tells, where it does.
      overwrite: takes the place of an earlier export.

    Returns:
      ``{format: {"path", "checkpoint", "dtype", "checked": {what: {"largest", "mean", "kl",
      "agreement"}}}}``.

    Raises:
      UserError: no such format or checkpoint, a place that is taken, a full disk, or an export
        that, read back, is not the model. Nothing is left behind.
    """
    session = Session(config, workdir, only_scores=True)
    path = session.path
    if bucket.holds(out or workdir):
        raise UserError("sft export writes to a disk: give --out=DIR there, and copy that.")
    root = Path(out or path / "export")
    base_lib.check_name(base)
    wanted = _checked(format, dtype, config, root, overwrite)
    if checkpoint == "base":
        raise UserError("--checkpoint=base: the base model is there already. Export a tuned one.")
    with publish.terminated(), contextlib.ExitStack() as pending:
        tuned = tuned_lib.load(session, checkpoint)
        origin = base_lib.of(config, tuned.spec, base)
        learnt = verify.differences(tuned, tuned.base(), {}, 1.0)
        verify.check_learnt(learnt, f"checkpoint {tuned.arm.name}")
        about = card.about(tuned, origin)
        checked: dict[str, dict[str, Difference]] = {}
        for name, (format_, kind) in wanted.items():
            folder = pending.enter_context(publish.published(root / name, overwrite))
            format_.write(tuned, folder, kind, origin.shown)
            checked[name] = dict(format_.check(tuned, folder, kind))
            said = checked[name] | {"for comparison, the base model": learnt}
            card.write(tuned, folder, format_, origin, about, said)
    for name, (format_, _) in wanted.items():
        for what, apart in checked[name].items():
            print(f"{root / name}: {what}: {verify.said(apart)}")
        print(f"wrote {root / name}: {format_.text}")
        if tuned.has_magnitudes and not format_.knows_dora:
            print(
                "  merged weights only: its library knows no DoRA. --format=peft has the adapters."
            )
    for note in _notes(tuned, origin, wanted):
        print(f"note: {note}")
    return {
        name: {
            "path": str(root / name),
            "checkpoint": tuned.arm.step,
            "dtype": kind,
            "checked": {what: dataclasses.asdict(apart) for what, apart in checked[name].items()},
        }
        for name, (_, kind) in wanted.items()
    }


def _notes(tuned: tuned_lib.Tuned, base: base_lib.Base, names: Collection[str]) -> list[str]:
    """What the exports of these formats lack, and the remedy."""
    notes = [*tuned.framing.lost]
    if not base.name:
        where = "The cards do not name it"
        if "peft" in names:
            where = f"adapter_config.json and the card have {base_lib.PLACEHOLDER} in its place"
        notes.append(
            f"The base model's name on Hugging Face is not known: config.model.weights is "
            f"{base.file}. {where}. Give --base=NAME, as in --base=google/gemma-3-270m, with "
            "--overwrite."
        )
    return notes


def _checked(
    format: Sequence[str], dtype: str, config: ConfigDict, root: Path, overwrite: bool
) -> dict[str, tuple[Format, str]]:
    """The formats, and the type of the weights of each, before anything is loaded."""
    found = {name: formats.get(name) for name in format}
    for name, format_ in found.items():
        alone = len(format_.dtypes) == 1 and len(found) > 1  # --dtype is for the others
        if dtype and dtype not in format_.dtypes and not alone:
            raise UserError(f"--dtype={dtype}: {name} is written as {', '.join(format_.dtypes)}.")
        if format_.needs_adapters and not config.lora.rank:
            raise UserError(
                f"--format={name}: the run tunes all weights (config.lora.rank = 0), so there are "
                "no adapters. Export merged weights: --format=safetensors."
            )
        publish.check_free(root / name, overwrite)
    return {
        name: (format_, dtype if dtype in format_.dtypes else format_.dtypes[0])
        for name, format_ in found.items()
    }
