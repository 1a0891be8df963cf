"""The training set: deduplicated by a plan, augmented, cut to length. Nothing else is touched."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from sft.data.batches import truncation
from sft.data.dedup import build, carry, plan
from sft.data.dedup.leakage import refuse
from sft.data.dedup.verdicts import between
from sft.data.read import records
from sft.data.sets import augment, loading, sources
from sft.data.sets.loading import Sets, Split
from sft.data.tokenizer.sentencepiece import Tokenizer
from sft.errors import UserError
from sft.model.specs import Spec
from sft.run.progress import phase


def everything(sets: Sets, folder: Path, fresh: bool = False) -> dict[str, Split]:
    """Every set that the configuration gives or cuts from training rows, by name.

    Training rows are deduplicated by the plan in ``folder``. Where there is none, or ``fresh``, it
    is made. ``fresh`` is for the audit: what it should report is not refused here, such as rows
    that are too long or that all go.

    Raises:
      UserError: as ``Sets.tests``, there is no set, or the plan was made from something else.
    """
    config, data = sets.config, sets.config.data
    names = [name for name in loading.NAMES if data[name] or data.split.get(name)]
    if not names:
        raise UserError("config.data.train, validation and test are all empty: nothing to read.")
    if data.split.test or not data.test:
        found = sets.load(names)
    else:
        found = sets.load(names[:-1]) | loading.told_apart(sets.tests())
    if "train" in found:
        others = {name: split for name, split in found.items() if name != "train"}
        planned = _plan(config, found["train"], others, sets.tokenizer, folder, fresh)
        found["train"] = _apply(config, found["train"], planned, sets.spec, sets.tokenizer)
        if not fresh:
            _refuse(config, found["train"])
    return found


def required(config: ConfigDict, names: Sequence[str]) -> None:
    """Before anything is read: these sets must be configured.

    Raises:
      UserError: one is not.
    """
    for name in names:
        if not config.data.split.get(name):
            sources.listed(config, name)


def gate(config: ConfigDict, split: Split) -> None:
    """Refuses training rows that give away too much of what they will be evaluated on.

    Raises:
      UserError: under ``data.leakage.action = "error"``; names the set and the share.
    """
    leakage = config.data.leakage
    if split.plan is None or leakage.action != "error":
        return
    found = split.plan.plan.summary["leakage"]
    refuse(found["sets"], leakage.max_share)
    rows = found["sets"].get("validation", {}).get("rows", 0)
    for right in dict.fromkeys(pair["right"] for pair in found["pairs"]):
        pairs = [pair for pair in found["pairs"] if pair["right"] == right]
        if len(pairs) > leakage.max_share * rows:
            said = " ".join(f"{one['said']} {one['remedy']}" for one in between(pairs, rows))
            raise UserError(f"config.data.leakage.max_share = {leakage.max_share}: {said}")


def alone(sets: Sets, folder: Path) -> Split:
    """The training set by the plan in ``folder``, or by one that is not kept: it is compared with
    no other set.

    Raises:
      UserError: as ``everything``.
    """
    config, tok = sets.config, sets.tokenizer
    train = sets.load(["train"])["train"]
    planned = _plan(config, train, {}, tok, folder if (folder / "plan.json").exists() else None)
    found = _apply(config, train, planned, sets.spec, tok)
    _refuse(config, found)
    return found


def _refuse(config: ConfigDict, split: Split) -> None:
    """Refuses a training set of which too much, or all, is lost.

    Raises:
      UserError: says what it was lost for.
    """
    if split.plan is not None:
        build.refuse(split.plan.plan)
    if split.fit is not None:
        truncation.refuse(split.fit, config.data.max_over_long)


def _plan(
    config: ConfigDict,
    train: Split,
    others: Mapping[str, Split],
    tok: Tokenizer,
    folder: Path | None,
    fresh: bool = False,
) -> loading.Planned:
    """The plan in ``folder``, made if it must be, for these rows and no others."""
    rows, encoded = train.records.conversations, train.encoded
    evaluation = {name: (s.records.conversations, s.encoded) for name, s in others.items()}
    given = dict(config.data.dedup)
    del given["embeddings"], given["cosine"]  # which the rows' clusters are made with
    options = build.Options(**given, leakage=config.data.leakage.action)
    if folder and not fresh and (folder / "plan.json").exists():
        chosen = plan.load(folder)
        plan.check(chosen, build.fingerprint(rows, encoded, evaluation, options, tok.fingerprint))
    else:
        with phase("looking for duplicates and leaks"):
            chosen = build.build(rows, encoded, evaluation, options, tok.fingerprint)
        if folder:
            plan.save(chosen, folder)
    return loading.Planned(chosen, rows, encoded, evaluation)


def _apply(
    config: ConfigDict, train: Split, planned: loading.Planned, spec: Spec, tok: Tokenizer
) -> Split:
    """The training set by its plan, then augmented, then cut to length."""
    data, rows, augmented = config.data, planned.conversations, None
    kept = [rows[i] for i in planned.plan.kept]
    left = dataclasses.replace(train.records, conversations=kept)
    encoded = planned.encoded.select(planned.plan.kept)
    if data.augment.copies:
        left, augmented = _augment(config, left)
        encoded = loading.encode(config, "train", left.conversations, spec, tok)
    after = carry.carry(planned.plan, rows, planned.encoded, left.conversations, encoded)
    where = [conversation.source for conversation in left.conversations]
    fitted, stays, outcome = truncation.cut(after, data.max_length, data.over_long, where)
    return dataclasses.replace(
        train,
        records=left,
        encoded=after,
        kept=stays,
        examples=fitted,
        fit=outcome,
        augmented=augmented,
        plan=planned,
    )


def _augment(config: ConfigDict, found: records.Records) -> tuple[records.Records, dict[str, int]]:
    given = config.data.augment
    options = augment.Options(
        copies=given.copies,
        casing=given.casing,
        whitespace=given.whitespace,
        punctuation=given.punctuation,
        templates=augment.load_templates(given.templates) if given.templates else (),
    )
    made = augment.augment(found.conversations, options, config.seed)
    return (
        dataclasses.replace(found, conversations=made.conversations),
        {"made": made.made, "unchanged": made.unchanged},
    )
