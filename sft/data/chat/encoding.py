"""A conversation as token ids, and what each of them is.

The formats differ in their control pieces, in where the system instruction goes, and in what opens
the answer. Gemma 2 and 3, here with a system instruction and one exchange:

    <bos><start_of_turn>user
    {system}

    {user}<end_of_turn>
    <start_of_turn>model
    {answer}<end_of_turn>

Gemma 4 has a turn for the system instruction; its large models (12B, 26B-A4B, 31B), with thinking
off, are also sent an empty thought before the answer that is asked for, and before no earlier one:

    <bos><|turn>system
    {system}<turn|>
    <|turn>user
    {user}<turn|>
    <|turn>model
    [<|channel>thought
    <channel|>]{answer}<turn|>

As in the chat templates published with the models, turns are stripped of surrounding whitespace.
So is Gemma 4's system instruction; Gemma 3's goes as written before the first user turn with a
blank line. Gemma 2's own template refuses a system role; we place it as Gemma 3 does.

Trained are the tokens of every answer and the end of turn after it, unless the turn is marked as
context or only the last answer is asked for. The templates end with a newline after the last end
of turn; generation stops before it, so the last turn has none here. It belongs to the next turn,
and (but for the empty thought) a conversation plus one turn extends the same ids.

Text is never control: whatever a row says, its texts become ordinary pieces, and only this module
places control ids. The pieces are tokenized one by one and the ids equal those of the whole
string: control ids and newlines are boundaries that no piece crosses. Stripping is what makes this
true: an answer that began with a newline would merge with the one in ``model\\n``.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence

import numpy as np

from sft.data.read.records import Conversation, Turn, role_problem
from sft.data.tokenizer.sentencepiece import Tokenizer
from sft.errors import UserError

# What a token is. From ANSWER on, it is trained.
SCAFFOLD = 0  # <bos>, headers, the ends of user turns, newlines between turns
SYSTEM = 1
PROMPT = 2  # text of the user
CONTEXT = 3  # an answer that is not trained, and its end
ANSWER = 4
END = 5  # the end of a trained answer

TRAIN_ON = ("all", "last")


@dataclasses.dataclass(frozen=True)
class Format:
    """Attributes: ``turn_pieces``: control pieces that open and close a turn. ``system_turn``: the
    system instruction has a turn; otherwise it opens the first user turn. ``thought``: control
    pieces around the empty thought that opens the last answer, if any."""

    turn_pieces: tuple[str, str]
    system_turn: bool = False
    thought: tuple[str, str] | None = None

    @property
    def pieces(self) -> tuple[str, ...]:
        """All control pieces but ``<bos>``."""
        return (*self.turn_pieces, *(self.thought or ()))


MARK = "\ue000"  # before a control piece in ``spell``; of Unicode's private use, so in no text
_TURNS_4 = ("<|turn>", "<turn|>")
FORMATS = {
    "gemma2": Format(("<start_of_turn>", "<end_of_turn>")),
    "gemma3": Format(("<start_of_turn>", "<end_of_turn>")),
    "gemma4": Format(_TURNS_4, system_turn=True),
    "gemma4_large": Format(_TURNS_4, system_turn=True, thought=("<|channel>", "<channel|>")),
}


@dataclasses.dataclass(frozen=True)
class Example:
    """Attributes: ``tokens``: int32 ``[n]``. ``kinds``: uint8 ``[n]``, as above."""

    tokens: np.ndarray
    kinds: np.ndarray

    @property
    def is_target(self) -> np.ndarray:
        """bool ``[n]``: token i is predicted in training."""
        return self.kinds >= ANSWER

    @property
    def is_prompt(self) -> np.ndarray:
        """bool ``[n]``: token i is what the user, the system or the format put before an answer."""
        return self.kinds < CONTEXT


def encode(
    conversation: Conversation, tokenizer: Tokenizer, format: str, train_on: str = "all"
) -> Example:
    """Ids and kinds of a whole conversation; the kind is decided where a token is emitted.

    Args:
      format: a name in ``FORMATS``.
      train_on: ``all`` answers that are not marked as context, or at most the ``last``.

    Raises:
      UserError: an unknown format or one of another tokenizer, a wrong order of roles, an answer
        without text, or no answer to train.
    """
    tokens, kinds = render(conversation, tokenizer, format, train_on)
    return Example(np.frombuffer(tokens, np.int32), np.frombuffer(kinds, np.uint8))


def render(
    conversation: Conversation, tokenizer: Tokenizer, format: str, train_on: str = "all"
) -> tuple[bytes, bytes]:
    """``encode`` as the bytes of the two arrays, which join faster than arrays do."""
    turns, source = conversation.turns, conversation.source
    shape = _check(turns, source, tokenizer, format, last="model")
    if train_on not in TRAIN_ON:
        raise UserError(f"config.data.train_on = {train_on!r}: expected one of {TRAIN_ON}.")
    for index, turn in enumerate(turns):
        if turn.role == "model" and not turn.text.strip():
            raise UserError(
                f"{source}: turn {index + 1}: the answer has no text: nothing to train."
            )
    trained = [turn.role == "model" and turn.trained for turn in turns]
    if train_on == "last":
        trained[:-1] = [False] * (len(turns) - 1)
    if not any(trained):
        which = "the last answer is" if train_on == "last" else "all answers are"
        raise UserError(f"{source}: {which} marked as context: nothing to train. Remove the row.")
    pieces = list(_pieces(turns, trained, conversation.system, tokenizer, shape))
    kinds = b"".join([bytes((kind,)) * (len(ids) // 4) for ids, kind in pieces])
    return b"".join([ids for ids, _ in pieces]), kinds


def encode_prompt(
    conversation: Conversation | Sequence[Turn], tokenizer: Tokenizer, format: str
) -> np.ndarray:
    """The ids that serving sends, int32 ``[n]``: up to where the answer starts.

    A final model turn is dropped; ``encode`` of the whole conversation starts with these ids.

    Raises:
      UserError: an unknown format or one of another tokenizer, or a wrong order of roles.
    """
    if isinstance(conversation, Conversation):
        turns, system, source = conversation.turns, conversation.system, conversation.source
    else:
        turns, system, source = conversation, None, "prompt"
    if turns and turns[-1].role == "model":
        turns = turns[:-1]
    shape = _check(turns, source, tokenizer, format, last="user")
    pieces = _pieces(turns, [False] * len(turns), system, tokenizer, shape)
    return np.frombuffer(b"".join([ids for ids, _ in pieces]), np.int32)


def spell(turns: Sequence[Turn], system: str | None, tokenizer: Tokenizer, format: str) -> str:
    """The prompt as text, for programs that pass text on: ``unspell`` gives ``encode_prompt``.

    Control pieces are marked, so that the same words in a turn stay words. ``<bos>`` is left out.

    Raises:
      UserError: as ``encode_prompt``.
    """
    shape = _check(turns, "prompt", tokenizer, format, last="user")
    pieces = _pieces(turns, [False] * len(turns), system, _Speller(), shape)
    return b"".join([text for text, _ in pieces]).decode()


class _Speller:
    """Stands where a tokenizer does, and leaves text as it is."""

    def encode_bytes(self, text: str) -> bytes:
        return text.replace(MARK, "").encode()

    def control_bytes(self, piece: str) -> bytes:
        return b"" if piece == "<bos>" else f"{MARK}{piece}".encode()


def unspell(text: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of text in which control pieces may be marked, without ``<bos>``."""
    marked = "|".join(re.escape(piece) for shape in FORMATS.values() for piece in shape.pieces)
    ids: list[int] = []
    for part in re.split(f"({MARK}(?:{marked}))", text):
        if part.startswith(MARK) and tokenizer.has_control(part[1:]):
            ids += np.frombuffer(tokenizer.control_bytes(part[1:]), np.int32).tolist()
        elif part:
            ids += tokenizer.encode(part)
    return ids


def _pieces(
    turns: Sequence[Turn],
    trained: Sequence[bool],
    system: str | None,
    tokenizer: "Tokenizer | _Speller",
    shape: Format,
) -> Iterator[tuple[bytes, int]]:
    """(bytes of int32 ids, kind) in order. A user turn brings the header of its answer."""
    text_ids, control = tokenizer.encode_bytes, tokenizer.control_bytes
    start, end = (control(piece) for piece in shape.turn_pieces)
    newline = text_ids("\n")
    user, model = start + text_ids("user\n"), start + text_ids("model\n")
    last_user = (len(turns) - 1) // 2 * 2
    yield control("<bos>"), SCAFFOLD
    if system and shape.system_turn:
        yield start + text_ids("system\n"), SCAFFOLD
        yield text_ids(system.strip()), SYSTEM
        yield end + newline, SCAFFOLD
    for index, turn in enumerate(turns):
        if turn.role == "model":
            yield text_ids(turn.text.strip()), ANSWER if trained[index] else CONTEXT
            yield end, END if trained[index] else CONTEXT
            continue
        if index:
            yield newline, SCAFFOLD
        if system and not index and not shape.system_turn:
            # Its leading newlines merge with the header's, so the two are tokenized together.
            opening = start + text_ids(f"user\n{system}\n\n")
            yield opening[: len(user)], SCAFFOLD
            yield opening[len(user) :], SYSTEM
        else:
            yield user, SCAFFOLD
        yield text_ids(turn.text.strip()), PROMPT
        yield end + newline + model, SCAFFOLD
        if shape.thought and index == last_user:
            before, after = shape.thought
            yield control(before) + text_ids("thought\n") + control(after), SCAFFOLD


def _check(
    turns: Sequence[Turn], source: str, tokenizer: Tokenizer, format: str, last: str
) -> Format:
    if format not in FORMATS:
        raise UserError(f"chat format {format!r}: unknown; known: {', '.join(FORMATS)}.")
    shape = FORMATS[format]
    for piece in shape.pieces:
        if not tokenizer.has_control(piece):
            raise UserError(
                f"chat format {format!r} needs the piece {piece!r}, but the tokenizer "
                f"{tokenizer.source} has none (its turns open with "
                f"{tokenizer.turn_pieces[0]!r}). Set data.chat or model.tokenizer."
            )
    problem = role_problem(turns, last)
    if problem:
        raise UserError(f"{source}: {problem}.")
    return shape
