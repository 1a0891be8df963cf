"""What training puts around a conversation: the system instruction, and the template of prompts.

``sft chat`` and the exports put the same there, so that a model is asked the way it was trained.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft.data.conversation import Reading, template_parts
from sft.data.sets import sources
from sft.run.directory import read_json

NOTHING = ("", "")  # around a prompt without a template


@dataclasses.dataclass(frozen=True)
class Framing:
    """Attributes:
    system: the instruction of a conversation that brings none; ``""`` = none.
    around: the texts before and after the first prompt; a template that repeats the prompt has
      more than two, and the prompt stands between each two of them.
    lost: what training did that this cannot express, one sentence each.
    """

    system: str = ""
    around: tuple[str, ...] = NOTHING
    lost: tuple[str, ...] = ()

    def prompt(self, text: str) -> str:
        """The first turn of the user, inside the template."""
        return text.join(self.around)


def of(config: ConfigDict, path: Path) -> Framing:
    """The framing of the training rows of a run.

    Where all of its rows had one system instruction, it is that one, wherever it came from;
    otherwise the one that ``reading.instruction`` gives to rows without.

    Args:
      path: the run directory; its ``data/report.json`` says what the rows had.
    """
    readings = _readings(config)
    around, lost = _around(readings)
    system, more = _system(readings, _counted(path))
    return Framing(system, around, (*lost, *more))


def _readings(config: ConfigDict) -> list[Reading]:
    if not config.data.train:
        return [Reading(**config.data.reading)]
    return [source.reading for source in sources.listed(config, "train")]


def _counted(path: Path) -> dict[str, Any] | None:
    """``system`` of the training rows, or ``None`` where it was not counted."""
    report = path / "data" / "report.json"
    counts = read_json(report) if report.exists() else {}
    return counts.get("sets", {}).get("train", {}).get("system")


def _around(readings: Sequence[Reading]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The texts around the prompt, and what is lost of them."""
    found = {_literals(one.template): one.template for one in readings}
    if len(found) > 1:
        shown = ", ".join(repr(template) if template else "none" for template in found.values())
        return NOTHING, (
            f"The training sources have different templates ({shown}), so none is put around a "
            "prompt: put the one of its source around it.",
        )
    ((literals, template),) = found.items()
    if literals is None:
        return NOTHING, (
            f"The template of the training prompts ({template!r}) is made of other columns than "
            "the prompt, so none is put around a prompt: write the prompt by the template.",
        )
    return literals, ()


def _literals(template: str) -> tuple[str, ...] | None:
    """The texts around each ``{prompt}``; ``None`` where the template has other columns."""
    if not template:
        return NOTHING
    literals = [""]
    for literal, name in template_parts(template):
        literals[-1] += literal
        if name and name != "prompt":
            return None
        if name:
            literals.append("")
    return tuple(literals)


def _system(
    readings: Sequence[Reading], counted: dict[str, Any] | None
) -> tuple[str, tuple[str, ...]]:
    """The default system instruction, and what is lost of it."""
    if counted and counted["same"]:
        return counted["text"] or "", ()
    given = list(dict.fromkeys(one.instruction for one in readings))
    if len(given) > 1:
        shown = ", ".join(repr(text) if text else "none" for text in given)
        return "", (
            f"The training sources have different system instructions ({shown}), so there is no "
            "default: give the one of its source with each conversation.",
        )
    if given[0]:
        return given[0], ()
    if counted:
        return "", (
            "The training conversations had different system instructions, so there is no default: "
            "give one with each conversation.",
        )
    return "", (
        "It is not known whether all training conversations had one system instruction, because "
        "data/report.json was made by an earlier version: run `sft data` first.",
    )
