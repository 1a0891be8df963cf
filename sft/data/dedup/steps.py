"""The steps of deduplication, each on what the earlier ones have left."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.conversation import Conversation
from sft.data.dedup import exact, graph, leakage, near, normal, overlap, substring
from sft.data.dedup.options import Options
from sft.data.dedup.plan import Reason
from sft.data.dedup.same_text import Set


def ranks(conversations: Sequence[Conversation]) -> np.ndarray:
    """int64 ``[n]``: the first row of each row's group; itself for a row without one."""
    return graph.firsts(c.group for c in conversations)


class Steps:
    """What is decided so far; ``stays`` is bool ``[n]``."""

    def __init__(self, train: Set, options: Options):
        self.train, self.options = train, options
        self.stays = np.ones(len(train.examples), bool)
        self.clusters = np.arange(len(train.examples))
        self.reasons: dict[int, Reason] = {}
        self.leaks: dict[int, Reason] = {}
        self.templates: list[dict[str, Any]] = []
        self.form = normal.Options(case=options.case, punctuation=options.punctuation)

    def drop(self, row: int, reason: Reason) -> None:
        """Drops a row, unless an earlier step did."""
        if self.stays[row]:
            self.stays[row] = False
            self.reasons[row] = reason

    def left(self) -> tuple[np.ndarray, Set]:
        """Indices of the rows that are left, and these rows."""
        rows = np.flatnonzero(self.stays)
        if len(rows) == len(self.stays):  # nothing is copied; the tokens may be memory-mapped
            return rows, self.train
        conversations = [self.train.conversations[row] for row in rows.tolist()]
        return rows, Set(conversations, self.train.examples.select(rows))

    def drop_equal(self) -> None:
        conversations = self.train.conversations
        if self.options.exact:
            first = exact.find(conversations, self.form).first
            for row in np.flatnonzero(first != self.clusters).tolist():
                self.drop(row, Reason("exact", "", f"train:{first[row]}"))
            self.clusters = first
        cap = self.options.responses_per_prompt
        prompts = exact.prompts(conversations, self.form)
        for row in np.flatnonzero(exact.over_cap(conversations, prompts, cap, self.form)).tolist():
            self.drop(row, Reason("cap", f"more than {cap} answers", f"train:{prompts[row]}"))

    def drop_near(self) -> None:
        if not self.options.near:
            return
        options = near.Options(jaccard=self.options.near)
        self._keep_one("near", near.find(self.train.examples, options))

    def drop_alike(self) -> None:
        alike = graph.firsts(c.cluster for c in self.train.conversations)
        self._keep_one("embedding", alike)

    def _keep_one(self, code: str, clusters: np.ndarray) -> None:
        """Of each cluster, the first row that is left."""
        first: dict[int, int] = {}
        for row in np.flatnonzero(self.stays).tolist():
            other = first.setdefault(int(clusters[row]), row)
            if other != row:
                self.drop(row, Reason(code, "", f"train:{other}"))
        self.clusters = graph.merge(self.clusters, np.arange(len(clusters)), clusters)

    def drop_leaks(self, held: Mapping[str, Set]) -> leakage.Hits:
        rows, train = self.left()
        options = leakage.Options(
            template_share=self.options.template_share,
            template_rows=self.options.template_rows,
            form=self.form,
            memory=self.options.memory,
        )
        found = leakage.find(train, held, options)
        for place in np.flatnonzero(found.codes >= 0).tolist():
            code, other = found.reason(place)
            reason = Reason(code, "", other)
            if self.options.leakage == "drop":
                self.drop(int(rows[place]), reason)
            else:
                self.leaks[int(rows[place])] = reason
        return found

    def drop_repeats(self) -> dict[str, np.ndarray]:
        """Spans of rows that stay, by the names of ``Plan``'s arrays."""
        rows, train = self.left()
        names = ("rows", "starts", "stops", "owners")
        if not self.options.substring or not len(rows):
            return {name: np.zeros(0, np.int64) for name in names}
        origins = leakage.origins(self.train.conversations)[rows]
        dropped, found = substring.policy(
            train.examples,
            ranks(train.conversations),
            origins,
            self.options.repeats(),
            self.options.action,
            self.options.drop_share,
            self.options.min_trained,
        )
        for place, owner in enumerate(_owners(train.examples, dropped, self.options).tolist()):
            if dropped[place]:
                other = f"train:{rows[owner]}" if owner >= 0 else ""
                self.drop(int(rows[place]), Reason("substring", "", other))
        labels = [*dict.fromkeys(c.origin for c in self.train.conversations)]
        self.templates = [one | {"origin": labels[one["origin"]]} for one in found.templates]
        owners = np.where(found.owners < 0, -1, rows[found.owners])
        arrays = rows[found.rows], found.starts, found.stops, owners
        return dict(zip(names, arrays, strict=True))

    def same_prompt(self) -> dict[str, int]:
        return exact.several_answers(self.left()[1].examples)


def _owners(examples: Examples, dropped: np.ndarray, options: Options) -> np.ndarray:
    """int64 ``[n]``: of a dropped row, the lowest row that stays and has a stretch of its answers;
    -1 for none."""
    owners = np.full(len(examples), -1, np.int64)
    gone, stay = np.flatnonzero(dropped), np.flatnonzero(~dropped)
    if not len(gone):
        return owners
    known = overlap.index(examples.select(gone), overlap.ANSWERS, options.substring)
    rows, ids = overlap.shared(known, examples.select(stay))
    lowest = np.full(len(known), len(examples))
    np.minimum.at(lowest, ids, stay[rows])
    best = np.full(len(gone), len(examples))
    np.minimum.at(best, overlap.rows_of(known.examples, known.positions), lowest[known.ids])
    owners[gone] = np.where(best < len(examples), best, -1)
    return owners
