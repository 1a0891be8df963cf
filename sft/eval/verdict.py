"""When a difference is called one."""

import dataclasses
from collections.abc import Sequence

import numpy as np

SIGNIFICANT = 0.05


@dataclasses.dataclass(frozen=True)
class Difference:
    """After minus before, in the metric's unit.

    Attributes:
      low, high: of the confidence interval; infinite where nothing is known about the spread.
      p: two-sided, of the hypothesis that there is no difference.
    """

    value: float
    low: float
    high: float
    p: float


def verdict(difference: Difference, better: str, significance: float = SIGNIFICANT) -> str:
    """``"better"`` | ``"worse"`` | ``"unclear"``: what may be said of the second arm.

    Both must agree that it is not chance: p is below ``significance``, and the interval lies on one
    side of 0. They come from different approximations and may contradict each other at the border
    or with few rows; then it is unclear. Several differences tried at once: give each the p that
    ``holm`` makes of it.

    Args:
      better: ``"higher"`` | ``"lower"``, the metric's.
    """
    if better not in ("higher", "lower"):
        raise ValueError(f"better = {better!r}: expected 'higher' or 'lower'")
    if not difference.p < significance or difference.low <= 0 <= difference.high:
        return "unclear"
    return "better" if (difference.low > 0) == (better == "higher") else "worse"


def holm(ps: Sequence[float]) -> list[float]:
    """The p values of several comparisons, raised so that all together err as rarely as one.

    The chance of calling even one difference that is none stays below the level, however the
    comparisons depend on one another. Source: Holm (1979), *Scand. J. Statist.* 6:65-70.
    """
    raised = np.zeros(len(ps))
    order = np.argsort(ps, kind="stable")
    factors = np.arange(len(ps), 0, -1)
    raised[order] = np.minimum(np.maximum.accumulate(np.asarray(ps)[order] * factors), 1)
    return raised.tolist()
