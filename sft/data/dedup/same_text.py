"""Training rows with the same texts as evaluation rows."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import CONTEXT
from sft.data.conversation import Conversation
from sft.data.dedup import normal
from sft.data.dedup.overlap import TEXT

Pairs = tuple[np.ndarray, np.ndarray]  # int64 rows of training, and of evaluation


class Set(NamedTuple):
    """Rows as texts and, in the same order, as tokens."""

    conversations: Sequence[Conversation]
    examples: Examples


def find(
    train: Set, held: Set, prompt_tokens: int, response_tokens: int, form: normal.Options
) -> list[Pairs]:
    """Pairs with the same prompt, with the whole evaluation row, and with the same answer.

    Texts are compared in their normal ``form``. The prompt of an evaluation row is its first turn
    of the user with ``prompt_tokens`` tokens; answers have at least ``response_tokens``. The system
    instruction does not count.

    Args:
      held: texts, and the tokens that count towards these numbers.
    """
    said = list(_texts(held.conversations, form))
    prompts, items, answers = (defaultdict(list) for _ in range(3))
    for row, (texts, sizes) in enumerate(zip(said, turn_tokens(held.examples), strict=True)):
        turns = list(zip(texts, sizes.tolist(), strict=True))
        asked = [text for text, size in turns[::2] if size >= prompt_tokens]
        for text in asked[:1]:
            prompts[text].append(row)
        for text in {text for text, size in turns[1::2] if size >= response_tokens}:
            answers[text].append(row)
        items[texts[0], texts[1]].append(row)
    found: list[tuple[list[int], list[int]]] = [([], []), ([], []), ([], [])]
    for row, texts in enumerate(_texts(train.conversations, form)):
        for turn in range(0, len(texts) - 1, 2):
            asked, answer = texts[turn : turn + 2]
            whole = [
                other
                for other in items.get((asked, answer), [])
                if texts[turn : turn + len(said[other])] == said[other]
            ]
            others = prompts.get(asked, []), whole, answers.get(answer, [])
            for (left, right), more in zip(found, others, strict=True):
                left += [row] * len(more)
                right += more
    return [(np.array(left, np.int64), np.array(right, np.int64)) for left, right in found]


def turn_tokens(examples: Examples) -> list[np.ndarray]:
    """Tokens of the text of every turn of the user and the model, int64, by row."""
    if not len(examples):
        return []
    # Every example starts with <bos> and a start of turn, which no text can produce.
    opens = np.flatnonzero(examples.tokens == examples.tokens[examples.starts[0] + 1])
    is_text = np.isin(examples.kinds, TEXT).astype(np.int64)
    # The end of an answer that is not trained is of the same kind as its text.
    ends = np.maximum.reduceat(examples.kinds == CONTEXT, opens)
    counts = np.add.reduceat(is_text, opens) - ends
    bounds = np.searchsorted(opens, examples.starts)
    # An odd number of turns: the first is that of a system instruction.
    return [counts[a + (b - a) % 2 : b] for a, b in pairwise(bounds.tolist())]


def _texts(conversations: Sequence[Conversation], form: normal.Options) -> Iterator[list[str]]:
    """The turns of each conversation, as they are compared."""
    for conversation in conversations:
        yield [normal.text(turn.text, form) for turn in conversation.turns]
