"""Texts in parts: ``{"text": …}`` as Gemini writes them, with ``"type": "text"`` as OpenAI does."""

from typing import NamedTuple

from sft.data.conversation import Reading, Reject
from sft.data.read import flags, thoughts
from sft.data.read.fields import check_keys, present, type_name, typed, written
from sft.data.read.flags import Flag
from sft.data.read.remarks import Notes


class Joined(NamedTuple):
    """The parts of one turn together: their text, and the flag of each part that is read."""

    text: str
    flags: tuple[Flag | None, ...] = ()


_KEYS = {False: ("text",), True: ("type", "text")}


def join(parts: list, where: str, openai: bool, reading: Reading, notes: Notes) -> Joined:
    """The concatenated texts of parts; thoughts are left out if ``reading`` says so.

    Args:
      where: their place in the row.
      openai: each part has a ``type``.

    Raises:
      Reject: a part that is not text, or cannot be read.
    """
    if len(parts) == 1 and not openai and type(parts[0]) is dict and len(parts[0]) == 1:
        text = parts[0].get("text")
        if type(text) is str:  # as nearly always
            return Joined(text)
    texts, said, known = [], [], _KEYS[openai]
    for index, part in enumerate(parts):
        place, flag = f"{where}[{index}].", None
        if isinstance(part, Reject):
            raise part
        if not isinstance(part, dict):
            found = f"{place[:-1]} is {type_name(part)}, expected an object with 'text'"
            raise Reject("wrong type", found)
        usual = part.keys() == set(known) and part.get("type", "text") == "text"
        if not usual:
            part = present(part)
            if thoughts.is_part(part, place, reading, notes):
                continue
            part = thoughts.drop(part, place, reading, notes)
            flag = flags.read(part, place, known)
        if openai and (kind := typed(part, "type", str, place)) != "text":
            raise Reject("non-text part", f"{place}type is {kind[:40]!a}; only text is read")
        if not usual:
            check_keys({key: part[key] for key in part if not flags.is_flag(key)}, known, place)
        text = written(part.get("text"), f"{place}text")
        if text is None:
            raise Reject("missing field", f"{place}text")
        texts.append(text)
        said.append(flag)
    return Joined("".join(texts), tuple(said))
