"""Files to conversations, with a reason for every row that cannot be used.

``sft.data.read.files`` turns files into rows, ``sft.data.read.schemas`` rows into conversations;
here they are put together and counted.
"""

import collections
import dataclasses
import functools
from collections.abc import Sequence

from sft.data.conversation import SAVE_UTF8, Conversation, Reading, Reject, Turn, role_problem
from sft.data.read import files, paths, schemas
from sft.data.read.remarks import Remark
from sft.errors import UserError

__all__ = [
    "Conversation",
    "Reading",
    "Records",
    "Reject",
    "Source",
    "Turn",
    "gemini_row",
    "read",
    "role_problem",
]


@dataclasses.dataclass(frozen=True)
class Source:
    """Files that are read alike.

    Attributes:
      name: in ``config.data.sources``, or ``""``.
      path: paths joined by commas, with globs; local or ``gs://``.
    """

    name: str
    path: str
    reading: Reading = dataclasses.field(default_factory=Reading)


_SHOWN = 5  # places of a remark
_REMEDIES = {  # kind of reason → what to do, where it is more than to correct the rows
    "invalid UTF-8": SAVE_UTF8,
}
_EMPTY = Remark("note", "files have no rows", "Leave them out, or see why they are empty.", "file")
_EMPTY_SOURCE = Remark(
    "warning", "sources have no rows at all", "Leave them out, or correct their paths.", "file"
)


@dataclasses.dataclass
class Places:
    """Where something was found: how often, and the first places."""

    count: int = 0
    first: list[str] = dataclasses.field(default_factory=list)

    def add(self, place: str) -> None:
        """One more."""
        self.count += 1
        if len(self.first) < _SHOWN:
            self.first.append(place)


@dataclasses.dataclass(frozen=True)
class Records:
    """What was read, in order, and what was not.

    Attributes:
      numbers: of the row of each conversation as it was read, rejected ones counted too, from 0.
      rejected: (source, reason) of each row that cannot be used.
      counts: kind of reason → rejected rows.
      repaired: kind of repair → conversations.
      unread: column or key that is not read → rows that have it.
      remarks: what a person should know of rows that are used and of files → where.
      rows: origin → ``{"read": all its rows, "rejected": those of them}``.
    """

    conversations: list[Conversation] = dataclasses.field(default_factory=list)
    numbers: list[int] = dataclasses.field(default_factory=list)
    rejected: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    counts: dict[str, int] = dataclasses.field(default_factory=collections.Counter)
    repaired: dict[str, int] = dataclasses.field(default_factory=collections.Counter)
    unread: dict[str, int] = dataclasses.field(default_factory=collections.Counter)
    remarks: dict[Remark, Places] = dataclasses.field(default_factory=dict)
    rows: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

    def remark(self, what: Remark, place: str) -> None:
        """Counts one more place of a remark."""
        self.remarks.setdefault(what, Places()).add(place)


@dataclasses.dataclass(frozen=True)
class Want:
    """What rows must be: with answers or not, for training or not; see ``read``."""

    answers: bool = True
    training: bool = True


def read(
    sources: Sequence[Source],
    max_rejected: float = 0.01,
    answers: bool = True,
    training: bool = True,
) -> Records:
    """Reads every file of every source, in order.

    Args:
      max_rejected: largest share of all rows that may be rejected.
      answers: False for a sample of prompts: rows may lack the answer.
      training: whether rows marked as not to be trained are rejected.

    Raises:
      UserError: a missing or unreadable file, a column that no row has, too many rejected rows, or
        no usable row.
    """
    records, empty = Records(), ""
    for source in sources:
        before = sum(tally["read"] for tally in records.rows.values())
        there: set[str] = set()  # columns of any of its rows
        for path in paths.expand(source.path):
            if not _read_file(path, source, Want(answers, training), records, there):
                records.remark(_EMPTY, path)
                wanted = files.expected(path, source.reading.container)
                empty = empty or f"{path}: no rows. Expected {wanted}."
        if sum(tally["read"] for tally in records.rows.values()) > before:
            _check_columns(source, there)
        elif source.name not in ("", source.path):
            records.remark(_EMPTY_SOURCE, source.name)
    if empty and not records.conversations and not records.rejected:
        raise UserError(empty)
    _check_share(records, max_rejected)
    return records


def gemini_row(conversation: Conversation) -> dict:
    """A row in Gemini's format, from which ``read`` makes the same conversation.

    ``group`` and ``category`` are there when set, and ``"weight": 0`` in answers that are not
    trained, both of which the Gemini service does not know.
    """
    row: dict = {}
    if conversation.system is not None:
        row["systemInstruction"] = {"parts": [{"text": conversation.system}]}
    row["contents"] = [
        {"role": turn.role, "parts": [{"text": turn.text}]}
        | ({} if turn.trained else {"weight": 0})
        for turn in conversation.turns
    ]
    for key in ("group", "category"):
        if value := getattr(conversation, key):
            row[key] = value
    return row


def _read_file(path: str, source: Source, want: Want, records: Records, there: set[str]) -> int:
    """Adds the rows of a file to ``records`` and their columns to ``there``; returns how many."""
    reading, origin = source.reading, source.name or source.path
    tally = records.rows.setdefault(origin, {"read": 0, "rejected": 0})
    before, columns = tally["read"], schemas.columns(reading)
    wanted = files.Wanted(
        reading.container,
        reads=functools.partial(schemas.reads, reading=reading),
        names=functools.partial(schemas.names, reading=reading),
        setting=reading.setting,
    )
    for number, row in files.rows(path, wanted):
        place = f"{path}:{number}"
        tally["read"] += 1
        try:
            if isinstance(row, Reject):
                raise row
            if columns and isinstance(row, dict):
                there.update(row)
            conversation, notes = schemas.parse(
                row, place, reading, origin=origin, answers=want.answers, training=want.training
            )
        except Reject as reject:
            tally["rejected"] += 1
            records.rejected.append((place, str(reject)))
            records.counts[reject.kind] += 1
            continue
        records.numbers.append(len(records.conversations) + len(records.rejected))
        records.conversations.append(conversation)
        for name in notes.unread:
            records.unread[name] += 1
        for name in notes.repaired:
            records.repaired[name] += 1
        for remark in notes.remarks:
            records.remark(remark, place)
    for remark in wanted.remarks:
        records.remark(remark, path)
    return tally["read"] - before


def _check_columns(source: Source, there: set[str]) -> None:
    """Columns that rows may lack must be in one of them: else the name is wrong."""
    for column, setting in schemas.columns(source.reading).items():
        if column in there or not there:  # without columns, the rows have other faults
            continue
        listed = ", ".join(f"{name[:40]!a}" for name in sorted(there)[:12]) or "no columns"
        given = getattr(source.reading, setting)
        raise UserError(
            f"{source.path}: no row has the column {column[:40]!a} of {source.reading.setting}."
            f"{setting} = {given!r}; the rows have {listed}. Correct the name"
            + ("." if setting == "template" else ', or set it to "".')
        )


def _check_share(records: Records, max_rejected: float) -> None:
    rows = len(records.conversations) + len(records.rejected)
    too_many = len(records.rejected) > max_rejected * rows
    if records.conversations and not too_many:
        return
    if not rows:
        raise UserError("data: no sources. Expected at least one path.")
    source, reason = records.rejected[0]
    remedy = _REMEDIES.get(reason.partition(":")[0], "Correct them")
    counts = ", ".join(f"{kind} {count}" for kind, count in records.counts.items())
    limit = f"the limit is {max_rejected:.1%}" if too_many else "none is usable"
    end = "" if reason.endswith("?") else "."
    raise UserError(
        f"{source}: {reason}{end} {len(records.rejected)} of {rows} rows rejected ({counts}); "
        f"{limit}. {remedy}"
        + (", or raise config.data.max_rejected." if records.conversations else ".")
    )
