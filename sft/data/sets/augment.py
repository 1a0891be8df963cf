"""Changed copies of training rows: what users type differently, with the answer it should get.

Only texts of the user change; system instructions and answers are what the file says. Every change
is declared in ``config.data.augment``, and drawn from a generator of its own for each copy, seeded
by (seed, content of the row, number of the copy). So rows that are added or removed change nothing
about the others.
"""

import dataclasses
import random
import re
from collections.abc import Callable, Sequence

from etils import epath

from sft.data.conversation import Conversation, Turn, template_parts
from sft.data.read import paths
from sft.data.read.opening import one_line
from sft.data.sets.splits import content
from sft.errors import UserError

_CLOSING = ".!?…。！？"
_GAP = re.compile(r"(?<=\S) (?=\S)")


@dataclasses.dataclass(frozen=True)
class Options:
    """``config.data.augment``, where each field is explained; ``templates`` are its lines."""

    copies: int
    casing: float = 0.0
    whitespace: float = 0.0
    punctuation: float = 0.0
    templates: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Augmented:
    """Rows and their copies.

    Attributes:
      conversations: every row in its order, each followed by its copies.
      made: copies in it.
      unchanged: copies left out because the model would see the same as in the row or in another
        of its copies.
    """

    conversations: list[Conversation]
    made: int
    unchanged: int


def augment(conversations: Sequence[Conversation], options: Options, seed: int) -> Augmented:
    """Makes ``options.copies`` changed copies of each row.

    A copy is cased, spaced and punctuated differently, each with its probability and alike in all
    turns of the user; then a template, drawn evenly, goes around the first of them. A copy keeps
    origin, group and category, and its source ends with " (copy 1)".

    Raises:
      UserError: copies are wanted, but nothing is that could change them.
    """
    changes = (options.casing, options.whitespace, options.punctuation, options.templates)
    if options.copies and not any(changes):
        raise UserError(
            f"config.data.augment.copies = {options.copies}, but casing, whitespace, punctuation "
            "and templates are all off: no copy would differ from its row. Set one of them."
        )
    rows, made = [], 0
    for row in conversations:
        rows.append(row)
        digest = content(row)
        seen = {_prompts(row)}
        for number in range(1, options.copies + 1):
            copy = _copy(row, options, random.Random(f"{seed} {digest} {number}"))
            if _prompts(copy) not in seen:
                seen.add(_prompts(copy))
                rows.append(dataclasses.replace(copy, source=f"{row.source} (copy {number})"))
                made += 1
    return Augmented(rows, made, options.copies * len(conversations) - made)


def load_templates(path: str) -> tuple[str, ...]:
    """The lines of a file, blank ones left out: instructions around a prompt.

    Raises:
      UserError: a missing or empty file, or a line without exactly one ``{prompt}``; names it.
    """
    path = paths.single(path)
    try:
        with one_line(path):
            lines = epath.Path(path).read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8, at byte {error.start + 1}.") from None
    templates = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            names = [name for _, name in template_parts(line.strip()) if name]
        except ValueError as error:
            raise UserError(f"{path}:{number}: {error}. Write {{{{ and }}}} for braces.") from None
        if names != ["prompt"]:
            found = ", ".join(f"{{{name}}}" for name in names) or "no field"
            raise UserError(
                f"{path}:{number}: found {found}, expected {{prompt}} once and no other field. "
                "Write {{ and }} for braces."
            )
        templates.append(line.strip())
    if not templates:
        raise UserError(f"{path}: no templates. Expected one a line, with {{prompt}} in each.")
    return tuple(templates)


def _prompts(row: Conversation) -> tuple[str, ...]:
    """What the user says, as the model sees it: stripped, see ``sft.data.chat.encoding``."""
    return tuple(turn.text.strip() for turn in row.turns if turn.role == "user")


def _copy(row: Conversation, options: Options, rng: random.Random) -> Conversation:
    changes = []
    if rng.random() < options.casing:
        changes.append(_casing(_prompts(row), rng))
    if rng.random() < options.whitespace:
        changes.append(rng.choice((_double, _break)))
    if rng.random() < options.punctuation:
        changes.append(_punctuate)
    turns = list(row.turns)
    for index, turn in enumerate(turns):
        if turn.role == "user":
            text = turn.text.strip() if changes else turn.text
            for change in changes:
                text = change(text, rng)
            turns[index] = dataclasses.replace(turn, text=text)
    if options.templates:
        turns[0] = _ask(turns[0], rng.choice(options.templates))
    return dataclasses.replace(row, turns=tuple(turns))


def _ask(turn: Turn, template: str) -> Turn:
    return dataclasses.replace(turn, text=template.format(prompt=turn.text.strip()))


Change = Callable[[str, random.Random], str]


def _casing(texts: Sequence[str], rng: random.Random) -> Change:
    """Lower, upper or title case, whichever changes something; of scripts without case, none."""
    cases = (str.lower, str.upper, _title)
    able = [case for case in cases if any(case(text) != text for text in texts)]
    case = rng.choice(able) if able else str
    return lambda text, _: case(text)


def _title(text: str) -> str:
    """Each word's first letter upper; ``str.title`` would write "Don'T"."""
    return re.sub(r"\S+", lambda word: word[0][0].upper() + word[0][1:], text)


def _double(text: str, rng: random.Random) -> str:
    """Some single spaces doubled, one at least."""
    gaps = [gap.start() for gap in _GAP.finditer(text)]
    chosen = {gap for gap in gaps if rng.random() < 0.25} or set(
        rng.sample(gaps, min(len(gaps), 1))
    )
    return "".join("  " if index in chosen else char for index, char in enumerate(text))


def _break(text: str, rng: random.Random) -> str:
    """One space turned into a line break."""
    gaps = [gap.start() for gap in _GAP.finditer(text)]
    if not gaps:
        return text
    gap = rng.choice(gaps)
    return f"{text[:gap]}\n{text[gap + 1 :]}"


def _punctuate(text: str, rng: random.Random) -> str:
    """Closing punctuation dropped, or a full stop added where there is none."""
    del rng
    bare = text.rstrip(_CLOSING)
    if bare == text:
        return f"{text}."
    return bare.rstrip() or text
