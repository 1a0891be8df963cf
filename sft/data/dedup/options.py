"""How a training set is deduplicated."""

import dataclasses
from typing import Any

from sft.data.dedup.substring import ACTIONS
from sft.data.dedup.substring import Options as Repeats
from sft.errors import UserError

LEAKAGE = ("drop", "error", "report")


@dataclasses.dataclass(frozen=True)
class Options:
    """``config.data.dedup`` and ``config.data.leakage``.

    Attributes:
      exact: drop rows that say the same as an earlier one.
      case, punctuation: what differs in these only is the same.
      responses_per_prompt: different answers kept of one prompt; 0 = all.
      near: Jaccard similarity from which rows are near-duplicates; 0 = not looked for.
      substring: tokens of a repeated stretch of an answer; 0 = not looked for.
      engine, scope, keep, max_copies, template_share, template_rows, memory, beam: see
        ``substring.Options``.
      action: ``mask`` | ``cut`` | ``drop`` | ``report``, and
      drop_share, min_trained: see ``substring.policy``.
      leakage: ``drop`` the training row; ``error`` and ``report`` keep it and tell.

    Raises:
      UserError: a value that cannot be used.
    """

    exact: bool = True
    case: bool = False
    punctuation: bool = False
    responses_per_prompt: int = 0
    near: float = 0.8
    substring: int = 50
    engine: str = "suffix_array"
    scope: str = "group"
    keep: str = "first"
    max_copies: int = 1
    action: str = "mask"
    drop_share: float = 0.8
    min_trained: int = 8
    template_share: float = 0.05
    template_rows: int = 10
    leakage: str = "drop"
    memory: int = 2**30
    beam: str = ""

    def __post_init__(self) -> None:
        for name in ("responses_per_prompt", "substring", "min_trained"):
            self._check(name, getattr(self, name) >= 0, "0 or more")
        self._check("near", 0 <= self.near <= 1, "0 to 1")
        self._check("drop_share", 0 < self.drop_share <= 1, "above 0, at most 1")
        self._check("action", self.action in ACTIONS, f"one of {ACTIONS}")
        self._check("leakage", self.leakage in LEAKAGE, f"one of {LEAKAGE}")
        self.repeats()

    def repeats(self) -> Repeats:
        """For ``substring``."""
        return Repeats(
            length=self.substring or 1,
            engine=self.engine,
            scope=self.scope,
            keep=self.keep,
            max_copies=self.max_copies,
            template_share=self.template_share,
            template_rows=self.template_rows,
            memory=self.memory,
            beam=self.beam,
        )

    def _check(self, name: str, is_right: bool, expected: str) -> None:
        if not is_right:
            key = "leakage.action" if name == "leakage" else f"dedup.{name}"
            raise UserError(f"config.data.{key} = {getattr(self, name)!r}: expected {expected}.")

    def decisive(self) -> dict[str, Any]:
        """What can change a plan; the others decide only how it is made."""
        values = dataclasses.asdict(self)
        how = ("engine", "memory", "beam")
        return {name: value for name, value in values.items() if name not in how}
