"""Text cut into words whose ids are remembered: exact, and several times as fast as SentencePiece.

Byte-pair merges happen within pieces only. No piece of Gemma 3 crosses from anything else to a
space, save ``>▁</``, or stands across the edge of a run of newlines. So text may be cut there, and
the ids of the parts are those of the whole. ``crosses`` finds the vocabularies where this fails.
"""

import re
from array import array
from collections.abc import Callable

from sft.data.characters import surrogate
from sft.errors import UserError

# A space and U+2581 are one symbol to SentencePiece.
_CROSSING = re.compile(r"[^ ▁][ ▁]|\n[^\n]|[^\n]\n")
_KEPT_TOGETHER = ">▁</"
find_words = re.compile(r"[ ▁]*[^ ▁\n]+(?:(?<=>)[ ▁](?=</)[^ ▁\n]+)*|[ ▁]+|\n+").findall

_MAX_WORDS = 2**20  # remembered at a time, about 200 MB
_MAX_WORD = 64  # characters; a longer one is unlikely to come again


def crosses(piece: str) -> bool:
    """Whether a vocabulary with this piece must have its texts whole."""
    return piece != _KEPT_TOGETHER and bool(_CROSSING.search(piece))


def ids_of(encode: Callable[[str], list[int]], text: str) -> list[int]:
    """What SentencePiece's ``encode`` makes of a text.

    Raises:
      UserError: the text has half of a surrogate pair, which SentencePiece does not name.
    """
    try:
        return encode(text)
    except RuntimeError:
        if place := surrogate(text):
            shown = f"U+{ord(text[place - 1]):04X}"
            raise UserError(
                f"{text[max(place - 20, 0) : place + 20]!a}: half of a surrogate pair, {shown}, is "
                "not Unicode text. Correct or remove it."
            ) from None
        raise


class Words(dict[str, bytes]):
    """Word → bytes of its int32 ids, asked of ``encode`` once."""

    def __init__(self, encode: Callable[[str], list[int]]):
        self._encode = encode

    def __missing__(self, word: str) -> bytes:
        ids = array("i", ids_of(self._encode, word)).tobytes()
        if len(word) <= _MAX_WORD:
            if len(self) >= _MAX_WORDS:
                self.clear()
            self[word] = ids
        return ids

    def encode(self, text: str) -> bytes:
        """Bytes of the int32 ids of a whole text."""
        return b"".join(map(self.__getitem__, find_words(text)))
