"""What is the same to a reader: text without case, width, punctuation and invisible characters."""

import re
import unicodedata

# Default_Ignorable_Code_Point of Unicode 16, DerivedCoreProperties.txt.
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Letters of scripts that put no spaces between words: Thai to Khmer, kana, Chinese characters.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
SPACED_LETTER = rf"[^\W\d_{_UNSPACED}]"  # a hyphen or point after one belongs to a word
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"
_LOWERED = "₀₁₂₃₄₅₆₇₈₉₊₋"
_LEVEL = str.maketrans(_RAISED + _LOWERED, 2 * "0123456789+-")
_VULGAR = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞⅟↉"
# Without what follows, precedes or parts digits here a number is another: 3.14, 1...2, -5, .5, 5 %.
_OF_A_NUMBER = re.compile(
    rf"(?<=\d)(?:[^\w\s]|_)+(?=\d)"
    rf"|(?<!{SPACED_LETTER})(?<![\d)\]}}])[-.](?=\.?\d)"
    rf"|(?:(?<=\d)|(?<=\d\s))[%‰‱٪]|%(?=\d)"
    rf"|(?<=\d)′+"
)
_DASH = re.compile(rf"(?<!{SPACED_LETTER})(?<![\d)\]}}])[‐‑‒–−](?=\.?\d)")


def visible(text: str) -> str:
    """Without the characters that Unicode asks to display as nothing (Default_Ignorable)."""
    return _IGNORABLE.sub("", text)


def upright(text: str) -> str:
    """Raised and lowered digits and fractions in one character as they are typed in a line.

    NFKC makes 102 of 10² and of 10₂, and 21⁄2 of 2½: here 10^2, 10_2 and 2 1/2.
    """
    text = re.sub(f"(?<![{_RAISED}])([{_RAISED}]+)⁄([{_LOWERED}]+)", _spelt, text)
    text = re.sub(f" ?([{_VULGAR}])", _spelt_vulgar, text)
    text = re.sub(f"(?<=\\d)[{_RAISED}]+", lambda found: "^" + found[0].translate(_LEVEL), text)
    text = re.sub(f"(?<=\\d)[{_LOWERED}]+", lambda found: "_" + found[0].translate(_LEVEL), text)
    return text.translate(_LEVEL).replace("⁄", "/")


def casefolded(text: str) -> str:
    """Unicode's toNFKC_Casefold: compatible characters, case and invisible ones made alike."""
    before = None
    while text != before:
        before = text
        text = unicodedata.normalize("NFKC", visible(unicodedata.normalize("NFD", text)))
        text = unicodedata.normalize("NFKC", text.casefold())
    return text


def normalised(text: str) -> str:
    """Without what a reader overlooks: case, width, invisible characters, white space, punctuation.

    Unicode's toNFKC_Casefold after ``upright``; punctuation (general category P) left out; runs of
    white space one space, none at the ends. Symbols (general category S: $ + = < ~ ^ ` ° …) stay.

    Punctuation of a number stays, since 3.14 is not 314, nor 1/2/2024 12/2/024, nor -5 (with a
    hyphen, en dash or minus sign) or .5 5, nor 5 % or 5‰ 5, nor 5′ 5″: all that stands between two
    digits without a space; a dash or point right before a digit, unless a word, a digit or a
    closing bracket is right before it; %, ‰, ‱ and ٪ after a digit, also with a space, and %
    before one; primes after a digit. A text of nothing but punctuation stays as it is.
    """
    text = casefolded(upright(visible(text)))
    text = _DASH.sub("-", text).replace("−", "-")
    kept = {place for found in _OF_A_NUMBER.finditer(text) for place in range(*found.span())}
    bare = "".join(
        char
        for index, char in enumerate(text)
        if index in kept or not unicodedata.category(char).startswith("P")
    )
    return unicodedata.normalize("NFC", " ".join(bare.split())) or " ".join(text.split())


def _spelt(found: re.Match[str]) -> str:
    """A fraction whose digits are raised and lowered."""
    return " " * (found.start() > 0) + f"{found[1]}/{found[2]}".translate(_LEVEL)


def _spelt_vulgar(found: re.Match[str]) -> str:
    """A fraction in one character, apart from the whole number before it."""
    typed = unicodedata.normalize("NFKC", found[1]).replace("⁄", "/")
    is_mixed = found.start() > 0 and found.string[found.start() - 1 : found.start()].isdecimal()
    return f" {typed}" if is_mixed or found[0][0] == " " else typed
