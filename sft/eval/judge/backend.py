"""What a judge's model has to offer, wherever it runs."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came back for one prompt.

    Attributes:
      cut: it ended because ``config.judge.max_new_tokens`` was reached.
      refused: why the endpoint did not take this prompt, or ``""``. Such a reply has no text.
    """

    text: str
    tokens_in: int
    tokens_out: int
    cut: bool = False
    refused: str = ""


class Unreachable(Exception):
    """The endpoint cannot be used for now. Message: which, and what it said last."""


class Backend(Protocol):
    """A model that can be asked.

    Attributes:
      identity: JSON of whatever decides what it replies to a prompt: part of the cache's keys, and
        of the result.
    """

    identity: dict[str, Any]

    def ask(self, prompts: Sequence[str], on_reply: Callable[[int, Reply], None]) -> None:
        """Calls ``on_reply(index, reply)`` for each prompt as it comes, in any order and thread.

        Raises:
          Unreachable: some prompts have no reply; those that have one were told.
          UserError: it cannot be asked at all, as with a wrong key.
        """
        ...

    def count(self, prompts: Sequence[str]) -> int:
        """Tokens of these prompts; an endpoint's are guessed from the number of characters."""
        ...
