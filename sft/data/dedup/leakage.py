"""Training rows that give away a row of validation or test.

Evaluation sets are only read; the training row is what has to go. A row is a leak for the first of
these reasons that holds against some evaluation row; texts are compared in Unicode form NFC with
every run of white space as one space:

``leak_prompt``
    a turn of the user is the evaluation row's prompt, by which its first turn of the user with at
    least ``prompt_tokens`` tokens is meant.
``leak_item``
    the whole evaluation row, prompts and answers, stands in it, however short.
``leak_answer``
    an answer of at least ``response_tokens`` tokens is the same.
``leak_window``
    an answer shares a window of ``window`` tokens with one of its answers.
``leak_near``
    the two are near-duplicates (Jaccard similarity of ``jaccard`` or more).
``leak_coverage``
    the row's n-grams of ``ngram`` tokens cover a share of ``coverage`` of the tokens of its prompts
    and answers, and of its prompts alone (the 8 tokens and one half of Tülu 3, arXiv:2411.15124).
    Prompts of fewer than three n-grams are not judged so.

Windows in a ``template_share`` of the rows of a source (and at least ``template_rows``) are a form,
and so are n-grams in a ``common_share`` of the rows (and at least 10, or half of a set of fewer
than 20). Tokens of forms are left out: a shared window has none of them, and they are neither
covered nor to be covered.

What is said in other words is not found: no comparison of tokens finds a rephrased question
(arXiv:2311.04850).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sft.data.conversation import Conversation
from sft.data.dedup import coverage, near, overlap, same_text
from sft.data.dedup.overlap import ANSWERS
from sft.data.dedup.same_text import Set
from sft.data.examples import Examples
from sft.errors import UserError

CODES = {
    "leak_prompt": "the prompt is the same",
    "leak_item": "the whole row is in it",
    "leak_answer": "a long answer is the same",
    "leak_window": "a stretch of an answer is the same",
    "leak_near": "the two are near-duplicates",
    "leak_coverage": "most of its text is in it, in pieces",
}
NONE = np.iinfo(np.int64).max  # "no evaluation row": above every index


@dataclasses.dataclass(frozen=True)
class Options:
    """Thresholds; the lengths are in tokens, the meanings are above."""

    prompt_tokens: int = 8
    response_tokens: int = 50
    window: int = 50
    jaccard: float = 0.8
    ngram: int = 8
    coverage: float = 0.5
    template_share: float = 0.05
    template_rows: int = 100
    common_share: float = 0.001


class Match:
    """For one reason: ``first`` int64 ``[n]``, the lowest evaluation row that each row gives away
    or ``NONE``; ``touched`` bool ``[e]``, the evaluation rows that are given away."""

    def __init__(self, rows: int, held: int):
        self.first = np.full(rows, NONE, np.int64)
        self.touched = np.zeros(held, bool)

    def add(self, rows: np.ndarray | int, held: np.ndarray | int) -> None:
        """Notes that ``rows`` give away ``held``, pair by pair."""
        np.minimum.at(self.first, rows, held)
        self.touched[held] = True


@dataclasses.dataclass(frozen=True)
class Hits:
    """Which training rows are leaks.

    Attributes:
      codes: int64 ``[n]``, index into ``CODES``, -1 for a row that is no leak.
      names: the evaluation sets, the most important first: test sets, then validation.
      sets: int64 ``[n]``, index into ``names``, -1 for none.
      rows: int64 ``[n]``, the evaluation row given away, -1 for none.
      shares: by set, see ``find``.
      pairs: ``{"left": "validation", "row", "right", "other", "code"}`` for every row of
        validation that a test set has too, by the same reasons.
    """

    codes: np.ndarray
    names: list[str]
    sets: np.ndarray
    rows: np.ndarray
    shares: dict[str, dict[str, Any]]
    pairs: list[dict[str, Any]]

    def reason(self, row: int) -> tuple[str, str]:
        """The code of a row that is a leak, and what it gives away, as in ``validation:12``."""
        return [*CODES][self.codes[row]], f"{self.names[self.sets[row]]}:{self.rows[row]}"


def find(train: Set, held: Mapping[str, Set], options: Options | None = None) -> Hits:
    """Compares the training rows with every evaluation set, and validation with the test sets.

    Returns:
      ``Hits``, whose ``shares`` are by set ``{"rows", "touched": rows given away by any training
      row, "share": of the rows, "train_rows", "reasons": {code: rows}, "answer_tokens",
      "shared_tokens": of its answers, in a window that training has too, "shared_share"}``.
    """
    options = options or Options()
    names = [name for name in held if name != "validation"]
    names += [name for name in held if name == "validation"]
    count = len(train.examples)
    codes, sets, rows = (np.full(count, -1, np.int64) for _ in range(3))
    shares = {}
    for number, name in enumerate(names):
        found, shared = compare(train, held[name], options)
        shares[name] = _shares(found, shared, held[name].examples)
        free = codes < 0
        for code, match in enumerate(found.values()):
            new = free & (match.first < NONE)
            codes[new], sets[new], rows[new] = code, number, match.first[new]
            free &= ~new
    return Hits(codes, names, sets, rows, shares, _pairs(held, options))


def compare(train: Set, held: Set, options: Options) -> tuple[dict[str, Match], int]:
    """The match by every reason, in the order of ``CODES``, and the number of shared tokens."""
    size = len(train.examples), len(held.examples)
    found = {code: Match(*size) for code in CODES}
    if not all(size):
        return found, 0
    alike = same_text.find(train, held, options.prompt_tokens, options.response_tokens)
    for code, (rows, others) in zip(found, alike, strict=False):
        found[code].add(rows, others)
    shared = _windows(train, held, options, found["leak_window"])
    if options.jaccard:
        chosen = near.Options(jaccard=options.jaccard)
        rows, others, _ = near.pairs_between(train.examples, held.examples, chosen)
        found["leak_near"].add(rows, others)
    if options.coverage:
        rows, others = coverage.pairs(
            train.examples, held.examples, options.ngram, options.coverage, options.common_share
        )
        found["leak_coverage"].add(rows, others)
    return found, shared


def refuse(shares: Mapping[str, Mapping[str, Any]], max_share: float) -> None:
    """Fails a run whose evaluation would measure what training has seen.

    Args:
      shares: of ``Hits``.
      max_share: largest share of an evaluation set's rows that training rows may give away.

    Raises:
      UserError: more are; names the set and the numbers.
    """
    for name, one in shares.items():
        if one["share"] > max_share:
            reasons = ", ".join(f"{code} {rows}" for code, rows in one["reasons"].items() if rows)
            raise UserError(
                f"config.data.{name}: {one['train_rows']} training rows give away {one['touched']} "
                f"of its {one['rows']} rows ({one['share']:.1%}; by reason: {reasons}); "
                f"config.data.leakage.max_share = {max_share}. Split by group "
                "(config.data.reading.group), remove these training rows (data/report.html lists "
                "them), or raise the limit."
            )


def _shares(found: dict[str, Match], shared: int, held: Examples) -> dict[str, Any]:
    touched = np.any([match.touched for match in found.values()], axis=0)
    leaks = np.any([match.first < NONE for match in found.values()], axis=0)
    tokens = int(np.isin(held.kinds, ANSWERS).sum())
    return {
        "rows": len(held),
        "touched": int(touched.sum()),
        "share": float(touched.sum() / max(len(held), 1)),
        "train_rows": int(leaks.sum()),
        "reasons": {code: int(match.touched.sum()) for code, match in found.items()},
        "answer_tokens": tokens,
        "shared_tokens": shared,
        "shared_share": shared / max(tokens, 1),
    }


def _pairs(held: Mapping[str, Set], options: Options) -> list[dict[str, Any]]:
    """Rows of validation that a test set has too."""
    pairs = []
    for name in held:
        if name == "validation" or "validation" not in held:
            continue
        found, _ = compare(held["validation"], held[name], options)
        told: set[int] = set()
        for code, match in found.items():
            for row in np.flatnonzero(match.first < NONE).tolist():
                if row not in told:
                    told.add(row)
                    place = {"left": "validation", "row": row}
                    pairs.append(
                        place | {"right": name, "other": int(match.first[row]), "code": code}
                    )
    return sorted(pairs, key=lambda pair: (pair["right"], pair["row"]))


def _windows(train: Set, held: Set, options: Options, match: Match) -> int:
    """Notes the rows with a shared window; returns the tokens of ``held`` in such windows."""
    if not options.window:
        return 0
    known = overlap.index(held.examples, ANSWERS, options.window)
    rows, ids = overlap.shared(known, train.examples)
    template = overlap.common(
        rows, ids, len(known), origins(train.conversations),
        options.template_share, options.template_rows,
    )  # fmt: skip
    # A form with the first words of what follows it is a form too: windows must be clear of forms.
    size = len(held.examples.tokens)
    forms = overlap.covered(size, known.positions[template[known.ids]], options.window)
    before = np.concatenate([[0], np.cumsum(forms)])
    is_clear = before[known.positions + options.window] == before[known.positions]
    places, classes = known.positions[is_clear], known.ids[is_clear]
    first = np.full(len(known), NONE, np.int64)
    np.minimum.at(first, classes, overlap.rows_of(held.examples, places))
    rows, ids = rows[first[ids] < NONE], ids[first[ids] < NONE]
    match.add(rows, first[ids])
    hit = np.zeros(len(known), bool)
    hit[ids] = True
    places = places[hit[classes]]
    match.touched[overlap.rows_of(held.examples, places)] = True
    return int(overlap.covered(size, places, options.window).sum())


def origins(conversations: Sequence[Conversation]) -> np.ndarray:
    """int64 ``[n]``: number of each row's origin, in order of appearance."""
    numbers: dict[str, int] = {}
    found = [numbers.setdefault(c.origin, len(numbers)) for c in conversations]
    return np.array(found, np.int64)
