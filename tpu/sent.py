"""What a configuration names, and a TPU host would not find. The repository is what is sent."""

import glob
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from sft.errors import UserError
from tpu.job import ROOT

_SETS = ("data.train", "data.validation", "data.test", "data.production")
_FILES = ("model.weights", "model.tokenizer", "data.augment.templates", "eval.suites")


def config_file(path: str) -> str:
    """The path of a configuration in the repository.

    Raises:
      UserError: it lies elsewhere, or git ignores it.
    """
    whole = Path(path).resolve()
    if not whole.is_relative_to(ROOT) or _is_ignored(whole):
        raise UserError(
            f"--config={path}: not among the files of {ROOT} that git does not ignore, which are "
            "what is sent to the TPU. Put it into configs/."
        )
    return whole.relative_to(ROOT).as_posix()


def check(config: ConfigDict) -> None:
    """Checks every file that training and evaluation read.

    Raises:
      UserError: names the key, and all files that would be missing.
    """
    missing = [f"{key} = {path}" for key, path in _named(config) if not _is_sent(path)]
    if missing:
        raise UserError(
            f"{'; '.join(missing)}: a TPU host would not find this. What is sent are the files of "
            "the repository that git does not ignore; put others into a bucket, and name them as "
            "gs://…."
        )


def extras(config: ConfigDict) -> tuple[str, ...]:
    """Extras that a host needs: the weights may come as a package."""
    return ("tpu", "demo") if config.model.weights.startswith("package:") else ("tpu",)


def _named(config: ConfigDict) -> Iterator[tuple[str, str]]:
    for key in _SETS + _FILES:
        group, _, leaf = key.rpartition(".")
        value = config
        for part in group.split("."):
            value = value[part]
        for text in value[leaf].split(",") if value[leaf] else ():
            of_source = config.data.sources.get(text.strip()) if key in _SETS else None
            yield key, of_source["path"] if of_source else text.strip()


def _is_sent(path: str) -> bool:
    """Absolute paths are taken to be meant: an image or a mounted disk may have them."""
    if "://" in path or path.startswith(("package:", "/", "~")):
        return True
    found = glob.glob(path, root_dir=ROOT, recursive=True)
    return bool(found) and not any(_is_ignored(ROOT / each) for each in found)


def _is_ignored(path: Path) -> bool:
    try:
        run = subprocess.run(
            ["git", "-C", str(ROOT), "check-ignore", "--quiet", "--", str(path)],
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        return False  # without git nothing is left out
    return run.returncode == 0
