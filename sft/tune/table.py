"""The starting points of Google Cloud's guide to supervised fine-tuning (January 2025), as a table.

The guide gives epochs, a multiplier of the learning rate, and the adapter size (LoRA rank) for two
tiers of Gemini. Here the tier is that of the Gemma model, and the multiplier is of ``base_rate``.
Where the guide gives a direction and no number ("more when fewer"), ``look_up`` says by which rule
one was made.
"""

import dataclasses
import math

from sft.errors import UserError
from sft.model.specs import Spec

EXAMPLES = 1000  # from so many on a set is large
CONTEXT = 500  # tokens of an example, in the mean: from so many on a set is large too
PRO = 3072  # width from which a model counts as Pro: Gemma 2 9B and 27B, Gemma 3 12B and 27B
MODALITIES = ("text", "image", "audio")
MANY = 10 * EXAMPLES  # "default or 5" is 5 below, the default from here on


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the guide.

    Attributes:
      tier: ``pro`` | ``flash``.
      is_large: at least ``EXAMPLES`` examples or a mean context of at least ``CONTEXT``; ``None`` =
        the guide makes no difference.
      epochs: ``None`` = the default.
      by_size: that the guide asks for more epochs with fewer examples.
      multiplier: ``None`` = the default, 1.
      or_default: that the guide leaves the choice between the multiplier and the default.
    """

    tier: str
    modality: str
    is_large: bool | None
    epochs: int | None
    multiplier: float | None
    adapter: int
    by_size: bool = False
    or_default: bool = False

    @property
    def name(self) -> str:
        """``flash, text, < 1,000 examples and mean context < 500``."""
        size = {
            None: "any size",
            False: f"< {EXAMPLES:,} examples and mean context < {CONTEXT}",
            True: f"≥ {EXAMPLES:,} examples or mean context ≥ {CONTEXT}",
        }
        return f"{self.tier}, {self.modality}, {size[self.is_large]}"


ROWS = (
    Row("pro", "text", False, epochs=20, multiplier=10, adapter=4),
    Row("pro", "text", True, epochs=10, multiplier=5, adapter=4, or_default=True),
    Row("pro", "image", None, epochs=15, multiplier=5, adapter=4, by_size=True),
    Row("pro", "audio", None, epochs=20, multiplier=1, adapter=4),
    Row("flash", "text", False, epochs=None, multiplier=10, adapter=4),
    Row("flash", "text", True, epochs=None, multiplier=None, adapter=8),
    Row("flash", "image", False, epochs=15, multiplier=5, adapter=16, by_size=True),
    Row("flash", "image", True, epochs=15, multiplier=None, adapter=4, by_size=True),
    Row("flash", "audio", None, epochs=20, multiplier=1, adapter=4),
)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the table says of one data set.

    Attributes:
      epochs: ``None`` = the default of the configuration.
      multiplier: of ``base_rate``.
      rules: how numbers were made that the guide does not give, a sentence each.
    """

    row: Row
    epochs: int | None
    multiplier: float
    adapter: int
    rules: tuple[str, ...]


def tier(spec: Spec) -> str:
    """``pro`` for the larger Gemma models, ``flash`` for the smaller."""
    return "pro" if spec.embed >= PRO else "flash"


def base_rate(spec: Spec) -> float:
    """The learning rate that a multiplier of 1 means: 1e-4 · √(2000 / width), two digits.

    Five times as much is what Schulman et al., *LoRA Without Regret* (2025), found best for LoRA at
    a width of 2000 (ten times the 5e-5 of full tuning). They fitted powers of the width from -0.08
    to -0.78 for two families of models, between which -0.5 lies. So the guide's 10 is twice that
    rate, for few examples, and its default a fifth, for many.
    """
    rate = 1e-4 * math.sqrt(2000 / spec.embed)
    return float(f"{rate:.1e}")


def look_up(tier: str, modality: str, examples: int, context: float) -> Choice:
    """The row for a data set, and its numbers.

    Args:
      examples: training examples.
      context: mean tokens of one.

    Raises:
      UserError: no such modality, or no examples.
    """
    if modality not in MODALITIES:
        raise UserError(f"modality {modality!r}: expected one of {', '.join(MODALITIES)}.")
    if examples < 1:
        raise UserError("no training examples: nothing can be recommended.")
    is_large = examples >= EXAMPLES or context >= CONTEXT
    (row,) = [
        row
        for row in ROWS
        if (row.tier, row.modality) == (tier, modality) and row.is_large in (None, is_large)
    ]
    epochs, multiplier, rules = row.epochs, row.multiplier, []
    if row.by_size and epochs:
        epochs = by_size(epochs, examples, row.is_large)
        rules.append(
            f"epochs: {row.epochs} at {EXAMPLES:,} examples, and as the square root of their "
            "number falls, from a third to three times as many"
        )
    if row.or_default:
        if examples >= MANY:
            multiplier = None
        rules.append(
            f"multiplier: the guide leaves it between {row.multiplier} and the default; "
            f"{row.multiplier} below {MANY:,} examples, the default from there on"
        )
    return Choice(row, epochs, float(multiplier or 1), row.adapter, tuple(rules))


def by_size(epochs: int, examples: int, is_large: bool | None) -> int:
    """``epochs`` at ``EXAMPLES`` examples, half as many for four times the examples.

    Never on the other side of ``epochs`` than the guide says: a small set has at least so many
    (also one that is large for its context), a large one at most.
    """
    found = round(epochs * math.sqrt(EXAMPLES / examples))
    found = min(max(found, math.ceil(epochs / 3)), 3 * epochs)
    if is_large is None:
        return found
    return min(found, epochs) if is_large else max(found, epochs)
