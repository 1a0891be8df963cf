"""The checks of a case: each is made once from the suite, and then says what an answer lacks.

Answers and expected texts are compared in Unicode's NFC without white space at their ends, as
exact match does.
"""

import dataclasses
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from sft.errors import UserError
from sft.eval.suites import refusals, schemas
from sft.eval.suites.nodes import Node, items, named, text, texts

Fault = Callable[[str], str | None]


@dataclasses.dataclass(frozen=True)
class How:
    """Settings of the case and its suite.

    Attributes:
      ignore_case: upper and lower case are the same.
      ignore_space: any white space is one space.
      refusals: compiled patterns.
      folder: where the suite lies, for the files it names.
    """

    ignore_case: bool
    ignore_space: bool
    refusals: tuple[re.Pattern[str], ...]
    folder: Path

    @property
    def flags(self) -> int:
        return re.IGNORECASE if self.ignore_case else 0

    def form(self, text: str) -> str:
        """``text`` as it is compared."""
        text = self.spaced(text)
        if self.ignore_case:  # canonical caseless matching, The Unicode Standard, D145
            text = unicodedata.normalize("NFD", text).casefold()
        return unicodedata.normalize("NFC", text)

    def spaced(self, text: str) -> str:
        """``text`` in NFC, and its white space as asked for."""
        text = unicodedata.normalize("NFC", text)
        return " ".join(text.split()) if self.ignore_space else text.strip()


def contains(node: Node, how: How) -> Fault:
    """Every one of these texts is in the answer."""
    wanted = {text: how.form(text) for text in texts(node, "contains")}

    def fault(answer: str) -> str | None:
        lacking = [text for text, form in wanted.items() if form not in how.form(answer)]
        return f"{lacking[0]!r} is not in the answer" if lacking else None

    return fault


def not_contains(node: Node, how: How) -> Fault:
    """None of these texts is in the answer."""
    barred = {text: how.form(text) for text in texts(node, "not_contains")}

    def fault(answer: str) -> str | None:
        there = [text for text, form in barred.items() if form in how.form(answer)]
        return f"{there[0]!r} is in the answer" if there else None

    return fault


def equals(node: Node, how: How) -> Fault:
    """The answer is one of these texts."""
    wanted = texts(node, "equals")
    forms = {how.form(text) for text in wanted}
    said = " or ".join(map(repr, wanted))
    return lambda answer: None if how.form(answer) in forms else f"expected {said}"


def regex(node: Node, how: How) -> Fault:
    """Every one of these regular expressions is found in the answer."""
    wanted = compiled(node, "regex", how.flags)

    def fault(answer: str) -> str | None:
        lacking = [p for p in wanted if not p.search(how.spaced(answer))]
        return f"{lacking[0].pattern!r} is not found" if lacking else None

    return fault


def not_regex(node: Node, how: How) -> Fault:
    """None of these regular expressions is found in the answer."""
    barred = compiled(node, "not_regex", how.flags)

    def fault(answer: str) -> str | None:
        there = [found for found in (p.search(how.spaced(answer)) for p in barred) if found]
        return f"{there[0][0]!r} is found by {there[0].re.pattern!r}" if there else None

    return fault


def json_schema(node: Node, how: How) -> Fault:
    """The whole answer is JSON that the schema accepts; the schema stands here or in a file."""
    validator = schemas.validator(node, how.folder)

    def fault(answer: str) -> str | None:
        try:
            value = json.loads(answer, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            return f"not JSON ({' '.join(str(error).split())})"
        found = min(
            validator.iter_errors(value), key=lambda e: list(map(str, e.path)), default=None
        )
        return f"{found.json_path}: {found.message}" if found else None

    return fault


def refuses(node: Node, how: How) -> Fault:
    """The answer refuses, by ``sft.eval.suites.refusals``; or, where false, it does not."""
    if not isinstance(node.value, bool):
        raise UserError(f"{node.where}: refuses: expected true or false, found {named(node)}.")

    def fault(answer: str) -> str | None:
        words = refusals.found(answer, how.refusals)
        if node.value:
            return None if words is not None else "no words of refusal in the answer"
        return None if words is None else f"refuses: {words!r}"

    return fault


BUILDERS: dict[str, Callable[[Node, How], Fault]] = {
    function.__name__: function
    for function in (contains, not_contains, equals, regex, not_regex, json_schema, refuses)
}


def compiled(node: Node, key: str, flags: int) -> list[re.Pattern[str]]:
    """One regular expression, or a list of them.

    Raises:
      UserError: one is none.
    """
    found = []
    for item in items(node, key):
        pattern = text(item, key)
        try:
            found.append(re.compile(pattern, flags))
        except re.error as error:
            raise UserError(
                f"{item.where}: {key}: {pattern!r} is no regular expression: {error}."
            ) from None
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
