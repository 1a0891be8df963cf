"""Validation and test rows cut from the training rows, whole groups at a time.

A group (an author, a document, a conversation cut into pieces) lies in one split: its rows resemble
one another, and a model that trained on some of them would be measured on what it has seen.
"""

import collections
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from sft.data.conversation import Conversation
from sft.errors import UserError

STRATA = ("", "category", "origin")


def assign(
    conversations: Sequence[Conversation], shares: Mapping[str, float], seed: int, stratify: str
) -> dict[str, np.ndarray]:
    """Which rows belong to which split.

    In each stratum the groups are ordered by a hash of (seed, key) and go, whole, to the first
    split that has not reached its share of the stratum's rows; the rest is for training. The last
    group may carry a split over its share. The result depends on neither the order of the rows nor
    anything but their content: a row added later moves few others.

    Args:
      shares: name of each split but "train" → its share of the rows, 0 to below 1.
      stratify: "category" | "origin": the same shares of each; "" = of all rows together. A group
        that spans several belongs to its most frequent one.

    Returns:
      name → ascending int64 indices, of "train" too. Every row is in exactly one.

    Raises:
      UserError: shares that leave nothing for training, a split that would be empty, an unknown
        ``stratify``, or rows without the category to stratify by.
    """
    _check(conversations, shares, stratify)
    groups: dict[str, list[int]] = collections.defaultdict(list)
    for index, conversation in enumerate(conversations):
        groups[_key(conversation)].append(index)
    strata = collections.defaultdict(list)
    for key, rows in groups.items():
        strata[_stratum([conversations[i] for i in rows], stratify)].append(key)

    found: dict[str, list[int]] = {name: [] for name in ("train", *shares)}
    before = 0
    for stratum in sorted(strata):
        keys = sorted(strata[stratum], key=lambda key: _digest(str(seed), key))
        after = before + sum(len(groups[key]) for key in keys)
        # Rounded over all strata so far: many small ones together still have their share.
        wanted = {name: round(s * after) - round(s * before) for name, s in shares.items()}
        before = after
        for key in keys:
            name = next((name for name, rows in wanted.items() if rows > 0), "train")
            found[name] += groups[key]
            if name in wanted:
                wanted[name] -= len(groups[key])
    _check_filled(found, shares, len(groups))
    return {name: np.array(sorted(rows), np.int64) for name, rows in found.items()}


def content(conversation: Conversation) -> str:
    """32 hex digits of everything that is said in it; not of where it comes from."""
    parts = ["" if conversation.system is None else f"system {conversation.system}"]
    for turn in conversation.turns:
        parts += [turn.role, str(turn.trained), turn.text]
    return _digest(*parts)


def _key(conversation: Conversation) -> str:
    """Of the group; of a row without one, its content, so that equal rows are together."""
    if conversation.group:
        return f"group {conversation.group}"
    return f"row {content(conversation)}"


def _digest(*parts: str) -> str:
    """32 hex digits; unlike ``hash`` the same in every process. Lengths keep parts apart."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode(errors="surrogatepass")
        found.update(len(encoded).to_bytes(8, "little") + encoded)
    return found.hexdigest()


def _stratum(rows: Sequence[Conversation], stratify: str) -> str:
    if not stratify:
        return ""
    counts = collections.Counter(getattr(row, stratify) for row in rows)
    return min(counts, key=lambda name: (-counts[name], name))


def _check(
    conversations: Sequence[Conversation], shares: Mapping[str, float], stratify: str
) -> None:
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise UserError(f"config.data.split.{name} = {share}: expected 0 to below 1.")
    if sum(shares.values()) >= 1:
        given = " and ".join(f"config.data.split.{name} = {s}" for name, s in shares.items())
        raise UserError(f"{given} leave no rows for training. Their sum must be below 1.")
    if stratify not in STRATA:
        raise UserError(f"config.data.split.stratify = {stratify!r}: expected one of {STRATA}.")
    if stratify == "category":
        bare = [row.source for row in conversations if not row.category]
        if bare:
            raise UserError(
                f"{bare[0]}: no category, which config.data.split.stratify = 'category' needs; so "
                f"have {len(bare)} of {len(conversations)} rows. Set config.data.reading.category "
                "to their column, or stratify by origin or not at all."
            )


def _check_filled(found: Mapping[str, list], shares: Mapping[str, float], groups: int) -> None:
    rows = sum(len(indices) for indices in found.values())
    cut = f"{rows} training rows in {groups} groups"
    for name, share in shares.items():
        if share and not found[name]:
            raise UserError(
                f"config.data.split.{name} = {share}: {cut} give it no row. Raise the share, add "
                f"rows, or set config.data.{name} to a file of its own."
            )
    if not found["train"]:
        raise UserError(
            f"config.data.split: {cut} leave none for training, because groups stay whole. Lower "
            "the shares, or choose a finer config.data.reading.group."
        )
