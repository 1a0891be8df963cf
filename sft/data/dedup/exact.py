"""Rows that say the same as an earlier one, and rows that answer the same prompt differently.

The same prompt with another answer is no duplicate: it is kept, and counted, and can be capped.
The same answer to another prompt is none either.
"""

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import CONTEXT
from sft.data.conversation import Conversation, Turn
from sft.data.dedup import normal

_AS_WRITTEN = normal.Options()


@dataclasses.dataclass(frozen=True, eq=False)
class Duplicates:
    """Attributes: ``first``: int64 ``[n]``, the index of the first equal row; its own if none."""

    first: np.ndarray

    @property
    def is_repeat(self) -> np.ndarray:
        """bool ``[n]``: an earlier row is equal."""
        return self.first != np.arange(len(self.first))


def find(
    conversations: Sequence[Conversation], options: normal.Options = _AS_WRITTEN
) -> Duplicates:
    """Rows are equal when system instruction, roles and texts are, in their normal form.

    Which turns are trained, group, category and origin do not count. No system instruction is the
    same as an empty one. Compared by 128-bit keys: among a billion rows the chance that any two
    different ones have the same is about 1e-21.
    """
    return Duplicates(_firsts(_key(talk, talk.turns, options) for talk in conversations))


def prompts(
    conversations: Sequence[Conversation], options: normal.Options = _AS_WRITTEN
) -> np.ndarray:
    """int64 ``[n]``: the first row with the same prompt in its normal form, which is its id.

    The prompt is all that stands before the last answer, with the system instruction.
    """
    return _firsts(_key(talk, _split(talk)[0], options) for talk in conversations)


def over_cap(
    conversations: Sequence[Conversation],
    prompt_ids: np.ndarray,
    cap: int,
    options: normal.Options = _AS_WRITTEN,
) -> np.ndarray:
    """bool ``[n]``: rows that give a prompt yet another answer beyond its first ``cap`` ones.

    A row that repeats one of these first answers is not over; ``find`` is for repeats.

    Args:
      prompt_ids: int64 ``[n]``, of ``prompts``.
      cap: different answers of a prompt; 0 = no cap.
    """
    is_over = np.zeros(len(conversations), bool)
    if not cap:
        return is_over
    answers: dict[int, set[bytes]] = {}
    for row, (talk, prompt) in enumerate(zip(conversations, prompt_ids.tolist(), strict=True)):
        known = answers.setdefault(prompt, set())
        answer = normal.key(normal.text(turn.text, options) for turn in _split(talk)[1])
        if len(known) < cap:
            known.add(answer)
        is_over[row] = answer not in known
    return is_over


def several_answers(examples: Examples) -> dict[str, int]:
    """``{"prompts": those with more than one last answer, "rows": how many rows have one of these
    prompts}``, for what the model sees.

    The prompt is all that stands before the last answer. Ids are compared, so texts that become the
    same tokens are the same.
    """
    answers: dict[bytes, Counter[bytes]] = defaultdict(Counter)
    for start, cut, stop in zip(
        examples.starts[:-1], _last_answers(examples), examples.starts[1:], strict=True
    ):
        if cut < stop:
            said = (examples.tokens[start:cut], examples.tokens[cut:stop])
            prompt, answer = (hashlib.blake2b(np.ascontiguousarray(ids)).digest() for ids in said)
            answers[prompt][answer] += 1
    several = [found for found in answers.values() if len(found) > 1]
    return {"prompts": len(several), "rows": sum(found.total() for found in several)}


def _last_answers(examples: Examples) -> np.ndarray:
    """int64 ``[n]``: the position where the last answer of each row starts, or its end if there is
    none."""
    before = np.maximum.accumulate(
        np.where(examples.kinds < CONTEXT, np.arange(1, len(examples.kinds) + 1), 0)
    )
    ends = np.append(0, before)[examples.starts[1:]]
    return np.maximum(ends, examples.starts[:-1])


def _split(talk: Conversation) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
    """(prompt, last answer); a row that ends with the user has no answer."""
    cut = len(talk.turns) - (talk.turns[-1].role == "model")
    return talk.turns[:cut], talk.turns[cut:]


def _key(talk: Conversation, turns: Iterable[Turn], options: normal.Options) -> bytes:
    parts = [normal.text(talk.system or "", options)]
    for turn in turns:
        parts += [turn.role, normal.text(turn.text, options)]
    return normal.key(parts)


def _firsts(keys: Iterable[bytes]) -> np.ndarray:
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(key, row) for row, key in enumerate(keys)], np.int64)
