"""What deduplication decided, as a file, and its application to a tokenised training set.

A plan is made once (``sft.data.dedup.build``) and only applied in training: which rows stay, and
which of their tokens are not trained. It knows what it was made from, and is refused for anything
else.
"""

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sft.data.batches.examples import Examples
from sft.data.chat.encoding import ANSWER, CONTEXT
from sft.data.dedup.stretches import without
from sft.errors import UserError
from sft.run.directory import write_bytes, write_json

VERSION = 3  # raise it when the same rows and options get another plan
_ARRAYS = ("kept", "rows", "starts", "stops", "owners", "clusters")
_MEANING = {
    "version": "the version of this program",
    "rows": "the training rows",
    "options": "config.data.dedup or config.data.leakage",
    "tokenizer": "the tokenizer",
}


class Reason(NamedTuple):
    """Why a row is dropped or a leak.

    Attributes:
      code: a key of ``sft.data.dedup.build.CODES``.
      detail: numbers, or ``""``.
      other: the row that it repeats, as in ``train:5`` or ``validation:12``; ``""`` = none.
    """

    code: str
    detail: str
    other: str


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Rows are indices into the set that the plan was made from.

    Attributes:
      kept: int64 ``[m]``, ascending.
      reasons: why each of the other rows is dropped.
      leaks: rows that stay although they give away an evaluation row.
      rows, starts, stops: int64 ``[k]``, spans of tokens as offsets in their row.
      owners: int64 ``[k]``, a row with the copy that stays, -1 for none.
      action: what is done to spans: ``mask``, ``cut``; nothing under ``drop`` and ``report``.
      clusters: int64 ``[n]``, the lowest row that each is a duplicate of, directly or through
        others.
      fingerprint: of ``fingerprint``.
      summary: counts, see ``sft.data.dedup.build``.
    """

    kept: np.ndarray
    reasons: dict[int, Reason]
    leaks: dict[int, Reason]
    rows: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    owners: np.ndarray
    action: str
    clusters: np.ndarray
    fingerprint: str
    summary: dict[str, Any]


def fingerprint(
    examples: Examples,
    groups: np.ndarray,
    clusters: np.ndarray,
    origins: np.ndarray,
    evaluation: Mapping[str, Examples],
    options: Mapping[str, Any],
    tokenizer: str,
) -> str:
    """What a plan is made from: hashes by name, as JSON.

    Args:
      groups, clusters, origins: int64 ``[n]``, numbers of each row's group, of its cluster by
        embeddings, and of its source.
      evaluation: the sets that training rows are compared with. One that is not there is not
        compared when a plan is applied: training need not read the test set.
      options: plain values that decide the result.
      tokenizer: its fingerprint.
    """
    text = json.dumps(dict(options), sort_keys=True).encode()
    found = {
        "version": VERSION,
        "rows": _hash(examples.starts, examples.tokens, examples.kinds, groups, clusters, origins),
        "options": hashlib.sha256(text).hexdigest()[:12],
        "tokenizer": tokenizer,
    }
    for name, one in evaluation.items():
        found[f"set {name}"] = _hash(one.starts, one.tokens, one.kinds)
    return json.dumps(found)


def check(plan: Plan, fingerprint: str) -> None:
    """Refuses a plan made from something else.

    Raises:
      UserError: names what differs.
    """
    theirs, ours = json.loads(plan.fingerprint), json.loads(fingerprint)
    changed = [
        _MEANING.get(name, f"the {name.removeprefix('set ')} set")
        for name, value in ours.items()
        if theirs.get(name) != value
    ]
    if changed:
        raise UserError(
            f"data/plan.json: the plan was made with other {', other '.join(_bare(changed))}. "
            "Run sft data again."
        )


def apply(plan: Plan, examples: Examples, fingerprint: str) -> tuple[Examples, np.ndarray]:
    """The training set that the plan describes.

    Under ``mask`` the trained tokens of a span become context, under ``cut`` its tokens go; both
    leave ``examples`` as they were.

    Args:
      fingerprint: of these examples, see ``fingerprint``.

    Returns:
      The examples that stay and their indices, int64 ``[m]``.

    Raises:
      UserError: the plan was made from something else.
    """
    check(plan, fingerprint)
    return changed(plan, examples).select(plan.kept), plan.kept


def changed(plan: Plan, examples: Examples) -> Examples:
    """All rows, with the spans masked or cut."""
    if plan.action not in ("mask", "cut") or not len(plan.rows):
        return examples
    lengths = plan.stops - plan.starts
    begins = examples.starts[plan.rows] + plan.starts
    before = np.cumsum(lengths) - lengths
    inside = np.arange(lengths.sum()) + np.repeat(begins - before, lengths)
    if plan.action == "mask":
        kinds = np.array(examples.kinds)
        kinds[inside[kinds[inside] >= ANSWER]] = CONTEXT
        return Examples(examples.tokens, kinds, examples.starts)
    gone = np.zeros(len(examples.tokens), bool)
    gone[inside] = True
    return without(examples, gone)


def save(plan: Plan, folder: Path) -> None:
    """Writes ``plan.npz`` and ``plan.json``; what is there of an earlier plan stays until then.

    Raises:
      UserError: the disk refuses.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **{name: getattr(plan, name) for name in _ARRAYS})
    content = buffer.getvalue()
    write_bytes(folder / "plan.npz", content)
    # Written last, with the checksum: half a plan is never taken for one.
    write_json(
        folder / "plan.json",
        {
            "checksum": hashlib.sha256(content).hexdigest(),
            "fingerprint": json.loads(plan.fingerprint),
            "action": plan.action,
            "summary": plan.summary,
            "reasons": [[row, *reason] for row, reason in sorted(plan.reasons.items())],
            "leaks": [[row, *reason] for row, reason in sorted(plan.leaks.items())],
        },
    )


def load(folder: Path) -> Plan:
    """What ``save`` wrote.

    Raises:
      UserError: missing, damaged, or not a plan.
    """
    path = folder / "plan.json"
    try:
        stored = json.loads(path.read_text())
        content = (folder / "plan.npz").read_bytes()
        if hashlib.sha256(content).hexdigest() != stored["checksum"]:
            raise ValueError("plan.npz is not the one that belongs to it")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            found = {name: arrays[name].astype(np.int64, casting="equiv") for name in _ARRAYS}
        plan = Plan(
            **found,
            reasons=_reasons(stored["reasons"]),
            leaks=_reasons(stored["leaks"]),
            action=stored["action"],
            fingerprint=json.dumps(dict(stored["fingerprint"])),
            summary=dict(stored["summary"]),
        )
        _check_arrays(plan)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: no plan there. Run sft data again.") from None
    except Exception as error:  # a damaged file can raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise UserError(f"{path}: not a whole plan ({reason}). Run sft data again.") from None
    return plan


def _reasons(stored: list) -> dict[int, Reason]:
    return {int(row): Reason(str(code), str(why), str(other)) for row, code, why, other in stored}


def _check_arrays(plan: Plan) -> None:
    rows = len(plan.clusters)
    spans = plan.rows, plan.starts, plan.stops, plan.owners
    if len({len(array) for array in spans}) != 1:
        raise ValueError("spans of different lengths")
    is_kept = np.zeros(rows, bool)
    is_kept[plan.kept] = True
    if is_kept.sum() != len(plan.kept) or (np.diff(plan.kept) <= 0).any():
        raise ValueError("kept rows out of order")
    if sorted(plan.reasons) != np.flatnonzero(~is_kept).tolist():
        raise ValueError("dropped rows without a reason")
    inside = (plan.starts >= 0) & (plan.starts < plan.stops)
    if not inside.all() or not is_kept[plan.rows].all():
        raise ValueError("spans outside of the kept rows")


def _bare(names: list[str]) -> list[str]:
    """Without their article."""
    return [name.removeprefix("the ") for name in names]


def _hash(*arrays: np.ndarray) -> str:
    """Sixteen hex digits of the values, whatever the arrays are stored in."""
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()
