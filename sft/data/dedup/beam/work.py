"""What workers do with a shard or a partition: functions of plain values, each a step of the
pipeline.

The marks of a shard travel with it from step to step, as a few arrays; its rows are read again, and
its windows hashed again, wherever they are needed, which costs less than to carry them along.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from sft.data.dedup import repeats, spans, turns
from sft.data.dedup.beam import fingerprints, members, shards
from sft.data.dedup.beam.shards import Shard
from sft.data.dedup.repeats import Options
from sft.data.dedup.stretches import Stretches, answers, flagged, runs
from sft.data.dedup.templates import distinct_runs

COPY, INVOLVED, EXEMPT = 1, 2, 4

MARK = np.dtype([("place", np.int64), ("owner", np.int32), ("flags", np.uint8)])
SPAN = np.dtype([(name, np.int64) for name in ("row", "start", "stop", "owner")])
TEMPLATE = np.dtype(
    [
        *(("position", np.int64), ("row", np.int64), ("high", np.uint64), ("low", np.uint64)),
        *(("rows", np.int64), ("origin", np.int64)),
    ]
)


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """What every worker knows.

    Attributes:
      folder: of the shards.
      bounds: int64 ``[s + 1]``, see ``shards.cut``.
      least: from ``templates.least_rows``; empty in the second search, which has the templates of
        the first.
      partitions: into which members are put; no matter for the result.
      options, action, drop_share, min_trained: see ``substring.policy``.
    """

    folder: str
    bounds: np.ndarray
    least: np.ndarray
    partitions: int
    options: Options
    action: str
    drop_share: float
    min_trained: int

    def again(self) -> "Job":
        """The job of the second search."""
        return dataclasses.replace(self, least=np.zeros(0))


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """What is known of a shard; ``None``: nothing yet.

    Attributes:
      marks: MARK ``[m]``: windows of the latest search, by their first token in the shard, in
        ascending order. Of an exempt one that is in its flags alone.
      dropped: bool ``[n]``, rows of the shard.
      spans: SPAN ``[k]``, by rows of the set.
      templates: TEMPLATE ``[t]``, windows by tokens and rows of the set: of equal runs the first.
    """

    marks: np.ndarray | None = None
    dropped: np.ndarray | None = None
    spans: np.ndarray | None = None
    templates: np.ndarray | None = None


Element = tuple[int, State]
Joined = tuple[int, Mapping[str, Iterable]]  # lists of "state" and "decisions"
Members = Iterator[tuple[int, np.ndarray]]


def windows(job: Job, element: Element) -> Members:
    """The windows of a shard that decide about others, by partition."""
    number, state = element
    found, _ = _windows(job, shards.read(job.folder, number), state)
    found = members.essential(found, job.options.gap, job.options, len(job.least) > 0)
    yield from members.by_partition(found, job.partitions)


def decide_windows(job: Job, element: tuple[int, Iterable[np.ndarray]]) -> Members:
    """Decisions about the windows of a partition, by shard."""
    parts, gap = [*element[1]], job.options.gap
    yield from members.decide(parts, job.bounds, job.least, gap, job.options)


def mark(job: Job, element: Joined) -> Element:
    """A shard with the marks of its windows."""
    number, joined = element
    (state,), shard = joined["state"], shards.read(job.folder, number)
    found, places = _windows(job, shard, state)
    index, decisions = members.match(found, [*joined["decisions"]])
    marks = np.zeros(len(index), MARK)
    is_exempt = decisions["rows"] > 0
    is_copy = found["key"][index] >= decisions["limit"]
    marks["place"] = places[index]
    marks["owner"] = np.where(is_copy, decisions["owner"], -1)
    marks["flags"] = np.where(is_exempt, EXEMPT, INVOLVED + COPY * is_copy)
    if state.marks is not None:
        exempt = state.marks[(state.marks["flags"] & EXEMPT) > 0]
        marks = np.concatenate([marks, exempt])
        return number, dataclasses.replace(state, marks=marks[np.argsort(marks["place"])])
    of_templates = np.zeros(is_exempt.sum(), TEMPLATE)
    of_templates["position"] = marks["place"][is_exempt] + shard.position
    of_templates["row"] = found["row"][index][is_exempt]
    for name in ("high", "low", "rows", "origin"):
        of_templates[name] = decisions[name][is_exempt]
    return number, State(marks=marks, templates=_first(of_templates))


def whole_turns(job: Job, element: Element) -> Members:
    """The answers of a shard that decide about others, by partition."""
    number, state = element
    found, _ = _turns(job, shards.read(job.folder, number), state)
    yield from members.by_partition(members.essential(found, 1, job.options), job.partitions)


def decide_turns(job: Job, element: tuple[int, Iterable[np.ndarray]]) -> Members:
    """Decisions about the answers of a partition, by shard."""
    yield from members.decide([*element[1]], job.bounds, np.zeros(0), 1, job.options)


def finish(job: Job, element: Joined) -> Element:
    """A shard with its spans; after the first search, with the rows to drop."""
    number, joined = element
    (state,), shard = joined["state"], shards.read(job.folder, number)
    examples, kept, whole = shard.examples, _kept(shard, state), None
    if job.options.compares_answers:
        found, turns_of = _turns(job, shard, state)
        index, decisions = members.match(found, [*joined["decisions"]])
        is_copy = found["key"][index] >= decisions["limit"]
        whole = turns_of.select(index[is_copy]), decisions["owner"][is_copy].astype(np.int64)
    spanned = spans.join(examples, kept, _marks(shard, state), whole, job.options, [])
    dropped = state.dropped
    if dropped is None:
        how = job.action, job.drop_share, job.min_trained
        dropped = spans.to_drop(examples, spanned, *how)
        spanned = spanned.select(~dropped[spanned.rows])
    table = np.zeros(len(spanned.rows), SPAN)
    table["row"] = spanned.rows + shard.row
    table["start"], table["stop"], table["owner"] = spanned.starts, spanned.stops, spanned.owners
    return number, dataclasses.replace(state, dropped=dropped, spans=table)


def store(job: Job, element: Element) -> int:
    """Writes what the driver reads; the number of the shard."""
    number, state = element
    found = {name: getattr(state, name) for name in ("dropped", "spans", "templates")}
    shards.write_outcome(job.folder, number, **found)
    return number


def _kept(shard: Shard, state: State) -> np.ndarray:
    return np.ones(len(shard.examples), bool) if state.dropped is None else ~state.dropped


def _windows(job: Job, shard: Shard, state: State) -> tuple[np.ndarray, np.ndarray]:
    """The windows to look at, in ascending order: MEMBER ``[m]``, and int64 ``[m]`` where each
    starts. In the second search, those of the kept rows that were involved in the first."""
    examples, length = shard.examples, job.options.length
    kept = _kept(shard, state)
    if state.marks is None:
        places = runs(answers(examples, kept), examples.starts)
        places = places.select(places.lengths >= length)
        last = places.stops - length + 1
        starts = np.flatnonzero(flagged(places.begins, last, len(examples.tokens)))
    else:
        starts = state.marks["place"][(state.marks["flags"] & INVOLVED) > 0]
    rows = np.searchsorted(examples.starts, starts, side="right") - 1
    starts, rows = starts[kept[rows]], rows[kept[rows]]
    high, low = (hashes[starts] for hashes in fingerprints.of_windows(examples.tokens, length))
    in_groups = job.options.scope == "group"
    keys = shard.groups[rows] if in_groups else starts + shard.position
    return members.make(high, low, keys, rows + shard.row, shard.origins[rows]), starts


def _turns(job: Job, shard: Shard, state: State) -> tuple[np.ndarray, Stretches]:
    """The answers to compare, in ascending order: MEMBER ``[m]``, and where they are."""
    examples, length = shard.examples, job.options.length
    every_turn = runs(answers(examples, _kept(shard, state)), examples.starts)
    found = turns.whole(examples, every_turn, length, _marks(shard, state).exempt)
    digests = np.frombuffer(b"".join(turns.digests(examples, found)), np.uint64).reshape(-1, 2)
    rows = found.rows + shard.row
    keys = (shard.groups[found.rows] << 32) + rows  # in the order of the groups, then of the rows
    return members.make(*digests.T, keys, rows, shard.origins[found.rows]), found


def _marks(shard: Shard, state: State) -> repeats.Marks:
    """The marks as one value for each token."""
    marks = np.zeros(0, MARK) if state.marks is None else state.marks
    size = len(shard.examples.tokens)
    flags, owners = np.zeros(size, np.uint8), np.full(size, -1, np.int32)
    flags[marks["place"]], owners[marks["place"]] = marks["flags"], marks["owner"]
    copies, involved, exempt = ((flags & bit) > 0 for bit in (COPY, INVOLVED, EXEMPT))
    return repeats.Marks(copies, involved, owners, exempt)


def _first(found: np.ndarray) -> np.ndarray:
    """Of equal runs of windows of templates, TEMPLATE ``[t]``, the first."""
    pairs = np.stack([found["high"], found["low"]], axis=1)
    _, ids = np.unique(pairs, axis=0, return_inverse=True)
    edges = distinct_runs(found["position"], found["row"], ids.reshape(-1))
    return np.concatenate([np.zeros(0, TEMPLATE), *(found[start:stop] for start, stop in edges)])
