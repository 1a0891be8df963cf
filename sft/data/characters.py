"""Which characters a person can see, and which are none."""

import re

# Unicode's Default_Ignorable_Code_Point, its control, format and space characters (but for the
# format characters that are drawn, such as U+0600), and three symbols that are drawn as nothing:
# U+2800, U+16FE4, U+1D159. A zero character is none of these: it is refused by itself.
_UNSEEN = (
    "\x01-\x20\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f"
    "\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U00013430-\U0001343f\U00016fe4\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"
)
_seen = re.compile(f"[^{_UNSEEN}]").search  # the first visible character, usually the very first


def is_blank(text: str) -> bool:
    """Whether nobody can see anything of ``text``: it is empty, white space or invisible."""
    return _seen(text) is None


def surrogate(text: str) -> int:
    """The place, from 1, of half a surrogate pair, which UTF-8 cannot write; 0 where none is."""
    if text.isascii():
        return 0
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start + 1
    return 0
