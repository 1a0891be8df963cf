"""Training rows that give away a row of validation or test.

Evaluation sets are only read; the training row is what has to go. A row is a leak for the first of
these reasons that holds against some evaluation row; texts are compared in the normal form of
``sft.data.dedup.normal``, with the options that decide which training rows are equal:

``leak_prompt``
    a turn of the user is the evaluation row's prompt, by which its first turn of the user with at
    least ``prompt_tokens`` tokens is meant.
``leak_item``
    the whole evaluation row, prompts and answers, stands in it, however short.
``leak_answer``
    an answer of at least ``response_tokens`` tokens besides forms is the same.
``leak_window``
    an answer shares ``window`` tokens besides forms, one after another, with one of its answers.
``leak_near``
    the two, without forms, are near-duplicates (Jaccard similarity of ``jaccard`` or more).
``leak_coverage``
    the row's n-grams of ``ngram`` tokens cover a share of ``coverage`` of the tokens of its prompts
    and answers, and of its prompts alone (the 8 tokens and one half of Tülu 3, arXiv:2411.15124).
    Prompts of fewer than three n-grams are not judged so.

Forms are those of the training rows, see ``sft.data.dedup.templates``. Where pieces are looked for,
n-grams in a ``common_share`` of the rows (and at least 10, or half of a set of fewer than 20) are
neither covered nor to be covered.

What is said in other words is not found: no comparison of tokens finds a rephrased question
(arXiv:2311.04850).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.conversation import Conversation
from sft.data.dedup import (
    coverage,
    engines,
    hash_windows,
    near,
    normal,
    overlap,
    repeats,
    same_text,
    templates,
)
from sft.data.dedup.overlap import ANSWERS
from sft.data.dedup.same_text import Set
from sft.data.dedup.stretches import without
from sft.errors import UserError

CODES = {
    "leak_prompt": "the prompt is the same",
    "leak_item": "the whole row is in it",
    "leak_answer": "a long answer is the same",
    "leak_window": "a stretch of an answer is the same",
    "leak_near": "the two are near-duplicates",
    "leak_coverage": "most of its text is in it, in pieces",
}
SAME = ("leak_prompt", "leak_item", "leak_answer")  # the other codes find what is similar
NONE = np.iinfo(np.int64).max  # "no evaluation row": above every index


@dataclasses.dataclass(frozen=True)
class Options:
    """Thresholds; the lengths are in tokens, the meanings are above.

    Attributes:
      form: which texts are the same.
      memory: bytes that the search for forms may use.
    """

    prompt_tokens: int = 8
    response_tokens: int = 50
    window: int = 50
    jaccard: float = 0.8
    ngram: int = 8
    coverage: float = 0.5
    template_share: float = 0.05
    template_rows: int = 10
    common_share: float = 0.001
    form: normal.Options = dataclasses.field(default_factory=normal.Options)
    memory: int = engines.MEMORY


class Compared(NamedTuple):
    """A set, and its rows without forms."""

    whole: Set
    said: Examples


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
        validation that gives away one of a test set, ``leak_item`` before all other reasons.
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
      row, "same": those given away for a reason in ``SAME``, "share": touched of the rows,
      "train_rows", "reasons": {code: rows}, "answer_tokens", "shared_tokens": of its answers, in a
      window that training has too, "shared_share"}``.
    """
    options = options or Options()
    names = [name for name in held if name != "validation"]
    names += [name for name in held if name == "validation"]
    count = len(train.examples)
    codes, sets, rows = (np.full(count, -1, np.int64) for _ in range(3))
    shares = {}
    ours, theirs = _compared(train, held, options)
    for number, name in enumerate(names):
        found, shared = compare(ours, theirs[name], options)
        shares[name] = _shares(found, shared, held[name].examples)
        free = codes < 0
        for code, match in enumerate(found.values()):
            new = free & (match.first < NONE)
            codes[new], sets[new], rows[new] = code, number, match.first[new]
            free &= ~new
    return Hits(codes, names, sets, rows, shares, _pairs(theirs, options))


def _compared(
    train: Set, held: Mapping[str, Set], options: Options
) -> tuple[Compared, dict[str, Compared]]:
    """The sets without the forms of the training rows."""
    how = repeats.Options(
        engine="hash",
        template_share=options.template_share,
        template_rows=options.template_rows,
        memory=max(options.memory, hash_windows.least_memory(templates.LENGTH)),
    )
    every = np.ones(len(train.examples), bool)
    forms = templates.find(train.examples, origins(train.conversations), how, every)

    def bare(one: Set) -> Compared:
        return Compared(one, without(one.examples, templates.inside(one.examples, forms)))

    return bare(train), {name: bare(one) for name, one in held.items()}


def compare(train: Compared, held: Compared, options: Options) -> tuple[dict[str, Match], int]:
    """The match by every reason, in the order of ``CODES``, and the number of shared tokens."""
    size = len(train.said), len(held.said)
    found = {code: Match(*size) for code in CODES}
    if not all(size):
        return found, 0
    counted = Set(held.whole.conversations, held.said)
    lengths = options.prompt_tokens, options.response_tokens
    alike = same_text.find(train.whole, counted, *lengths, options.form)
    for code, (rows, others) in zip(found, alike, strict=False):
        found[code].add(rows, others)
    shared = _windows(train.said, held.said, options.window, found["leak_window"])
    if options.jaccard:
        chosen = near.Options(jaccard=options.jaccard)
        rows, others, _ = near.pairs_between(train.said, held.said, chosen)
        found["leak_near"].add(rows, others)
    if options.coverage:
        whole = train.whole.examples, held.whole.examples
        rows, others = coverage.pairs(*whole, options.ngram, options.coverage, options.common_share)
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
                f"config.data.leakage.max_share = {max_share}. Set "
                'config.data.leakage.action to "drop", split by group (config.data.reading.group), '
                "remove these training rows (data/report.html lists them), or raise the limit."
            )


def _shares(found: dict[str, Match], shared: int, held: Examples) -> dict[str, Any]:
    touched = np.any([match.touched for match in found.values()], axis=0)
    same = np.any([found[code].touched for code in SAME], axis=0)
    leaks = np.any([match.first < NONE for match in found.values()], axis=0)
    tokens = int(np.isin(held.kinds, ANSWERS).sum())
    return {
        "rows": len(held),
        "touched": int(touched.sum()),
        "same": int(same.sum()),
        "share": float(touched.sum() / max(len(held), 1)),
        "train_rows": int(leaks.sum()),
        "reasons": {code: int(match.touched.sum()) for code, match in found.items()},
        "answer_tokens": tokens,
        "shared_tokens": shared,
        "shared_share": shared / max(tokens, 1),
    }


def _pairs(held: Mapping[str, Compared], options: Options) -> list[dict[str, Any]]:
    """Rows of validation that give away one of a test set."""
    pairs = []
    for name in held:
        if name == "validation" or "validation" not in held:
            continue
        found, _ = compare(held["validation"], held[name], options)
        listed: set[int] = set()
        for code in ("leak_item", *CODES):
            match = found[code]
            for row in np.flatnonzero(match.first < NONE).tolist():
                if row not in listed:
                    listed.add(row)
                    place = {"left": "validation", "row": row}
                    pairs.append(
                        place | {"right": name, "other": int(match.first[row]), "code": code}
                    )
    return sorted(pairs, key=lambda pair: (pair["right"], pair["row"]))


def _windows(train: Examples, held: Examples, window: int, match: Match) -> int:
    """Notes the rows with a shared window; returns the tokens of ``held`` in such windows."""
    if not window:
        return 0
    known = overlap.index(held, ANSWERS, window)
    rows, ids = overlap.shared(known, train)
    first = np.full(len(known), NONE, np.int64)
    np.minimum.at(first, known.ids, overlap.rows_of(held, known.positions))
    match.add(rows, first[ids])
    hit = np.zeros(len(known), bool)
    hit[ids] = True
    places = known.positions[hit[known.ids]]
    match.touched[overlap.rows_of(held, places)] = True
    return int(overlap.covered(len(held.tokens), places, window).sum())


def origins(conversations: Sequence[Conversation]) -> np.ndarray:
    """int64 ``[n]``: number of each row's origin, in order of appearance."""
    numbers: dict[str, int] = {}
    found = [numbers.setdefault(c.origin, len(numbers)) for c in conversations]
    return np.array(found, np.int64)
