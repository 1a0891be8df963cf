"""What a check of the host says. ``NOTE`` is no failure."""

from typing import NamedTuple

NOTE = "note"


class Finding(NamedTuple):
    """The code of a failure, or ``NOTE``, and a sentence: what is wrong, and what to do."""

    code: str
    text: str
