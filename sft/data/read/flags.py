"""Flags in rows, turns and parts that say whether an answer is trained.

A name and its value decide together. ``weight``, ``train``, ``trainable``, ``loss_mask`` and the
like train at 1 and true; ``masked`` and the like do not. What is neither yes nor no (half a weight,
a mask of tokens, a name that could mean both) is refused rather than guessed.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sft.data.conversation import Reject
from sft.data.read.fields import is_missing, plain, printable, type_name, words, written
from sft.data.read.remarks import Notes, Remark


class Flag(NamedTuple):
    """A flag as it is written, and whether it says to train."""

    name: str
    trains: bool
    value: str


_TRAIN = {
    *("train", "training", "trainable", "trained", "istrainable", "istrained", "dotrain"),
    *("totrain", "shouldtrain", "trainon", "trainonturn", "trainonthis", "trainmask"),
    *("traindetail", "trainingdetail", "trainingmask", "learn", "learnable", "supervised"),
    *("weight", "lossweight", "trainweight", "trainingweight", "tokenweights", "weights"),
    *("loss", "lossmask", "lossmasks", "lossscale", "computeloss", "calculateloss", "calcloss"),
    *("hasloss", "inloss", "useloss", "applyloss", "trainloss"),
}
_SKIP = {
    *("masked", "ismasked", "lossmasked", "maskloss", "notrain", "donottrain", "dontrain"),
    *("nottrained", "untrained", "skiptrain", "skiptraining", "excludefromtraining"),
    *("noloss", "skiploss", "ignoreloss", "excludefromloss", "ignoreinloss", "ignore", "ignored"),
}
_UNCLEAR = {"mask", "turnmask", "messagemask", "assistantmask"}
_ABOUT = {"train", "training", "trained", "trainable", "untrained", "loss", "losses"}  # words
_WEIGHTS = {  # of a row: numbers of their own, and no flags
    *("weight", "weights", "lossweight", "rowweight", "sampleweight", "exampleweight"),
    *("instanceweight", "trainweight", "trainingweight"),
}
_ROW = (
    _WEIGHTS
    | _SKIP
    | {
        *("train", "training", "trainable", "trained", "istrainable", "istrained", "dotrain"),
        *("totrain", "shouldtrain", "lossmask", "lossmasks", "trainmask", "trainingmask"),
    }
)
_YES, _NO = ("true", "1", "1.0"), ("false", "0", "0.0")

USER = Remark(
    "warning",
    "turns that are not answers are marked as to be trained, and only answers are",
    "Set config.loss.prompt_weight to train the tokens of prompts too, or remove the mark.",
)


def is_of_row(key: str) -> bool:
    """Whether a column of this name may say that its row is not trained."""
    return plain(key) in _ROW


def is_flag(key: str) -> bool:
    """Whether a key of a turn or a part says whether it is trained."""
    return _sense(key) not in ("", "about")


def read(item: dict, where: str, known: Iterable[str] = ()) -> Flag | None:
    """The flag of a turn or a part, ``None`` where it has none.

    Args:
      where: its place in the row.
      known: keys that are something else.

    Raises:
      Reject: a flag that is neither yes nor no, or two that contradict each other.
    """
    found = None
    for key in item:
        flag = None if key in known else _flag(key, item[key], where)
        if found and flag and flag.trains != found.trains:
            one, other = (f"{where}{each.name} is {each.value}" for each in (found, flag))
            raise Reject("conflicting flags", printable(f"{one}, but {other}"))
        found = found or flag
    return found


def _flag(key: str, value: Any, where: str) -> Flag | None:
    sense, said = _sense(key), _said(value)
    if sense in ("train", "skip") and said is not None:
        return Flag(key[:40], said == (sense == "train"), written(value, where) or "")
    # A name that only speaks of training is a flag where its value is one.
    if said is not None if sense == "about" else sense and not _is_empty(value):
        raise _unclear(key, value, where, sense)
    return None


def merged(own: Flag | None, parts: Sequence[Flag | None], where: str) -> Flag | None:
    """The flag of an answer whose parts may have flags too; a part without one is as the turn.

    Raises:
      Reject: the parts differ, or contradict the turn.
    """
    given = next((flag for flag in parts if flag), None)
    if given is None:
        return own
    usual = own.trains if own else True
    if len({flag.trains if flag else usual for flag in parts}) > 1:
        detail = f"parts of {where} differ in {given.name!a}; a turn is trained as a whole"
        raise Reject("conflicting flags", detail)
    if own and own.trains != given.trains:
        detail = printable(f"{where}.{own.name} contradicts {given.name} in its parts")
        raise Reject("conflicting flags", detail)
    return given


def note(flag: Flag | None, is_answer: bool, place: str, notes: Notes) -> None:
    """Reports what the flag of the turn at ``place`` did, or that it asks for what is not done."""
    if flag is None or flag.trains == is_answer:
        return
    if is_answer:
        notes.context = notes.context or f"{printable(flag.name)} {printable(flag.value)}"
        by = printable(f"{place.partition('[')[0]}[].{flag.name}")
        text = f"answers are context and not trained, by {by}"
        notes.remarks.add(Remark("note", text, "Nothing to do if that is meant."))
    else:
        notes.remarks.add(USER)


def of_row(row: dict, unread: Iterable[str], notes: Notes) -> None:
    """Looks at the columns that nothing reads for flags of the whole row.

    A column of such a name with other values (text, a height) is data, and only that.

    Raises:
      Reject: the row is not to be trained, or has a mask of tokens.
    """
    for key in unread:
        if not is_of_row(key):
            continue
        value = row[key]
        said = _said(value)
        if isinstance(value, Reject):
            raise value
        if said is None and isinstance(value, list | dict) and value:
            raise _unclear(key, value, "", "train")
        if said is not None and said == (plain(key) in _SKIP):
            detail = f"{key!a} is {_shown(value)}: the row is marked as not to be trained"
            raise Reject("nothing to train", detail)
        if said is None and plain(key) in _WEIGHTS and _is_number(value):
            notes.remarks.add(
                Remark(
                    "warning",
                    f"weights of rows are not read: {key[:40]!a}",
                    "All rows count alike. Give rows of one weight a file of their own, and the "
                    "weight in config.data.sources.",
                )
            )


@functools.lru_cache(maxsize=4096)
def _sense(key: str) -> str:
    name = plain(key)
    if name in _TRAIN:
        return "train"
    if name in _SKIP:
        return "skip"
    return "unclear" if name in _UNCLEAR else "about" if words(key) & _ABOUT else ""


def _said(value: Any) -> bool | None:
    """Yes or no, ``None`` for anything else."""
    if isinstance(value, str):
        text = value.strip().lower()
        return True if text in _YES else False if text in _NO else None
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    return None


def _is_empty(value: Any) -> bool:
    return is_missing(value) or (isinstance(value, str | list | dict) and not value)


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return False
    return isinstance(value, int | float) and not is_missing(value)


def _unclear(key: str, value: Any, where: str, sense: str) -> Reject:
    if isinstance(value, Reject):
        return value
    place, found = printable(f"{where}{key[:40]}"), _shown(value)
    if sense in ("unclear", "about"):
        detail = f"{place} is {found}, which may mean either; write 'weight': 0 or 1 instead"
        return Reject("unclear flag", detail)
    masks = "; tokens are not masked one by one" if isinstance(value, list) else ""
    return Reject("wrong type", f"{place} is {found}, expected 0 or 1{masks}")


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return type_name(value)
    return ascii(str(value)[:40])
