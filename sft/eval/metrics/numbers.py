"""Numbers in a text, read exactly.

The *last* number counts: an answer may reason before it concludes (GSM8K is scored so too).
"""

import decimal
import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction

from sft.eval.metrics.folding import SPACED_LETTER, upright, visible

Number = Decimal | Fraction

# The decimal sign, which says what 1,234 and 1.234 are; EITHER: it cannot be told.
POINT, COMMA, EITHER = ".", ",", "?"

_MONEY = "$¢£¤¥֏؋৳฿៛₠-⃀﷼"
_CODES = "USD|EUR|GBP|JPY|CNY|INR|CHF|AUD|CAD|NZD|SGD|HKD|KRW|SEK|NOK|DKK|PLN|CZK|HUF|RUB|BRL|Rs|kr"
_ALONE = rf"(?<!{SPACED_LETTER})(?<![\d)\]}}])"  # a hyphen after these is no sign: 3-5, (1)-2, A-4
# What ties digits to digits: with it they are one number, or something that is not read as one.
_TIE = rf"(?:[.,'·٬٫]|_+|[ \t]+|[ ]?/[ ]?[-+]?|[:^*×÷\\{{}}]+[-+]?|{SPACED_LETTER}+[-+]?)"
_NUMBER = re.compile(
    rf"(?P<before>(?<!\d)%\s?)?(?:{_ALONE}(?P<sign>[-+±])\s?)?(?:[{_MONEY}]\s?)?"
    rf"(?P<digits>(?:(?<![\w.])\.)?\d+(?:{_TIE}\d+)*)"
    r"(?P<percent>\s?[%‰‱٪])?(?P<unit> ?\w*)"
)
_PERCENT = {"%": 2, "٪": 2, "‰": 3, "‱": 4}
# How numbers go on that are partly in words: 2 million, 5万, 10k.
_WORDS = re.compile(
    r"[kKMB]\b| ?(?i:hundred|thousand|million|milliard|miliard|miljard|mill[oó]n|milh|milj"
    r"|bil+i?[oó]n|tril+i?[oó]n|mil\b|mn\b|bn\b|mio\b|mln\b|mrd\b|mld\b|tausend|lakh|crore"
    r"|тыс|млн|млрд|миллион|миллиард|[十百千万萬億亿兆백천만억조])"
)
_NOTHING = "\0"  # instead of what has digits and is not a number
_SPELLINGS = [
    (r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}", r" \1/\2"),  # LaTeX
    (r"\{,\}", ","),
    (r"\\[,;: ]", " "),
    (r"\\([%$])", r"\1"),
    (r"\\(?:times|cdot)\b", "×"),
    (r"\^\{([-+]?\d+)\}", r"^\1"),
    (r"(?<=\d)\s?[x×*·]\s?10\s?(?:\^|\*\*)\s?([-+]?\d+)", r"e\1"),  # powers of ten
    (r"(?<![\w.,^])10\s?(?:\^|\*\*)\s?([-+]?\d+)", r"1e\1"),
    (rf"\b(?:{_CODES})(?=[-+]?\d)", " "),
    (r"\+/-", "±"),
    (r"(?<=\d)-(?=\d+/\d)", "^"),  # 5-1/2 may be 5½, and is not read
    (rf"(?<!{SPACED_LETTER})(?<!\d){SPACED_LETTER}+\d\w*", _NOTHING),  # CO2, m2, Q3
    (r"(?<![\d-])\d+-\d+-\d+(?:T[\d:.]+)?", _NOTHING),  # dates, times and versions
    (r"(?<!\d)\d+/\d+/\d+", _NOTHING),
    (r"(?<!\d)\d+(?::\d+)+(?:[.,]\d+)?", _NOTHING),
    (r"(?<![\d.])(?![1-9]\d{0,2}(?:\.\d{3})+(?![\d.]))\d+(?:\.\d+){2,}(?![\d,])", _NOTHING),
]
_REWRITTEN = [(re.compile(pattern), instead) for pattern, instead in _SPELLINGS]
_GROUPED = r"[1-9]\d{0,2}(?P<group>[ '_٬.,])\d{3}(?:(?P=group)\d{3})*|[1-9]\d?(?:,\d{2})+,\d{3}"
_PLAIN = re.compile(rf"(?P<whole>{_GROUPED}|\d*)(?:(?P<point>[.,٫])(?P<fraction>\d+))?")
_EITHER = re.compile(r"[1-9]\d{0,2}[.,]\d{3}")
_FRACTION = re.compile(r"(?:(?P<whole>\d{1,99}) )?(?P<top>\d{1,99}) ?/ ?(?P<bottom>\d{1,99})")
_POWER = re.compile(r"[-+]?\d{1,4}")


def last(text: str, decimal_sign: str = POINT) -> Number | None:
    """The last number of a text; ``None`` if there is none, or it cannot be read as one number.

    Read are, in digits of any script and width:

    - groups of three with one kind of separator: a space of any width, an apostrophe (' ’), an
      underscore, a point or a comma; and Indian groups (12,34,567);
    - a decimal point or comma, or Arabic's ٫: 3.5, 3,5, .5, 1,234.5, 1.234,5, 1 234,5. Where the
      one separator in a number could be either, 1,234 and 1.234, ``decimal_sign`` says which it is;
    - a sign - − – or + that is not after a letter, digit or closing bracket; a currency sign;
    - fractions and mixed numbers (1/2, ½, 2½, 2 1/2, LaTeX's \\frac);
    - powers of ten (1e-3, 2 × 10^3, 2·10³), per cent (12 % and %12 are 0.12), per mille.

    What stands around it, such as a unit or a comparison sign, is not looked at. Passed over, as
    something else: digits after a letter (CO2, m², Q3), dates, times, versions. ``None`` is what
    other digits are that hang together: 1 2 3, 1,2,3, 20 00, 1920x1080, 2^10, ±5, 3/0; and numbers
    partly in words: 2 million, 5万, 10k. In words alone there is no number.

    Args:
      decimal_sign: ``POINT``, ``COMMA``, or ``EITHER``: 1,234 and 1.234 are then ``None``.
    """
    found = [*_NUMBER.finditer(_typed(text))]
    return _value(found[-1], decimal_sign) if found else None


def convention(texts: Iterable[str]) -> str:
    """The decimal sign of these texts, by their numbers that can be read in one way alone.

    ``POINT`` where none tells; ``EITHER`` where some have a decimal point and some a decimal comma.
    """
    signs = set()
    for text in texts:
        for found in _NUMBER.finditer(_typed(text)):
            _, shown = _plain(found["digits"].lower().partition("e")[0], EITHER)
            signs |= {shown} if shown else set()
    return EITHER if len(signs) > 1 else next(iter(signs), POINT)


def close(predicted: Number | None, expected: Number | None, tolerance: float) -> bool:
    """Whether they differ by at most ``tolerance`` × abs(expected); 0 = exactly equal.

    As ``math.isclose`` relative to the expected number alone; nothing but 0 is close to 0.
    """
    if predicted is None or expected is None:
        return False
    if predicted == expected:
        return True
    if isinstance(predicted, Fraction) or isinstance(expected, Fraction):
        ours, theirs = Fraction(predicted), Fraction(expected)
        return abs(ours - theirs) <= Fraction(repr(float(tolerance))) * abs(theirs)
    with decimal.localcontext(decimal.Context(traps=[])):  # too large: infinite, no error
        allowed = Decimal(repr(float(tolerance))) * abs(expected)
        return abs(predicted - expected) <= allowed < Decimal("Infinity")


def _typed(text: str) -> str:
    """The text with one spelling for each thing, and without digits that are no number."""
    text = re.sub("[’ʼ′`´＇]", "'", upright(visible(text)))
    text = unicodedata.normalize("NFKC", text).replace("−", "-")
    text = re.sub(r"\d", lambda digit: str(int(digit[0])), text)
    text = re.sub(rf"{_ALONE}[‐‑‒–](?=[\d.{_MONEY}])", "-", text)
    for pattern, instead in _REWRITTEN:
        text = pattern.sub(instead, text)
    return text


def _value(found: re.Match[str], decimal_sign: str) -> Number | None:
    if found["sign"] == "±" or _WORDS.match(found["unit"]):
        return None
    sign = -1 if found["sign"] == "-" else 1
    percent = (found["percent"] or found["before"] or "").strip()
    places = _PERCENT[percent] if percent else 0
    if fraction := _FRACTION.fullmatch(found["digits"]):
        whole, top, bottom = (int(fraction[name] or 0) for name in ("whole", "top", "bottom"))
        if not bottom or (fraction["whole"] and top >= bottom):
            return None
        return sign * (whole + Fraction(top, bottom)) / 10**places
    base, _, power = found["digits"].lower().partition("e")
    plain, _ = _plain(base, decimal_sign)
    if plain is None or not _POWER.fullmatch(power or "0"):
        return None
    return Decimal(f"{'-' if sign < 0 else ''}{plain}e{int(power or '0') - places}")


def _plain(digits: str, decimal_sign: str) -> tuple[str | None, str | None]:
    """Digits with at most one point, and the decimal sign that they show.

    ``None`` if the separators make no number; if they show none.
    """
    if _EITHER.fullmatch(digits):
        if decimal_sign == EITHER:
            return None, None
        grouped = digits.translate({ord(","): "", ord("."): ""})
        is_decimal = decimal_sign in digits
        return digits.replace(",", ".") if is_decimal else grouped, None
    found = _PLAIN.fullmatch(digits)
    if not found or not digits:
        return None, None
    whole, point, fraction = found["whole"], found["point"], found["fraction"]
    groups = set(re.findall(r"[^\d]", whole))
    if point in groups:
        return None, None
    other = {".": ",", ",": "."}
    shown = point if point in other else next((other[g] for g in groups & other.keys()), None)
    return re.sub(r"[^\d]", "", whole) + (f".{fraction}" if fraction else ""), shown
