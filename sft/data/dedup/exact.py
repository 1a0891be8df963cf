"""Rows that say the same as an earlier one, and rows that answer the same prompt differently.

The same prompt with another answer is no duplicate: it is kept, and counted, and can be capped.
The same answer to another prompt is none either.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

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


def several_answers(prompt_ids: np.ndarray, duplicates: Duplicates) -> dict[str, int]:
    """``{"prompts": those with several different answers, "rows": different rows they have,
    "most": the most of one prompt}``.

    Args:
      prompt_ids: int64 ``[n]``, of ``prompts`` with the options that ``duplicates`` was made with.
    """
    counts = np.bincount(prompt_ids[~duplicates.is_repeat])
    counts = counts[counts > 1]
    return {"prompts": len(counts), "rows": int(counts.sum()), "most": int(counts.max(initial=0))}


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
