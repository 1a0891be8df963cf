"""What workers do with a shard or a partition: functions of plain values, each a step of the
pipeline.

The marks of a shard travel with it from step to step, as a few arrays; its rows are read again, and
its windows hashed again, wherever they are needed, which costs less than to carry them along.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from sft.data.dedup import repeats, spans, stretches, templates, turns
from sft.data.dedup.beam import fingerprints, members, shards
from sft.data.dedup.beam.shards import Shard
from sft.data.dedup.repeats import Options
from sft.data.dedup.stretches import Stream, Stretches, answers, flagged, runs

COPY, INVOLVED = 1, 2

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
      least: from ``templates.least_rows``; empty: there are no forms.
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


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """What is known of a shard; ``None``: nothing yet.

    Attributes:
      forms: int64 ``[f]``, where windows of forms start, by tokens of the shard, ascending.
      templates: TEMPLATE ``[t]``, these by tokens and rows of the set: of equal runs the first.
      marks: MARK ``[m]``: windows of the latest search, by their place in the shard's stream, in
        ascending order.
      dropped: bool ``[n]``, rows of the shard.
      spans: SPAN ``[k]``, by rows of the set.
    """

    forms: np.ndarray | None = None
    marks: np.ndarray | None = None
    dropped: np.ndarray | None = None
    spans: np.ndarray | None = None
    templates: np.ndarray | None = None


Element = tuple[int, State]
Joined = tuple[int, Mapping[str, Iterable]]  # lists of "state" and "decisions"
Members = Iterator[tuple[int, np.ndarray]]


def forms(job: Job, element: Element) -> Members:
    """The windows of a shard that decide about forms, by partition."""
    found, _ = _form_windows(job, shards.read(job.folder, element[0]))
    found = members.essential(found, 1, job.options, counts_rows=True)
    yield from members.by_partition(found, job.partitions)


def decide_forms(job: Job, element: tuple[int, Iterable[np.ndarray]]) -> Members:
    """Which windows of a partition belong to forms, by shard."""
    yield from members.decide_forms([*element[1]], job.bounds, job.least)


def mark_forms(job: Job, element: Joined) -> Element:
    """A shard with its forms."""
    number, joined = element
    (state,), shard = joined["state"], shards.read(job.folder, number)
    found, places = _form_windows(job, shard)
    index, decisions = members.match(found, [*joined["decisions"]], members.FORM)
    listed = np.zeros(len(index), TEMPLATE)
    listed["position"] = places[index] + shard.position
    listed["row"] = found["row"][index]
    for name in ("high", "low", "rows", "origin"):
        listed[name] = decisions[name]
    return number, dataclasses.replace(state, forms=places[index], templates=_first(listed))


def windows(job: Job, element: Element) -> Members:
    """The windows of a shard that decide about others, by partition."""
    number, state = element
    found, _ = _windows(job, shards.read(job.folder, number), state)
    found = members.essential(found, job.options.gap, job.options)
    yield from members.by_partition(found, job.partitions)


def decide_windows(job: Job, element: tuple[int, Iterable[np.ndarray]]) -> Members:
    """Decisions about the windows of a partition, by shard."""
    yield from members.decide([*element[1]], job.bounds, job.options.gap, job.options)


def mark(job: Job, element: Joined) -> Element:
    """A shard with the marks of its windows."""
    number, joined = element
    (state,), shard = joined["state"], shards.read(job.folder, number)
    found, places = _windows(job, shard, state)
    index, decisions = members.match(found, [*joined["decisions"]])
    marks = np.zeros(len(index), MARK)
    is_copy = found["key"][index] >= decisions["limit"]
    marks["place"] = places[index]
    marks["owner"] = np.where(is_copy, decisions["owner"], -1)
    marks["flags"] = INVOLVED + COPY * is_copy
    return number, dataclasses.replace(state, marks=marks)


def whole_turns(job: Job, element: Element) -> Members:
    """The answers of a shard that decide about others, by partition."""
    number, state = element
    found, _ = _turns(job, shards.read(job.folder, number), state)
    yield from members.by_partition(members.essential(found, 1, job.options), job.partitions)


def decide_turns(job: Job, element: tuple[int, Iterable[np.ndarray]]) -> Members:
    """Decisions about the answers of a partition, by shard."""
    yield from members.decide([*element[1]], job.bounds, 1, job.options)


def finish(job: Job, element: Joined) -> Element:
    """A shard with its spans; after the first search, with the rows to drop."""
    number, joined = element
    (state,), shard = joined["state"], shards.read(job.folder, number)
    whole, stream = None, _stream(job, shard, state)
    if job.options.compares_answers:
        found, turns_of = _turns(job, shard, state)
        index, decisions = members.match(found, [*joined["decisions"]])
        is_copy = found["key"][index] >= decisions["limit"]
        whole = turns_of.select(index[is_copy]), decisions["owner"][is_copy].astype(np.int64)
    spanned = spans.join(shard.examples, stream, _marks(stream, state), whole, job.options, [])
    dropped = state.dropped
    if dropped is None:
        how = job.action, job.drop_share, job.min_trained
        dropped = spans.to_drop(shard.examples, spanned, *how)
        spanned = spanned.select(~dropped[spanned.rows])
    table = np.zeros(len(spanned.rows), SPAN)
    table["row"] = spanned.rows + shard.row
    table["start"], table["stop"], table["owner"] = spanned.starts, spanned.stops, spanned.owners
    return number, dataclasses.replace(state, dropped=dropped, spans=table)


def store(job: Job, element: Element) -> int:
    """Writes what the driver reads; the number of the shard."""
    number, state = element
    listed = np.zeros(0, TEMPLATE) if state.templates is None else state.templates
    found = {"dropped": state.dropped, "spans": state.spans, "templates": listed}
    shards.write_outcome(job.folder, number, **found)
    return number


def _kept(shard: Shard, state: State) -> np.ndarray:
    return np.ones(len(shard.examples), bool) if state.dropped is None else ~state.dropped


def _stream(job: Job, shard: Shard, state: State) -> Stream:
    """What is compared in a shard, of its dropped rows too."""
    size, length = len(shard.examples.tokens), templates.length_of(job.options)
    first = np.zeros(0, np.int64) if state.forms is None else state.forms
    everything = np.ones(len(shard.examples), bool)
    return stretches.stream(shard.examples, everything, flagged(first, first + length, size))


def _form_windows(job: Job, shard: Shard) -> tuple[np.ndarray, np.ndarray]:
    """The windows that may belong to forms: MEMBER ``[m]``, and int64 ``[m]`` where each starts in
    the shard, ascending."""
    examples, length = shard.examples, templates.length_of(job.options)
    places = runs(answers(examples, np.ones(len(examples), bool)), examples.starts)
    starts = _starts(places, length, len(examples.tokens))
    rows = np.searchsorted(examples.starts, starts, side="right") - 1
    high, low = (hashes[starts] for hashes in fingerprints.of_windows(examples.tokens, length))
    keys = starts + shard.position
    return members.make(high, low, keys, rows + shard.row, shard.origins[rows]), starts


def _windows(job: Job, shard: Shard, state: State) -> tuple[np.ndarray, np.ndarray]:
    """The windows to look at, in ascending order: MEMBER ``[m]``, and int64 ``[m]`` where each
    starts in the stream. In the second search, those of the kept rows that were involved in the
    first."""
    stream, length, kept = _stream(job, shard, state), job.options.length, _kept(shard, state)
    if state.marks is None:
        turns_of = Stretches(stream.starts[:-1], stream.starts[1:], stream.turns.rows)
        starts = _starts(turns_of, length, len(stream))
    else:
        starts = state.marks["place"][(state.marks["flags"] & INVOLVED) > 0]
    rows = np.repeat(stream.turns.rows, stream.sizes)[starts]
    starts, rows = starts[kept[rows]], rows[kept[rows]]
    tokens = shard.examples.tokens[stream.places]
    high, low = (hashes[starts] for hashes in fingerprints.of_windows(tokens, length))
    in_groups = job.options.scope == "group"
    # A stream has no more tokens than its shard, so places of later shards are above.
    keys = shard.groups[rows] if in_groups else starts + shard.position
    return members.make(high, low, keys, rows + shard.row, shard.origins[rows]), starts


def _starts(parts: Stretches, length: int, size: int) -> np.ndarray:
    """int64: where windows start that lie in one of the parts, ascending."""
    parts = parts.select(parts.lengths >= length)
    return np.flatnonzero(flagged(parts.begins, parts.stops - length + 1, size))


def _turns(job: Job, shard: Shard, state: State) -> tuple[np.ndarray, Stretches]:
    """The answers to compare, in ascending order: MEMBER ``[m]``, and where they are."""
    found = turns.whole(shard.examples, _stream(job, shard, state), job.options.length)
    found = found.select(_kept(shard, state)[found.rows])
    digests = b"".join(turns.digests(shard.examples, found))
    rows = found.rows + shard.row
    keys = (shard.groups[found.rows] << 32) + rows  # in the order of the groups, then of the rows
    ids = np.frombuffer(digests, np.uint64).reshape(-1, 2).T
    return members.make(*ids, keys, rows, shard.origins[found.rows]), found


def _marks(stream: Stream, state: State) -> repeats.Marks:
    """The marks as one value for each token of the stream."""
    marks = np.zeros(0, MARK) if state.marks is None else state.marks
    flags, owners = np.zeros(len(stream), np.uint8), np.full(len(stream), -1, np.int32)
    flags[marks["place"]], owners[marks["place"]] = marks["flags"], marks["owner"]
    return repeats.Marks((flags & COPY) > 0, (flags & INVOLVED) > 0, owners)


def _first(found: np.ndarray) -> np.ndarray:
    """Of equal runs of windows of forms, TEMPLATE ``[t]``, the first."""
    pairs = np.stack([found["high"], found["low"]], axis=1)
    _, ids = np.unique(pairs, axis=0, return_inverse=True)
    edges = templates.distinct_runs(found["position"], found["row"], ids.reshape(-1))
    return np.concatenate([np.zeros(0, TEMPLATE), *(found[start:stop] for start, stop in edges)])
