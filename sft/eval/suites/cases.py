"""What a suite is, once read: cases, their checks, and what is asked of a model judge."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from sft.data.conversation import Conversation, Turn

KINDS = ("success", "failure", "boundary")


@dataclasses.dataclass(frozen=True)
class Check:
    """One condition on an answer.

    Attributes:
      name: as in the suite, such as ``contains``.
      wanted: what the suite says, as JSON.
      fault: what is wrong with an answer, or ``None``; ``None`` itself where a judge decides.
    """

    name: str
    wanted: Any
    fault: Callable[[str], str | None] | None


@dataclasses.dataclass(frozen=True)
class Case:
    """One prompt, and what its answer must be.

    Attributes:
      kind: ``success``: what the model is for. ``failure``: what it must not do or must refuse.
        ``boundary``: where one ends and the other starts.
      turns: start and end with the user.
      checks: all must hold.
      where: ``path:line``.
      key: digits that change with anything that is asked or expected: the same case in two results.
      note: for people.
    """

    id: str
    kind: str
    turns: tuple[Turn, ...]
    system: str | None
    checks: tuple[Check, ...]
    where: str
    key: str
    note: str = ""

    @property
    def conversation(self) -> Conversation:
        return Conversation(self.turns, self.system, self.where)


@dataclasses.dataclass(frozen=True)
class Suite:
    """A file of cases.

    Attributes:
      name: the file's, up to its first dot; results are kept by it.
      max_new_tokens: cap on the answers; 0 = ``config.eval.max_new_tokens``.
    """

    name: str
    path: str
    description: str
    max_new_tokens: int
    cases: tuple[Case, ...]


@dataclasses.dataclass(frozen=True)
class JudgeCase:
    """An answer, and the criterion in words that a model judge is to hold it against."""

    id: str
    system: str | None
    turns: tuple[Turn, ...]
    answer: str
    criterion: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Attributes: ``passed``: ``None`` where the judge gave no verdict. ``why``: one line."""

    passed: bool | None
    why: str


Judge = Callable[[Sequence[JudgeCase]], Sequence[Verdict]]  # one verdict for each case, in order
