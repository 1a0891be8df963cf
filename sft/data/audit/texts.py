"""What can be said about one text: its script, language, casing and format."""

import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence

SAMPLE = 2000  # rows that are looked at character by character
LOOK = 1000  # characters of a text that are looked at
LETTERS = 20  # fewer letters do not tell a language
UNDETERMINED = "undetermined"

_BULLET = re.compile(r"^\s{0,6}(?:[-*•‣]|\d{1,2}[.)])\s+\S", re.MULTILINE)
_MARKUP = re.compile(
    r"</?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]*)?/?>|^#{1,6} \S|\*\*\S[^*\n]*\*\*|\[[^\]\n]+\]\([^)\s]+\)",
    re.MULTILINE,
)
_URL = re.compile(r"https?://\S|www\.\S")
_DIGIT = re.compile(r"\d")
_QUESTION_MARKS = (
    "?",
    "\uff1f",
    "\u061f",
    "\u037e",
    "\u055e",
)  # and full-width, Arabic, Greek, Armenian


def is_json(text: str) -> bool:
    """Whether the whole text, in a code fence or not, is one JSON object or array."""
    text = text.strip()
    if text.startswith("```"):
        text = text.strip("`").removeprefix("json").strip()
    if text[:1] + text[-1:] not in ("{}", "[]"):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


FORMATS: dict[str, Callable[[str], bool]] = {
    "list": lambda text: bool(_BULLET.search(text)),
    "code fence": lambda text: "```" in text,
    "JSON": is_json,
    "URL": lambda text: bool(_URL.search(text)),
    "question mark at the end": lambda text: text.rstrip().endswith(_QUESTION_MARKS),
    "line breaks": lambda text: "\n" in text.strip(),
    "HTML or Markdown": lambda text: bool(_MARKUP.search(text)),
    "digits": lambda text: bool(_DIGIT.search(text)),
}


def casing(text: str) -> str:
    """``all lower case``, ``all upper case``, ``starts with a capital``, ``other``; ``no case``
    where no letter has one, as in Chinese."""
    lower, upper = text.lower(), text.upper()
    if lower == upper:
        return "no case"
    if text == lower:
        return "all lower case"
    if text == upper:
        return "all upper case"
    first = next((letter for letter in text if letter.isalpha()), "")  # "ⓐⒷ" has none
    return "starts with a capital" if first.isupper() else "other"


@functools.cache
def _script(character: str) -> str:
    from fontTools import unicodedata

    return unicodedata.script(character)


def script_counts(text: str) -> Counter[str]:
    """Letters of each Unicode script (four-letter codes) in the first ``LOOK`` characters.

    Signs shared by scripts (Common, Inherited: digits, punctuation, emoji) are left out.
    """
    found: Counter[str] = Counter()
    for character, count in Counter(text[:LOOK]).items():
        script = _script(character)
        if script not in ("Zyyy", "Zinh", "Zzzz"):
            found[script] += count
    return found


def script_name(code: str) -> str:
    """``Latin`` of ``Latn``."""
    from fontTools import unicodedata

    return unicodedata.script_name(code, default=code).replace("_", " ")


def main_script(text: str) -> str:
    """The script of most letters; ``none`` without letters."""
    found = script_counts(text).most_common(1)
    return script_name(found[0][0]) if found else "none"


def script_mix(texts: Sequence[str]) -> dict[str, float]:
    """Share of the letters by script, largest first."""
    total: Counter[str] = Counter()
    for text in texts:
        total.update(script_counts(text))
    return shares({script_name(code): count for code, count in total.items()})


def language(text: str) -> str:
    """ISO 639 code by py3langid, of the first ``LOOK`` characters.

    ``undetermined`` with fewer than ``LETTERS`` letters: a guess from a word or two is noise.
    """
    return _language(text[:LOOK])


@functools.lru_cache(8 * SAMPLE)  # a set is compared with several others
def _language(text: str) -> str:
    import py3langid

    if sum(map(str.isalpha, text)) < LETTERS:
        return UNDETERMINED
    return str(py3langid.classify(text)[0])


def language_mix(texts: Sequence[str]) -> dict[str, float]:
    """Share of the texts by language, largest first."""
    return shares(Counter(language(text) for text in texts))


def shares(counts: dict[str, int]) -> dict[str, float]:
    """Counts as shares of their sum, largest first and then by name."""
    total = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {name: count / total for name, count in ordered if count}


def percent(share: float) -> str:
    """``0 %``, ``< 0.1 %``, ``3.4 %``, ``87 %``; never ``100 %`` for less."""
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    if share < 0.001:
        return "< 0.1 %"
    digits = 1 if share < 0.1 or share > 0.99 else 0
    return "> 99.9 %" if share > 0.999 else f"{100 * share:.{digits}f} %"


def rows(count: int) -> str:
    """``1 row``, ``2,000 rows``."""
    return f"{count:,} row{'' if count == 1 else 's'}"


def shorten(text: str, length: int = 80) -> str:
    """On one line, cut to ``length`` characters with an ellipsis."""
    text = " ".join(text[: 4 * length].split())
    return text if len(text) <= length else text[: length - 1] + "…"
