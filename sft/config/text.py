"""Text in a configuration: lists of strings, and what a misspelt name may have meant."""

import difflib
import re
from collections.abc import Sequence

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", ",": ","}


def strings(text: str) -> list[str]:
    r"""Strings joined by commas, as ``Q:,\n\n``; white space is kept, and ``""`` has none.

    ``\n``, ``\t``, ``\r``, ``\\`` and ``\,`` stand for one character each.

    Raises:
      ValueError: an empty string between commas, or another escape; says which.
    """
    if not text:
        return []
    found = [""]
    for part in re.findall(r"\\.?|,|[^\\,]+", text, flags=re.DOTALL):
        if part == ",":
            found.append("")
        elif part.startswith("\\"):
            if part[1:] not in _ESCAPES:
                raise ValueError(rf"{part!s} is not one of \n, \t, \r, \\ and \,")
            found[-1] += _ESCAPES[part[1:]]
        else:
            found[-1] += part
    if "" in found:
        raise ValueError("a string between commas is empty")
    return found


def nearest(key: str, known: Sequence[str]) -> str:
    """``" Did you mean 'optim.learning_rate'?"``, or ``""`` when nothing is near."""
    leaf = key.rsplit(".", 1)[-1]
    leaves = {name.rsplit(".", 1)[-1]: name for name in known}
    initials = {"".join(w[0] for w in name.split("_")): name for name in leaves if "_" in name}
    near = [leaves[initials[leaf]]] if leaf in initials else []  # shortened, as in "lr"
    near = near or difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    # The leaf may be right and its group wrong or missing.
    near = near or [leaves[n] for n in difflib.get_close_matches(leaf, leaves, n=1)]
    near = near or difflib.get_close_matches(key, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
