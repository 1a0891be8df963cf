"""How numbers are shown: one form for one quantity, in every line, table and page.

Shares are in per cent with one decimal, differences of shares in points; losses have four decimals;
BLEU and chrF, from 0 to 100, have one; a p-value has four. A metric of the user's own has four
significant digits. An end of an interval that is not known is called so.
"""

import math

_SHARES = frozenset(
    "exact_match exact_match_normalised accuracy macro_f1 micro_f1 token_f1 rouge1 rouge2 rougeL "
    "json_valid json_fields regex_match numeric_match token_accuracy label_accuracy "
    "label_accuracy_norm label_macro_f1 cut pass_rate win_rate".split()
)
_DIGITS = {"loss": ".4f", "bleu": ".1f", "chrf": ".1f"}
_NAMES = {"bleu": "BLEU", "chrf": "chrF", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2"}
_NAMES |= {"rougeL": "ROUGE-L", "label_accuracy_norm": "label accuracy per character"}
_UNKNOWN = "unknown"


def share(value: float) -> str:
    """``96.5 %``."""
    return f"{100 * value:.1f} %"


def points(difference: float) -> str:
    """A difference of two shares: ``+76.7``."""
    return f"{100 * difference:+.1f}"


def is_share(metric: str) -> bool:
    """Whether the metric is one from 0 to 1 that is shown in per cent."""
    return metric in _SHARES


def score(value: float | None, metric: str) -> str:
    """A value of a metric; ``None`` and what is not finite are unknown."""
    if value is None or not math.isfinite(value):
        return _UNKNOWN
    return share(value) if is_share(metric) else format(value, _DIGITS.get(metric, ".4g"))


def change(value: float | None, metric: str) -> str:
    """A difference of two values of a metric, always with its sign; of shares in points."""
    if value is None or not math.isfinite(value):
        return _UNKNOWN
    if is_share(metric):
        return points(value)
    return format(value, "+" + _DIGITS.get(metric, ".4g"))


def interval(low: float | None, high: float | None, metric: str) -> str:
    """``94.2 to 97.9 %``, ``0.0105 to 0.0139``, ``0.0000 to unknown``."""
    bounds = [score(bound, metric) for bound in (low, high)]
    if bounds == [_UNKNOWN, _UNKNOWN]:
        return _UNKNOWN
    unit = " %" if all(bound.endswith(" %") for bound in bounds) else ""
    return f"{bounds[0].removesuffix(unit)} to {bounds[1]}"


def p_value(p: float) -> str:
    """``p = 0.0123``, ``p < 0.0001``."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"


def name(metric: str) -> str:
    """A metric as a person calls it: ``exact match``, ``macro F1``, ``BLEU``."""
    return _NAMES.get(metric) or metric.replace("_", " ").replace(" f1", " F1")


def counted(count: int, thing: str, plural: str = "") -> str:
    """``1 answer``, ``1,200 answers``."""
    return f"{count:,} {thing if count == 1 else plural or thing + 's'}"
