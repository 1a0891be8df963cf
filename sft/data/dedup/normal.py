"""The normal form of a text: what counts as the same."""

import dataclasses
import hashlib
import re
import unicodedata
from collections.abc import Iterable

_MAYBE_PUNCTUATION = re.compile(r"(?:[^\w\s]|_)(?!\d)")


@dataclasses.dataclass(frozen=True)
class Options:
    """What differs without counting as a difference, beside white space and Unicode composition.

    Attributes:
      case: upper and lower case are the same.
      punctuation: punctuation is left out.
    """

    case: bool = False
    punctuation: bool = False


def text(value: str, options: Options) -> str:
    """NFC, white space at the ends removed and elsewhere one space; ``text(text(x)) == text(x)``.

    U+2581 is white space too: a SentencePiece tokenizer makes the same tokens of it and of a space.

    ``case`` is canonical caseless matching (The Unicode Standard, D145). ``punctuation`` leaves out
    the characters of the categories P*, but not before a digit, so that 1.5 is not 15 and -5 not 5,
    and not from a text that has nothing else. Symbols (C++, 3 < 4) stay; C# becomes C.
    """
    form = unicodedata.normalize("NFC", value.replace("\u2581", " "))
    if options.case:
        form = unicodedata.normalize("NFD", form).casefold()
        form = unicodedata.normalize("NFC", form)
    words = form.split()
    if options.punctuation:
        # A mark may now stand behind another letter, with which it composes.
        form = unicodedata.normalize("NFC", _MAYBE_PUNCTUATION.sub(_without, form))
        words = form.split() or words
    return " ".join(words)


def key(parts: Iterable[str]) -> bytes:
    """16 bytes (BLAKE2b) of a list of texts; the same in every process. Lengths keep them apart."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode(errors="surrogatepass")
        found.update(len(encoded).to_bytes(8, "little") + encoded)
    return found.digest()


def _without(match: re.Match[str]) -> str:
    return "" if unicodedata.category(match[0])[0] == "P" else match[0]
