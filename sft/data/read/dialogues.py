"""Lists of turns, as Gemini, OpenAI and ShareGPT write them.

To add a format of turns, add a line to ``DIALOGUES``.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from sft.data.characters import is_blank
from sft.data.conversation import GEMINI, Labels, Reading, Reject, Turn, role_problem
from sft.data.read import flags, parts, thoughts
from sft.data.read.fields import check_keys, clean, present, type_name, typed, visible, written
from sft.data.read.remarks import Notes


class Keys(NamedTuple):
    """How a format writes a turn.

    Attributes:
      text: key of a turn's text.
      roles: role as written, in lower case → 'user', 'model', 'system' (first turn only) or 'tool'
        (refused).
    """

    labels: Labels
    text: str
    roles: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """A format with a list of turns.

    Attributes:
      keys: the usual spelling of a turn, and others that are read too.
      strict: an unknown key in a turn rejects the row; otherwise it is counted as unread.
    """

    keys: tuple[Keys, ...]
    strict: bool = False


_OPENAI = {"system": "system", "developer": "system", "user": "user", "assistant": "model"}
_OPENAI |= {"tool": "tool", "function": "tool"}
_SHAREGPT = {"system": "system", "human": "user", "user": "user"}
_SHAREGPT |= dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "assistant", "model"), "model")
_SHAREGPT |= dict.fromkeys(("tool", "function_call", "observation"), "tool")


def _openai(turns: str, roles: Mapping[str, str] = _OPENAI) -> Keys:
    return Keys(Labels(turns, "role", "user", "assistant"), "content", roles)


def _sharegpt(turns: str) -> Keys:
    return Keys(Labels(turns, "from", "human", "gpt"), "value", _SHAREGPT)


DIALOGUES = {
    "contents": Dialogue((Keys(GEMINI, "parts", {"user": "user", "model": "model"}),), strict=True),
    "messages": Dialogue((_openai("messages"), _sharegpt("messages"))),
    "conversations": Dialogue(
        (_sharegpt("conversations"), _openai("conversations", _OPENAI | _SHAREGPT))
    ),
}


@dataclasses.dataclass
class Said:
    """What a list of turns says.

    Attributes:
      name: of the list.
      turns: of the user and the model.
      keys: of each turn.
      system: the system instruction before them, or ``None``.
      first: index of ``turns[0]`` in the list.
    """

    name: str
    turns: list[Turn]
    keys: list[Keys]
    system: str | None = None
    first: int = 0

    def check(self, last: str) -> None:
        """Raises a ``Reject`` unless turns alternate, end with ``last`` and say something."""
        labels = self.keys[0].labels if self.keys else GEMINI
        if problem := role_problem(self.turns, last, labels, self.first):
            raise Reject("wrong role order", problem.replace(labels.turns, self.name, 1))
        for index, turn in enumerate(self.turns):
            # Only for those that need a closer look is the place put together.
            if is_blank(turn.text) or not turn.text.isascii() or "\0" in turn.text:
                visible(turn.text, f"{self.name}[{self.first + index}].{self.keys[index].text}")

    def drop(self, index: int) -> None:
        """Leaves out the first turn (0) or the last (-1)."""
        del self.turns[index], self.keys[index]
        self.first += index == 0


def read(
    items: list, form: Dialogue, name: str, reading: Reading, notes: Notes, trained: bool = True
) -> Said:
    """The turns of a list, in whatever order they are.

    Args:
      name: what the row calls the list.
      trained: whether answers without a flag are.

    Raises:
      Reject: a turn that cannot be read.
    """
    said, usual = Said(name, [], []), form.keys[0]
    for index, item in enumerate(items):
        turn, keys = _plain_turn(item, usual, trained), usual
        if turn is None:
            turn, keys = _turn(item, form, f"{name}[{index}]", reading, notes, trained)
        if turn.role == "system" and not index:
            said.system = None if is_blank(turn.text) else clean(turn.text, f"{name}[0]")
            said.first = 1
            continue
        said.turns.append(turn)
        said.keys.append(keys)
    return said


def whole(
    items: list, schema: str, reading: Reading, answers: bool, notes: Notes
) -> tuple[list[Turn], str | None]:
    """A conversation that is one list of turns, and its system instruction.

    Args:
      answers: whether it must end with an answer.

    Raises:
      Reject: it is not a conversation, after the repairs that ``reading`` asks for.
    """
    said = read(items, DIALOGUES[schema], schema, reading, notes)
    if not said.turns:
        found = f"{schema} has no turns, expected at least a question and an answer"
        raise Reject("no turns", found)
    if "leading_model" in reading.repairs and said.turns[0].role == "model":
        said.drop(0)
        notes.repaired.add("leading_model")
    is_open = bool(said.turns) and said.turns[-1].role == "user"
    if answers and is_open and "trailing_user" in reading.repairs:
        said.drop(-1)
        notes.repaired.add("trailing_user")
    said.check("model" if answers else "")
    return said.turns, said.system


def _plain_turn(item: Any, keys: Keys, trained: bool) -> Turn | None:
    """A turn with a role and a text and nothing else, as most are; ``None`` for any other."""
    if type(item) is not dict or len(item) != 2:
        return None
    text, written = item.get(keys.text), item.get(keys.labels.role)
    if type(text) is not str or type(written) is not str or keys.text == "parts":
        return None
    role = keys.roles.get(written, "tool")
    return None if role == "tool" else Turn(role, text, trained or role != "model")


def _turn(
    item: Any, form: Dialogue, place: str, reading: Reading, notes: Notes, trained: bool
) -> tuple[Turn, Keys]:
    if isinstance(item, Reject):
        raise item
    if not isinstance(item, dict):
        raise Reject("wrong type", f"{place} is {type_name(item)}, expected an object")
    keys, where, flag = form.keys[0], f"{place}.", None
    if item.keys() != {keys.labels.role, keys.text}:
        item = present(item)
        keys = _spelling(item, form, where)
        flag = flags.read(item, where, (keys.labels.role, keys.text))
        item = thoughts.drop(item, where, reading, notes)
        _note_unread(item, keys, form, where, notes)
    role = _role(item, keys, where)
    joined = _text(item, keys.text, where, role, reading, notes)
    if role != "model":
        flag = next((each for each in (flag, *joined.flags) if each and each.trains), None)
        flags.note(flag, False, place, notes)
        return Turn(role, joined.text), keys
    flag = flags.merged(flag, joined.flags, place)
    flags.note(flag, True, place, notes)
    return Turn(role, joined.text, flag.trains if flag else trained), keys


def _spelling(item: dict, form: Dialogue, where: str) -> Keys:
    """The keys of role and text in this turn, each in any of the format's spellings.

    Raises:
      Reject: two spellings are there and say different things.
    """
    usual = form.keys[0]
    if len(form.keys) == 1:
        return usual
    roles = [k for k in form.keys if _known_role(item.get(k.labels.role), k)] or [
        k for k in form.keys if k.labels.role in item
    ]
    texts = [k.text for k in form.keys if isinstance(item.get(k.text), str | list)] or [
        k.text for k in form.keys if k.text in item
    ]
    for names, said in (
        ([k.labels.role for k in roles], [_known_role(item[k.labels.role], k) for k in roles]),
        (texts, [item[text] for text in texts]),
    ):
        if len(names) > 1 and said[0] != said[1]:
            found = f"{where}{names[0]} and {where}{names[1]} say different things"
            raise Reject("ambiguous turn", f"{found}. Remove one")
    role = roles[0] if roles else usual
    return role._replace(text=texts[0] if texts else role.text)


def _known_role(written: Any, keys: Keys) -> str | None:
    return keys.roles.get(written.strip().lower()) if isinstance(written, str) else None


def _note_unread(item: dict, keys: Keys, form: Dialogue, where: str, notes: Notes) -> None:
    known = (keys.labels.role, keys.text, "weight")
    rest = {key: item[key] for key in item if key in known or not flags.is_flag(key)}
    if form.strict:
        check_keys(rest, known, where)
    else:
        check_keys(rest, known, where, notes.unread, f"{keys.labels.turns}[].")


def _role(item: dict, keys: Keys, where: str) -> str:
    key = keys.labels.role
    if key not in item and (named := [name for name in item if name.lower() in _SHAREGPT]):
        form = f"{{{keys.labels.role!r}: {keys.labels.user!r}, {keys.text!r}: …}}"
        found = f"{where[:-1]} has its role as a key, {named[0][:40]!a}, expected a turn each"
        raise Reject("wrong type", f"{found}, as {form}")
    written = typed(item, key, str, where)
    role = keys.roles.get(written) or _known_role(written, keys)
    if role is None:
        known = ", ".join(name for name, role in keys.roles.items() if role != "tool")
        raise Reject("unknown role", f"{where}{key} is {written[:40]!a}, expected one of {known}")
    if role == "tool":
        raise Reject("non-text part", f"{where}{key} is {written!r}; only text is read")
    return role


def _text(
    item: dict, key: str, where: str, role: str, reading: Reading, notes: Notes
) -> parts.Joined:
    value = item.get(key)
    if type(value) is str and key != "parts":
        return parts.Joined(value)
    if isinstance(value, list) and key != "value":
        return parts.join(value, f"{where}{key}", key == "content", reading, notes)
    if key == "parts" and value is not None:
        typed(item, key, list, where)
    text = written(value, f"{where}{key}")
    if text is None and role != "system":
        raise Reject("missing field", f"{where}{key}")
    return parts.Joined(text or "")
