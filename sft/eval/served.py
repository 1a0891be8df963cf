"""What training put around every prompt, so that a prompt that is typed gets the same."""

import dataclasses
import itertools
from collections.abc import Iterator

from ml_collections import ConfigDict

from sft import display, sources
from sft.data import files, schemas
from sft.data.conversation import Conversation, Reading, Reject, template_parts
from sft.data.records import Source
from sft.errors import UserError

LOOKED_AT = 1000  # rows of each source


@dataclasses.dataclass(frozen=True)
class Served:
    """What a first prompt is sent with.

    Attributes:
      system: instruction; ``None`` = none.
      template: around the first prompt, with no other column than ``{prompt}``; ``""`` = none.
      notes: where both are from, a sentence each, and what could not be done as in training.
    """

    system: str | None
    template: str
    notes: tuple[str, ...]

    def conversation(self, text: str, system: str | None) -> Conversation:
        """A first turn of the user as a training row of this prompt would have it."""
        reading = Reading(template=self.template)
        typed = {reading.prompt: text}
        read, _ = schemas.parse(typed, "the terminal", reading, answers=False)
        return Conversation(read.turns, system, read.source)


def find(config: ConfigDict) -> Served:
    """From the settings of the training rows and, where they are here, the first of these rows."""
    readings = [source.reading for source in _sources(config)]
    template, notes = _template(readings)
    try:
        rows = [row for source in _sources(config) for row in _first(source)]
    except UserError as error:
        notes.append(f"the training rows are not here ({error})")
        rows = []
    found = dict.fromkeys(row.system for row in rows)
    if not found:
        found = dict.fromkeys(reading.instruction or None for reading in readings)
    if len(found) == 1:
        system = next(iter(found))
        of = f"the first {len(rows):,} training rows" if rows else "config.data.reading"
        said = f"system instruction of {of}: {system!r}" if system else "no system instruction"
        return Served(system, template, (f"{said}, as in training", *notes))
    count = display.counted(len(found), "different system instruction")
    notes.append(f"no system instruction, as training rows have {count}; choose one with /system")
    return Served(None, template, tuple(notes))


def _sources(config: ConfigDict) -> list[Source]:
    """Those of the training set; without one the settings that all sources have in common."""
    if config.data.train:
        return sources.listed(config, "train")
    return [Source("", "", Reading(**config.data.reading))]


def _template(readings: list[Reading]) -> tuple[str, list[str]]:
    """The one template of all sources, and what is to be said of it."""
    found = list(dict.fromkeys(reading.template for reading in readings))
    if len(found) > 1:
        listed = ", ".join(map(repr, found))
        return "", [f"no template, as training has several ({listed}): type prompts as they are"]
    template = found[0]
    if not template:
        return "", []
    others = [name for _, name in template_parts(template) if name and name != "prompt"]
    if others:
        return "", [
            f"no template: that of training, {template!r}, needs {', '.join(others)}, which cannot "
            "be typed. Type the whole prompt as it makes it"
        ]
    return template, [f"first prompts are put into the template of training, {template!r}"]


def _first(source: Source) -> Iterator[Conversation]:
    """The first usable rows of a source."""
    if not source.path:
        return
    left = LOOKED_AT
    for path in files.expand(source.path):
        for number, row in itertools.islice(files.rows(path, source.reading.container), left):
            left -= 1
            if not isinstance(row, Reject):
                try:
                    yield schemas.parse(row, f"{path}:{number}", source.reading)[0]
                except Reject:
                    continue
        if left <= 0:
            return
