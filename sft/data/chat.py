"""A conversation as token ids, and which of them are trained.

Both generations speak the same format, here with a system instruction and one exchange:

    <bos><start_of_turn>user
    {system}

    {user}<end_of_turn>
    <start_of_turn>model
    {answer}<end_of_turn>

As in the chat templates published with the models, turns are stripped of surrounding whitespace
and the system instruction, unstripped, goes before the first user turn with a blank line. Gemma 2's
own template refuses a system role; we place it as Gemma 3 does.

Trained are the tokens of every answer and the ``<end_of_turn>`` after it. The templates end with a
newline after the last ``<end_of_turn>``; generation stops before it, so the last turn has none
here. It belongs to the next turn, and a conversation plus one turn extends the same ids.

The pieces are tokenized one by one and the ids equal those of the whole string: control ids and
newlines are boundaries that no piece crosses. Stripping is what makes this true: an answer that
began with a newline would merge with the one in ``model\\n``.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from sft.data.records import Conversation, Turn, role_problem
from sft.data.tokenizer import Tokenizer
from sft.errors import UserError

FAMILIES = ("gemma2", "gemma3")


@dataclasses.dataclass(frozen=True)
class Example:
    """Attributes: ``tokens``: int32 ``[n]``. ``is_target``: bool ``[n]``, token i is predicted."""

    tokens: np.ndarray
    is_target: np.ndarray


def encode(conversation: Conversation, tokenizer: Tokenizer, family: str) -> Example:
    """Ids and loss mask of a whole conversation; the mask is decided where a token is emitted.

    Raises:
      UserError: an unknown family, a wrong order of roles, or an answer without text.
    """
    turns, source = conversation.turns, conversation.source
    _check(turns, source, family, last="model")
    for index, turn in enumerate(turns):
        if turn.role == "model" and not turn.text.strip():
            raise UserError(
                f"{source}: turn {index + 1}: the answer has no text: nothing to train."
            )
    tokens: list[int] = []
    is_target: list[bool] = []
    for ids, trained in _pieces(turns, conversation.system, tokenizer):
        tokens += ids
        is_target += [trained] * len(ids)
    return Example(np.array(tokens, np.int32), np.array(is_target, bool))


def encode_prompt(
    conversation: Conversation | Sequence[Turn], tokenizer: Tokenizer, family: str
) -> np.ndarray:
    """The ids that serving sends, int32 ``[n]``: up to the last ``<start_of_turn>model`` newline.

    A final model turn is dropped; ``encode`` of the whole conversation starts with these ids.

    Raises:
      UserError: an unknown family or a wrong order of roles.
    """
    if isinstance(conversation, Conversation):
        turns, system, source = conversation.turns, conversation.system, conversation.source
    else:
        turns, system, source = conversation, None, "prompt"
    if turns and turns[-1].role == "model":
        turns = turns[:-1]
    _check(turns, source, family, last="user")
    tokens = [token for ids, _ in _pieces(turns, system, tokenizer) for token in ids]
    return np.array(tokens, np.int32)


def _pieces(
    turns: Sequence[Turn], system: str | None, tokenizer: Tokenizer
) -> Iterator[tuple[list[int], bool]]:
    """(ids, trained) in order. A user turn brings the header of the answer that follows it."""
    start, end = tokenizer.start_of_turn_id, tokenizer.end_of_turn_id
    newline = tokenizer.encode("\n")
    yield [tokenizer.bos_id], False
    for index, turn in enumerate(turns):
        text = turn.text.strip()
        if turn.role == "model":
            yield [*tokenizer.encode(text), end], True
            continue
        if index:
            yield newline, False
        prefix = f"{system}\n\n" if system and not index else ""
        yield [start, *tokenizer.encode(f"user\n{prefix}{text}"), end, *newline], False
        yield [start, *tokenizer.encode("model\n")], False


def _check(turns: Sequence[Turn], source: str, family: str, last: str) -> None:
    if family not in FAMILIES:
        raise UserError(f"model family {family!r}: no chat format; known: {', '.join(FAMILIES)}.")
    problem = role_problem(turns, last)
    if problem:
        raise UserError(f"{source}: {problem}.")
