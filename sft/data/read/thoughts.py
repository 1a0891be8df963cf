"""What a model thinks before it answers, in the keys and parts that formats have for it.

Thoughts are not trained. Rows that have some are rejected, because their answers would be trained
as if nothing had been thought; ``drop_thoughts`` in ``data.reading.repair`` leaves them out.
``<think>`` in a text is text.
"""

import functools

from sft.data.conversation import Reading, Reject
from sft.data.read.fields import holds, plain, printable, words
from sft.data.read.remarks import Notes, Remark

_REPAIR = "drop_thoughts"
_KEYS = {"reasoningcontent", "reasoningtext", "thinkingcontent", "chainofthought"}
_WORDS = {"reasoning", "thinking", "thought", "thoughts", "cot"}
_SETTINGS = {  # words of keys that say how the model was to think, not what it thought
    *("effort", "budget", "enabled", "level", "mode", "token", "tokens", "count", "length"),
    *("time", "seconds", "duration", "ms", "id", "type", "format", "language", "model"),
}
_TYPES = {"thinking", "redactedthinking", "reasoning", "thought", "reasoningtext"}


@functools.lru_cache(maxsize=4096)
def is_key(key: str) -> bool:
    """Whether a key of this name holds thoughts."""
    said = words(key)
    return plain(key) in _KEYS or (bool(said & _WORDS) and not said & _SETTINGS)


def column(key: str) -> Remark:
    """What to report of a column of thoughts beside a prompt and an answer."""
    return Remark(
        "warning",
        f"thoughts are not trained, so the answers are trained without column {key[:40]!a}",
        "If the answers should show them, write both into one column.",
    )


def drop(item: dict, where: str, reading: Reading, notes: Notes) -> dict:
    """``item``, a turn or a part, without keys of thoughts.

    Raises:
      Reject: there are some, and they are not to be dropped; or the whole turn is one.
    """
    # {"thinking": true} is a switch of the service; {"thought": true} marks the whole of it.
    keys = [k for k in item if is_key(k) and (plain(k) == "thought" or item[k] is not True)]
    if not keys:
        return item
    for key in keys:
        place = printable(f"{where}{key[:40]}")
        if item[key] is True:
            raise Reject("thoughts", f"{place} is true: all of it is a thought. Remove it")
        if holds(item[key]):
            _repair(place, reading, notes)
    return {key: value for key, value in item.items() if key not in keys}


def is_part(part: dict, where: str, reading: Reading, notes: Notes) -> bool:
    """Whether a part is a thought as a whole, and is dropped.

    Raises:
      Reject: it is, and is not to be dropped.
    """
    kind = part.get("type")
    typed = isinstance(kind, str) and plain(kind) in _TYPES
    if not typed and not holds(part.get("thought")):
        return False
    said = [v for key, v in part.items() if key not in ("type", "signature") and v is not True]
    if any(map(holds, said)):
        _repair(f"{where}type is {kind[:40]!a}" if typed else f"{where}thought", reading, notes)
    return True


def _repair(place: str, reading: Reading, notes: Notes) -> None:
    if _REPAIR not in reading.repairs:
        raise Reject(
            "thoughts",
            f"{place}; what the model thinks is not trained yet: to leave it out, add {_REPAIR} "
            f"to {reading.setting}.repair",
        )
    notes.repaired.add(_REPAIR)
