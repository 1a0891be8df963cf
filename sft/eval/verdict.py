"""When a difference is called one."""

import dataclasses

SIGNIFICANT = 0.05
ROUNDING = 1e-4  # nats, shares or points: less than two ways to compute the same differ by


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
    or with few rows; then it is unclear. So is what is smaller than ``ROUNDING``, however regular.
    Each difference is judged by itself: of many pairs of arms that are alike, a share
    ``significance`` is called different.

    Args:
      better: ``"higher"`` | ``"lower"``, the metric's.
    """
    if better not in ("higher", "lower"):
        raise ValueError(f"better = {better!r}: expected 'higher' or 'lower'")
    if abs(difference.value) < ROUNDING:
        return "unclear"
    if not difference.p < significance or difference.low <= 0 <= difference.high:
        return "unclear"
    return "better" if (difference.low > 0) == (better == "higher") else "worse"
