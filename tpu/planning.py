"""Does each shape of a set of configurations fit the slice; each shape is compiled once."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from ml_collections import ConfigDict

from sft import config as configs
from sft.errors import DOES_NOT_FIT, DONE, DoesNotFit, UserError
from tpu.job import ROOT

# Keys that change neither the compiled step nor its memory. Whatever is not here is part of the
# shape: compiling once too often costs minutes, once too few a queue and a day.
_FREE = (
    *("seed", "optim.learning_rate", "train.epochs", "train.log_every", "train.save_every"),
    *("data.train", "data.validation", "data.test", "data.production"),
    *("data.reading.", "data.sources.", "data.split.", "data.dedup.", "data.leakage."),
    *("data.augment.", "mine.", "judge."),
)


def shape(config: ConfigDict) -> tuple[tuple[str, Any], ...]:
    """Equal for configurations whose step takes the same memory."""
    return tuple((key, value) for key, value in configs.flatten(config) if not _is_free(key))


def _is_free(key: str) -> bool:
    return any(key == free or (free.endswith(".") and key.startswith(free)) for free in _FREE)


def fit(points: Iterable[tuple[ConfigDict, Sequence[str]]], slice_name: str) -> list[dict]:
    """Plans each distinct shape, in a process of its own, and returns what ``sft plan`` says.

    Args:
      points: configurations, each with the words of the command line that make it.

    Raises:
      DoesNotFit: the first that does not; plan has said what would.
      UserError: it cannot be planned.
    """
    shapes = {shape(config): words for config, words in points}
    return [_plan(words, slice_name) for words in shapes.values()]


def _plan(words: Sequence[str], slice_name: str) -> dict:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "sft plan needs the TPU compiler, which is not installed: `source scripts/env.sh plan` "
            "installs it. --no-plan submits without knowing whether the step fits."
        )
    # As a process: it sets variables that keep TPUs from being found, and needs much memory.
    command = [sys.executable, "-m", "sft", "plan", *words, f"--slice={slice_name}", "--json"]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    result = json.loads(run.stdout.splitlines()[-1]) if run.stdout.strip() else {}
    if run.returncode == DOES_NOT_FIT:
        raise DoesNotFit(f"it does not fit {slice_name}: nothing was submitted.", result)
    if run.returncode != DONE:
        raise UserError(
            f"sft plan ended with {run.returncode}; its words are above. --no-plan submits without."
        )
    return result
