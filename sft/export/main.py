"""``sft export``: a checkpoint in formats that others read, each checked before it is there."""

import contextlib
import dataclasses
import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Generator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft import bucket
from sft import workdir as workdirs
from sft.errors import UserError
from sft.export import base as base_lib
from sft.export import card, formats, verify
from sft.export import tuned as tuned_lib
from sft.export.formats import Format


def main(
    config: ConfigDict,
    workdir: str,
    checkpoint: str,
    names: Sequence[str],
    dtype: str,
    out: str,
    base: str,
    overwrite: bool,
) -> dict[str, Any]:
    """Writes ``OUT/FORMAT`` for each of the formats.

    Each is written beside its place, read back and compared with the checkpoint, and only then
    moved there: what is there is whole and right.

    Args:
      checkpoint: ``best``, ``latest`` or a step.
      names: of the formats.
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
    path = workdirs.prepare(config, workdir)
    if not out and bucket.holds(workdir):
        raise UserError("sft export writes to a disk: give --out=DIR, and copy that.")
    root = Path(out or path / "export")
    base_lib.check_name(base)
    wanted = _checked(names, dtype, config, root, overwrite)
    if checkpoint == "base":
        raise UserError("--checkpoint=base: the base model is there already. Export a tuned one.")
    tuned = tuned_lib.load(config, path, checkpoint)
    origin = base_lib.of(config, tuned.spec, base)
    learnt = verify.differences(tuned, tuned.base(), {}, 1.0)
    verify.check_learnt(learnt, f"checkpoint {tuned.arm.name}")
    about = card.about(tuned, origin)
    found = {}
    for name, (format_, kind) in wanted.items():
        with published(root / name, overwrite) as folder:
            format_.write(tuned, folder, kind, origin.shown)
            checked = dict(format_.check(tuned, folder, kind))
            said = checked | {"for comparison, the base model": learnt}
            card.write(tuned, folder, format_, origin, about, said)
        for what, apart in checked.items():
            print(f"{root / name}: {what}: {verify.said(apart)}")
        print(f"wrote {root / name}: {format_.text}")
        if tuned.has_magnitudes and not format_.knows_dora:
            print(
                "  merged weights only: its library knows no DoRA. --format=peft has the adapters."
            )
        found[name] = {
            "path": str(root / name),
            "checkpoint": tuned.arm.step,
            "dtype": kind,
            "checked": {what: dataclasses.asdict(apart) for what, apart in checked.items()},
        }
    for note in _notes(tuned, origin, wanted):
        print(f"note: {note}")
    return found


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
    names: Sequence[str], dtype: str, config: ConfigDict, root: Path, overwrite: bool
) -> dict[str, tuple[Format, str]]:
    """The formats, and the type of the weights of each, before anything is loaded."""
    found = {name: formats.get(name) for name in names}
    for name, format_ in found.items():
        alone = len(format_.dtypes) == 1 and len(found) > 1  # --dtype is for the others
        if dtype and dtype not in format_.dtypes and not alone:
            raise UserError(f"--dtype={dtype}: {name} is written as {', '.join(format_.dtypes)}.")
        if format_.needs_adapters and not config.lora.rank:
            raise UserError(
                f"--format={name}: the run tunes all weights (config.lora.rank = 0), so there are "
                "no adapters. Export merged weights: --format=safetensors."
            )
        _check_free(root / name, overwrite)
    return {
        name: (format_, dtype if dtype in format_.dtypes else format_.dtypes[0])
        for name, format_ in found.items()
    }


def _check_free(target: Path, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise UserError(f"{target}: there already. Give --overwrite, or another --out.")


@contextlib.contextmanager
def published(target: Path, overwrite: bool) -> Generator[Path]:
    """An empty folder that becomes ``target`` when the block ends well, and is gone otherwise.

    Raises:
      UserError: the disk is full, or the place cannot be written to.
    """
    partial = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        partial.chmod(0o755)
        yield partial
        for file in partial.rglob("*"):  # some libraries write for the owner alone
            file.chmod(file.stat().st_mode | 0o444)
        _check_free(target, overwrite)  # another may have been faster
        if target.exists():
            old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
            os.replace(target, old)
            os.replace(partial, target)
            shutil.rmtree(old)
        else:
            os.replace(partial, target)
    except Exception as error:
        # Libraries say it in their own words, and not as an OSError.
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise UserError(
                f"{target}: the disk is full; nothing was left there. Free some space, or give "
                "--out=DIR on another disk."
            ) from None
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError):
            raise UserError(f"{target}: cannot be written ({error.strerror}).") from None
        raise
    finally:
        if partial:
            shutil.rmtree(partial, ignore_errors=True)
