"""Examples in the prompt (k-shot): training rows put before what is asked, as earlier turns.

Each prompt draws its own k examples, as Brown et al. (2020, arXiv:2005.14165, section 2) do: with
one draw for all prompts, a lucky example would move every score, and no interval would show it.
The draw depends on the seed and the conversation alone: not on other prompts, nor on their order.
"""

import dataclasses
import random
from collections.abc import Iterable, Sequence

from ml_collections import ConfigDict

from sft.data.conversation import Conversation
from sft.data.dedup import normal
from sft.data.sets import loading
from sft.data.tokenizer.sentencepiece import Tokenizer
from sft.errors import UserError
from sft.model.specs import Spec

_SAME = normal.Options(case=True, punctuation=True)


@dataclasses.dataclass(frozen=True)
class Shots:
    """Conversations with their examples.

    Attributes:
      conversations: one for each that was given, in order.
      excluded: training rows that are no examples, as an evaluated row says the same.
      shortened: conversations that have fewer than k examples, for lack of room.
      left_out: examples that they lack, in all.
    """

    conversations: list[Conversation]
    excluded: int
    shortened: int
    left_out: int

    @property
    def report(self) -> dict[str, int]:
        """For the result file."""
        return {name: getattr(self, name) for name in ("excluded", "shortened", "left_out")}


def put(
    config: ConfigDict,
    spec: Spec,
    tok: Tokenizer,
    train: Sequence[Conversation],
    evaluated: Sequence[Conversation],
) -> Shots:
    """``config.eval.shots`` examples from ``train`` before the prompt of each of ``evaluated``.

    No row of ``train`` is used that opens as one of ``evaluated`` does, whichever prompt it would
    stand before. Where the prompt grows beyond ``config.eval.shots_max_length`` tokens, the
    examples drawn last are left out until it fits.

    Raises:
      UserError: too few rows are left to draw from.
    """
    k, limit = config.eval.shots, config.eval.shots_max_length
    rows = apart(train, evaluated)
    if len(rows) < k:
        raise UserError(
            f"config.eval.shots = {k}: only {len(rows)} of {len(train)} training rows are not "
            "among the evaluated ones. Lower it, or give more rows in config.data.train."
        )
    made, shortened, left_out = [], 0, 0
    for conversation in evaluated:
        drawn = draw(rows, conversation, k, config.seed)
        kept = k
        while kept:
            whole = before(drawn[:kept], conversation)
            if len(loading.prompts(config, spec, tok, [whole])[0]) <= limit:
                break
            kept -= 1
        made.append(before(drawn[:kept], conversation))
        shortened += kept < k
        left_out += k - kept
    return Shots(made, len(train) - len(rows), shortened, left_out)


def apart(train: Sequence[Conversation], evaluated: Sequence[Conversation]) -> list[Conversation]:
    """The rows of ``train`` that open otherwise than every one of ``evaluated``.

    A row gives an answer away if it has the same first turns up to some turn of the user. Case,
    punctuation, white space, composition and the system instruction make no difference.
    """
    taken = {key for conversation in evaluated for key in _openings(conversation)}
    return [row for row in train if taken.isdisjoint(_openings(row))]


def draw(
    rows: Sequence[Conversation], conversation: Conversation, k: int, seed: int
) -> list[Conversation]:
    """``k`` of ``rows``, none twice; the same for the same prompt and seed in any process."""
    asked = normal.key([conversation.system or "", *_asked(conversation)])
    return random.Random(f"{seed} {asked.hex()}").sample(rows, k)


def before(examples: Sequence[Conversation], conversation: Conversation) -> Conversation:
    """The turns of the examples, which are context, and then those of ``conversation``.

    A format has room for one system instruction: that of ``conversation`` opens the whole, the
    examples included. An example that has another one brings it as Gemma 3 brings any, in front of
    its first prompt with a blank line.
    """
    turns = []
    for example in examples:
        first, *rest = example.turns
        if example.system and example.system != conversation.system:
            first = dataclasses.replace(first, text=f"{example.system}\n\n{first.text.strip()}")
        turns += [dataclasses.replace(turn, trained=False) for turn in (first, *rest)]
    return dataclasses.replace(conversation, turns=(*turns, *conversation.turns))


def _asked(conversation: Conversation) -> list[str]:
    """The texts up to the last turn of the user."""
    turns = conversation.turns
    return [turn.text for turn in (turns[:-1] if turns[-1].role == "model" else turns)]


def _openings(conversation: Conversation) -> Iterable[bytes]:
    """A key of the turns up to and with each turn of the user."""
    texts = [normal.text(text, _SAME) for text in _asked(conversation)]
    return [normal.key(texts[:end]) for end in range(1, len(texts) + 1, 2)]
