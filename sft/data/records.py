"""Files to conversations, with a reason for every row that cannot be used.

``sft.data.files`` turns files into rows, ``sft.data.schemas`` rows into conversations; here they
are put together and counted.
"""

import collections
import dataclasses
import functools
from collections.abc import Sequence

from sft.data import files, schemas
from sft.data.conversation import Conversation, Reading, Reject, Turn, role_problem
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


@dataclasses.dataclass(frozen=True)
class Records:
    """What was read, in order, and what was not.

    Attributes:
      numbers: of the row of each conversation as it was read, rejected ones counted too, from 0.
      rejected: (source, reason) of each row that cannot be used.
      counts: kind of reason → rejected rows.
      repaired: kind of repair → conversations.
      unread: column or key that is not read → rows that have it.
      rows: origin → ``{"read": all its rows, "rejected": those of them}``.
    """

    conversations: list[Conversation] = dataclasses.field(default_factory=list)
    numbers: list[int] = dataclasses.field(default_factory=list)
    rejected: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    counts: dict[str, int] = dataclasses.field(default_factory=collections.Counter)
    repaired: dict[str, int] = dataclasses.field(default_factory=collections.Counter)
    unread: dict[str, int] = dataclasses.field(default_factory=collections.Counter)
    rows: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)


def read(sources: Sequence[Source], max_rejected: float = 0.01, answers: bool = True) -> Records:
    """Reads every file of every source, in order.

    Args:
      max_rejected: largest share of all rows that may be rejected.
      answers: False for a sample of prompts: rows may lack the answer.

    Raises:
      UserError: a missing, unreadable or empty file, too many rejected rows, or no usable row.
    """
    records = Records()
    for source in sources:
        paths = files.expand(source.path)
        found = [_read_file(path, source, answers, records) for path in paths]
        if source.reading.system and not any(found):
            raise UserError(
                f"{source.path}: no row has the column reading.system = "
                f'{source.reading.system!r}. Correct the name, or set it to "".'
            )
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


def _read_file(path: str, source: Source, answers: bool, records: Records) -> bool:
    """Adds the rows of a file to ``records``. Returns whether one has the system column."""
    origin = source.name or source.path
    tally = records.rows.setdefault(origin, {"read": 0, "rejected": 0})
    has_system = False
    reads = functools.partial(schemas.reads, reading=source.reading)
    for number, row in files.rows(path, source.reading.container, reads):
        place = f"{path}:{number}"
        tally["read"] += 1
        try:
            if isinstance(row, Reject):
                raise row
            has_system = has_system or (isinstance(row, dict) and source.reading.system in row)
            conversation, notes = schemas.parse(
                row, place, source.reading, origin=origin, answers=answers
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
    return has_system


def _check_share(records: Records, max_rejected: float) -> None:
    rows = len(records.conversations) + len(records.rejected)
    too_many = len(records.rejected) > max_rejected * rows
    if records.conversations and not too_many:
        return
    if not rows:
        raise UserError("data: no sources. Expected at least one path.")
    source, reason = records.rejected[0]
    counts = ", ".join(f"{kind} {count}" for kind, count in records.counts.items())
    limit = f"the limit is {max_rejected:.1%}" if too_many else "none is usable"
    raise UserError(
        f"{source}: {reason}. {len(records.rejected)} of {rows} rows rejected ({counts}); {limit}. "
        "Correct them" + (", or raise config.data.max_rejected." if records.conversations else ".")
    )
