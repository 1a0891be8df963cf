"""What a row becomes, how it is to be read, and why it cannot be used."""

import dataclasses
import functools
import re
import string
from collections.abc import Iterable
from typing import NamedTuple

from sft.data.characters import is_blank, surrogate
from sft.errors import UserError

CONTAINERS = ("jsonl", "json", "csv", "tsv", "parquet", "arrow", "arrayrecord")
REPAIRS = ("leading_model", "trailing_user", "drop_thoughts")
ROLES = ("user", "model")


SAVE_UTF8 = (
    "Save the file as UTF-8: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW, if Windows or Excel wrote it"
)


class Reject(Exception):
    """Why a row cannot be used: ``kind`` is counted, ``kind: detail`` is the reason shown."""

    def __init__(self, kind: str, detail: str):
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """What one side says.

    Attributes:
      role: 'user' or 'model'.
      trained: False for an answer that is context only.
    """

    role: str
    text: str
    trained: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Conversation:
    """Turns that start with the user, alternate, and end with the model.

    Only a sample of production prompts may end with the user.

    Attributes:
      system: system instruction, or ``None``.
      source: ``path:line``; ``path:row`` in Parquet and ArrayRecord files, counted from 0.
      origin: name of the source in the configuration, or its path.
      group: key by which rows stay in one split; ``""`` = each for itself.
      category: for stratified splits and the audit; ``""`` = none.
      cluster: of rows that are alike by the user's embeddings; ``""`` = none. They stay in one
        split, and one of them is trained on.
    """

    turns: tuple[Turn, ...]
    system: str | None
    source: str
    origin: str = ""
    group: str = ""
    category: str = ""
    cluster: str = ""


@dataclasses.dataclass(frozen=True)
class Reading:
    """How rows become conversations: ``config.data.reading``, where each field is explained.

    Attributes:
      setting: the group of settings that messages name; ``config.data.sources.NAME`` in a source.

    Raises:
      UserError: a container, repair, regular expression or template that cannot be used.
    """

    container: str = ""
    prompt: str = "input_text"
    response: str = "output_text"
    system: str = ""
    history: str = ""
    group: str = ""
    group_regex: str = ""
    category: str = ""
    instruction: str = ""
    template: str = ""
    repair: str = ""
    weight: float = 1.0
    setting: str = "config.data.reading"

    def __post_init__(self) -> None:
        if self.container and self.container not in CONTAINERS:
            self._refuse("container", f"expected one of {', '.join(CONTAINERS)}")
        for field in ("prompt", "response"):
            if not getattr(self, field):
                self._refuse(field, "expected the name of a column")
        for name in self.repairs:
            if name not in REPAIRS:
                self._refuse("repair", f"expected names of {', '.join(REPAIRS)}, joined by commas")
        if not 0 < self.weight < float("inf"):
            self._refuse("weight", "expected a number above 0")
        self._check_group()
        self._check_texts()

    def _check_group(self) -> None:
        if self.group_regex and not self.group:
            self._refuse("group_regex", "there is no column to match it with; set group")
        try:
            if self.group_regex and not re.compile(self.group_regex).groups:
                self._refuse("group_regex", "expected a group in parentheses, which is the key")
        except re.error as error:
            self._refuse("group_regex", f"not a regular expression: {error}")

    def _check_texts(self) -> None:
        try:
            parts = template_parts(self.template)
        except ValueError as error:
            self._refuse("template", f"{error}. Write {{{{ and }}}} for braces")
        if self.template and not any(name for _, name in parts):
            self._refuse("template", "no {prompt} in it: every row would get the same prompt")
        for field in ("instruction", "template"):
            text = getattr(self, field)
            if text and is_blank(text):
                self._refuse(field, "no visible text in it")
            if place := surrogate(text):
                self._refuse(field, f"character {place} is half of a surrogate pair")

    @functools.cached_property
    def fields(self) -> tuple[str, ...]:
        """Names in the template: columns, and ``prompt``."""
        return tuple(name for _, name in template_parts(self.template) if name)

    @functools.cached_property
    def repairs(self) -> tuple[str, ...]:
        """Names in ``repair``."""
        return tuple(name.strip() for name in self.repair.split(",") if name.strip())

    def _refuse(self, field: str, problem: str) -> None:
        raise UserError(f"{self.setting}.{field} = {getattr(self, field)!r}: {problem}.")


@functools.lru_cache
def template_parts(template: str) -> tuple[tuple[str, str], ...]:
    """(literal text, name of the field after it or ``""``) pairs, in order.

    Raises:
      ValueError: unbalanced braces, or a field that is not a plain name.
    """
    parts = []
    for literal, name, spec, conversion in string.Formatter().parse(template):
        if name is not None and (not name or spec or conversion or set(name) & set(".[]")):
            raise ValueError("expected {prompt} or a {column}, by its name alone")
        parts.append((literal, name or ""))
    return tuple(parts)


class Labels(NamedTuple):
    """What a format calls the list of turns, the role in a turn, and the two sides."""

    turns: str = "contents"
    role: str = "role"
    user: str = "user"
    model: str = "model"


GEMINI = Labels()


def role_problem(
    turns: Iterable[Turn], last: str = "model", labels: Labels = GEMINI, first: int = 0
) -> str | None:
    """What is wrong with the order of the roles, or ``None``.

    Args:
      last: who must speak last; ``""`` = either.
      labels: names to use in the answer.
      first: index of ``turns[0]`` in the list of the row.
    """
    names = {"user": labels.user, "model": labels.model}
    role = ""
    for index, turn in enumerate(turns):
        role = turn.role
        if role != ROLES[index % 2]:
            place = f"{labels.turns}[{first + index}].{labels.role}"
            want = names[ROLES[index % 2]]
            return f"{place} is {names.get(role, role)[:40]!r}, expected {want!r}"
    if not role or role != (last or role):
        found = f"ends with {names[role]!r}" if role else "has no turns"
        return f"{labels.turns} {found}, expected {names[last or 'user']!r} last"
    return None
