"""Numbers in a text, read exactly.

The *last* number counts: an answer may reason before it concludes (GSM8K is scored so too).
"""

import decimal
import re
import unicodedata
from decimal import Decimal

_NUMBER = re.compile(
    r"""(?P<sign>(?<![A-Za-z0-9)])[-+−]\s?)?   # 3-5 is no -5
        [$€£¥₹]?\s?
        (?P<digits>\d+(?:[.,]\d+)*|(?<![\w.])\.\d+)
        (?:e(?P<power>[-+−]?\d{1,4})(?!\d))?
        (?P<percent>\s?%)?""",
    re.VERBOSE | re.IGNORECASE,
)
_GROUPS = re.compile(r"(?!0)\d{1,3}(?:([.,])\d{3})(?:\1\d{3})*")


def last(text: str) -> Decimal | None:
    """The last number of a text; ``None`` if there is none.

    Read are: a sign (- − +) that does not follow a letter, digit or closing bracket, ``1,234.5``,
    ``.5``, ``1e-3``, ``12 %`` (0.12), a currency sign before the digits, digits of any script and
    width. A comma that cannot group thousands is a decimal comma: ``1,5``; ``1.234,5`` and
    ``1.234.567`` are read as well, and ``1,234`` is a thousand. Not read: fractions, words, and
    digits with other separators (``2024.01.05`` is no number).
    """
    found = None
    for match in _NUMBER.finditer(unicodedata.normalize("NFKC", text)):
        plain = _plain(match["digits"])
        if plain is None:
            continue
        sign = (match["sign"] or "").strip().replace("−", "-")
        power = int((match["power"] or "0").replace("−", "-")) - (2 if match["percent"] else 0)
        found = Decimal(f"{sign}{plain}e{power}")
    return found


def close(predicted: Decimal | None, expected: Decimal | None, tolerance: float) -> bool:
    """Whether they differ by at most ``tolerance`` × abs(expected); 0 = exactly equal.

    As ``math.isclose`` relative to the expected number alone; nothing but 0 is close to 0.
    """
    if predicted is None or expected is None:
        return False
    if predicted == expected:
        return True
    with decimal.localcontext(decimal.Context(traps=[])):  # too large: infinite, no error
        allowed = Decimal(repr(float(tolerance))) * abs(expected)
        return abs(predicted - expected) <= allowed < Decimal("Infinity")


def _plain(digits: str) -> str | None:
    """Digits with at most one decimal point; ``None`` if the separators make no number."""
    separators = [char for char in digits if char in ".,"]
    if separators in ([], ["."]):
        return digits
    if len(set(separators)) == 2:  # the last one is the decimal point
        whole, _, fraction = digits.rpartition(separators[-1])
        return f"{re.sub('[.,]', '', whole)}.{fraction}" if _GROUPS.fullmatch(whole) else None
    if _GROUPS.fullmatch(digits):
        return digits.replace(separators[0], "")
    return digits.replace(",", ".") if separators == [","] else None
