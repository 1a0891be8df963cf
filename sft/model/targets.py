"""``config.lora.targets``: which projections a regular expression means.

Every alternative has to match something: one that does not is a projection that stays untrained
unsaid. An alternative is tried on the projections' names here, then on those of PEFT (``q_proj``,
then ``self_attn.q_proj``); the first kind of which any matches is what it means.
"""

import re
from collections.abc import Iterator, Sequence

from sft.errors import UserError

# Each projection, and what PEFT calls it inside a layer.
MODULES = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_ALL = "all-linear"  # PEFT's name for them
_LOOK = re.compile(r"\(\?(<?[=!]|\()")  # groups that match no text of their own
_FLAGS = re.compile(r"\(\?[aiLmsux]+\)")
_LIST = re.compile(r"""\[[^\]]*["',\s]""")  # as of Python: it would be a set of letters
_WORDS = {  # what is written where names are meant
    **{"attn": "qkvo", "attention": "qkvo", "self_attn": "qkvo", "qkv": "qkv", "qkvo": "qkvo"},
    **{"query": "q", "key": "k", "value": "v", "output": "o", "out": "o", "out_proj": "o"},
}
_MLP = ("mlp", "ffn", "feed_forward", "gate_up")


def match(targets: str) -> tuple[str, ...]:
    """The projections that the expression matches whole, in the order of the forward pass.

    Raises:
      UserError: an alternative of it matches none; says how to write what may be meant.
    """
    if targets == _ALL:
        return tuple(MODULES)
    if _LIST.search(targets):
        raise _nothing(targets, targets)
    flags = _FLAGS.match(targets)
    start = flags[0] if flags else ""
    rest = targets[len(start) :]
    places = _alternatives(rest, 0, len(rest))
    if any(_named(start + rest[first:last]) is None for first, last in places):
        places = [(0, len(rest))]
    found: set[str] = set()
    for first, last in places:
        names = _named(start + rest[first:last])
        if not names:
            raise _nothing(targets, rest[first:last])
        found.update(names)
        for alone, alternative in _inner(rest, first, last):
            if _named(start + alone) == []:
                raise _nothing(targets, alternative)
    return tuple(name for name in MODULES if name in found)


def _named(pattern: str) -> list[str] | None:
    """What one alternative matches; ``None`` = it means nothing without the others, as ``\\1``."""
    try:
        whole = re.compile(pattern)
    except re.error:
        return None
    for spelling in (str, lambda name: MODULES[name].rpartition(".")[2], MODULES.__getitem__):
        names = [name for name in MODULES if whole.fullmatch(spelling(name))]
        if names:
            return names
    return []


def _alternatives(text: str, first: int, last: int) -> list[tuple[int, int]]:
    """Where the alternatives of ``text[first:last]`` begin and end, outside of its groups."""
    ends = [at for at, depth in _marks(text, first, last) if text[at] == "|" and depth == 0]
    return list(zip([first, *(end + 1 for end in ends)], [*ends, last], strict=True))


def _marks(text: str, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Place and depth of each ``(``, ``)`` and ``|`` that means something."""
    at, depth = first, 0
    while at < last:
        sign = text[at]
        if sign == "\\":
            at += 1
        elif sign == "[":
            at = _end_of_set(text, at)
        elif sign == "(":
            yield at, depth
            depth += 1
        elif sign == ")":
            depth -= 1
            yield at, depth
        elif sign == "|":
            yield at, depth
        at += 1


def _end_of_set(text: str, at: int) -> int:
    """Where the set of characters that begins there ends; ``]`` in the first place is a member."""
    at += 1 + (text[at + 1 : at + 2] == "^")
    at += text[at : at + 1] == "]"
    while at < len(text) and text[at] != "]":
        at += 1 + (text[at] == "\\")
    return at


def _inner(text: str, first: int, last: int) -> Iterator[tuple[str, str]]:
    """For each alternative of each group: the expression with it alone, and itself.

    Groups that are repeated are left out, since a name may need several of their alternatives, and
    so are those that only look ahead or back.
    """
    opened = [at for at, depth in _marks(text, first, last) if text[at] == "(" and depth == 0]
    closed = [at for at, depth in _marks(text, first, last) if text[at] == ")" and depth == 0]
    for start, end in zip(opened, closed, strict=False):
        if _LOOK.match(text, start) or text[end + 1 : end + 2] in ("*", "+", "{"):
            continue
        head = re.compile(r"\((\?(:|>|P?<\w+>|[aiLmsux-]+:))?").match(text, start)
        assert head is not None
        begin = head.end()
        alternatives = _alternatives(text, begin, end)
        for one, other in alternatives:
            before, after = text[first:begin], text[end:last]
            if len(alternatives) > 1:
                yield before + text[one:other] + after, text[one:other]
            for within, inner in _inner(text, one, other):
                yield before + within + after, inner


def _nothing(targets: str, alternative: str) -> UserError:
    what = "" if alternative == targets else f": {alternative!r} in it"
    return UserError(
        f"config.lora.targets = {targets!r}{what} matches no projection.{_meant(targets)} Known: "
        f"{', '.join(MODULES)}; names of PEFT, as in q_proj or mlp.up_proj, and {_ALL} will do."
    )


def _meant(targets: str) -> str:
    """``" Did you mean 'q|v'?"`` where every word of it can be told."""
    names: list[str] = []
    for word in re.findall(r"\w+", targets):
        here = _word(word)
        if not here:
            return ""
        names += here
    chosen = "|".join(name for name in MODULES if name in names)
    return f" Did you mean {chosen!r}?" if chosen else ""


def _word(word: str) -> Sequence[str]:
    if word in _MLP:
        return ("gate", "up", "down")
    if word in _WORDS:
        return tuple(_WORDS[word])
    return [name for name, module in MODULES.items() if word in (name, f"{name}_proj", module)]
