"""What in a report needs a person: one sentence with the numbers, one with the remedy."""

from collections.abc import Iterator
from typing import Any

from sft.data.audit import leaks
from sft.data.audit.leaks import Finding
from sft.data.audit.leaks import finding as warning
from sft.data.audit.texts import percent, rows

SEVERITIES = ("error", "warning", "note")
TINY, SMALL = 20, 100  # rows: 20 can already move a Gemma; guides start near 100
REPEATED = 0.9  # share of one answer from which answers teach little
OFTEN = 0.01  # share of rows from which a sign is a warning rather than a note
_LOSES = {  # policies for over-long rows
    "error": "dropping them",
    "drop": "dropping them",
    "truncate_prompt_left": "cutting their prompts",
    "truncate_response": "cutting their answers",
}


def warnings(report: dict[str, Any]) -> list[Finding]:
    """Of all sets and pairs, the most severe first."""
    found: list[Finding] = []
    for name, one in report["sets"].items():
        for check in (of_reading, _size, _mask, _over_long, _answers, _marks):
            found += check(name, one)
    found += leaks.findings(report)
    found += _validation(report["sets"])
    found += _between(report)
    return sorted(found, key=lambda warning: SEVERITIES.index(warning["severity"]))


def of_reading(name: str, one: dict[str, Any]) -> Iterator[Finding]:
    """What became of the rows of a set as they were read.

    Args:
      one: of the report's ``sets``.
    """
    # A set that others are cut from has read more than it keeps.
    read = sum(origin["read"] for origin in one["origins"].values())
    read = max(read, one["rows"] + one["rejected_rows"])
    for reason, count in one["rejected"].items():
        first = next((line for line in one["rejected_examples"] if f": {reason}" in line), "")
        yield warning(
            "warning",
            f"{name}: {count:,} of {rows(read)} rejected: {reason}.",
            f"Mend or remove them; the first: {first}" if first else "Mend or remove them.",
        )
    if one["repaired"]:
        kinds = ", ".join(f"{kind} in {rows(count)}" for kind, count in one["repaired"].items())
        yield warning(
            "note",
            f"{name}: repair left out: {kinds}.",
            "Look at some of these rows; without data.reading.repair they are rejected.",
        )
    for remark in one["remarks"]:
        yield warning(remark["severity"], f"{name}: {_places(remark)}.", remark["remedy"])
    if one["unread"]:
        columns = sorted(one["unread"], key=lambda column: -one["unread"][column])
        more = f" and {len(columns) - 8} more" if len(columns) > 8 else ""
        yield warning(
            "note",
            f"{name}: columns that are not read: {', '.join(columns[:8])}{more}.",
            "Name those that belong in the prompt in data.reading, or leave them.",
        )


def _places(remark: dict[str, Any]) -> str:
    """What was found while reading, and where."""
    first, count = remark["first"], remark["count"]
    if remark["unit"] == "row":
        return f"{remark['text']}: {rows(count)}; the first is {first[0]}"
    more = f" and {count - len(first)} more" if count > len(first) else ""
    return f"{remark['text']}: {', '.join(first)}{more}"


def _size(name: str, one: dict[str, Any]) -> Iterator[Finding]:
    count = one["rows"]
    if name == "train" and count < SMALL:
        yield warning(
            "warning" if count < TINY else "note",
            f"train: {rows(count)}.",
            f"Below {TINY} little is learnt; start near {SMALL} good rows and add more "
            "where the tuned model fails.",
        )
    if name != "train" and count < TINY:
        yield warning(
            "warning",
            f"{name}: {rows(count)}, too few to compare epochs or models.",
            f"Have at least {TINY}, better {SMALL} or more, that look like production.",
        )


def _mask(name: str, one: dict[str, Any]) -> Iterator[Finding]:
    untrained, bos, ends = one["untrained"], one["bos"], one["ends"]
    if untrained["rows"]:
        yield warning(
            "error",
            f"{name}: {rows(untrained['rows'])} without a trained token; the first is "
            f"{untrained['first']}.",
            "They teach nothing: give them an answer, or remove them.",
        )
    if bos["wrong_rows"]:
        yield warning(
            "error",
            f"{name}: {rows(bos['wrong_rows'])} without exactly one <bos>; the first is "
            f"{bos['first']}.",
            "The chat format places it: remove it wherever else the rows get one.",
        )
    lacking = ends["answers"] - ends["ended"]
    if lacking:
        yield warning(
            "error" if ends["share"] < 0.99 else "warning",
            f"{name}: {lacking:,} of {ends['answers']:,} trained answers have no trained end of "
            f"turn ({percent(1 - ends['share'])}).",
            "A model that does not learn to stop goes on: raise data.max_length, or choose "
            "data.over_long = 'drop' or 'truncate_prompt_left'.",
        )


def _over_long(name: str, one: dict[str, Any]) -> Iterator[Finding]:
    over, policy = one["over_long"], one["over_long"]["policy"]
    here = next(at for at in over["at"] if at["length"] == over["length"])
    if not here["over"]:
        return
    key = "data.max_length" if name == "train" else "data.eval_max_length"
    holds = over["holds"]
    hints = [f"{holds['all']:,} holds all"]
    if here["share"] > OFTEN and holds["most"] < holds["all"]:
        hints = [f"{holds['most']:,} holds 99 % of the rows", *hints]
    means = f"; {_LOSES[policy]} loses {here['lost_trained_tokens']:,} trained tokens"
    means = f"{means} ({percent(here['lost_share'])})"
    remedy = f"Raise {key} ({', '.join(hints)}), or shorten the rows."
    is_refused = policy == "error" and here["share"] > over["max_share"]
    if name != "train":
        means = ", and rows for evaluation are never cut"
    elif is_refused:
        means = means.replace("loses", "would lose")
        means += f", and sft train refuses above data.max_over_long = {over['max_share']}"
        remedy = (
            f"Raise {key} ({', '.join(hints)}), shorten the rows, or choose what is lost: "
            "data.over_long = 'drop', 'truncate_prompt_left' or 'truncate_response'."
        )
    is_severe = name != "train" or is_refused or here["lost_share"] > OFTEN
    yield warning(
        "error" if is_severe else "warning",
        f"{name}: {rows(here['over'])} ({percent(here['share'])}) longer than {key} = "
        f"{over['length']:,}{means}.",
        remedy,
    )


def _answers(name: str, one: dict[str, Any]) -> Iterator[Finding]:
    repeated, conflicts = one["repeated_answer"], one["conflicts"]
    if repeated and repeated["share"] > REPEATED and one["rows"] > 1:
        yield warning(
            "error" if name == "train" else "warning",
            f"{name}: {percent(repeated['share'])} of the answers are {repeated['text']!r}.",
            "A model that always says this is nearly always right here: balance the answers.",
        )
    if conflicts["rows"]:
        share = conflicts["rows"] / one["rows"]
        yield warning(
            "warning" if share > OFTEN else "note",
            f"{name}: {conflicts['prompts']:,} prompts have several different answers "
            f"({rows(conflicts['rows'])}, {percent(share)}).",
            "If only one is right, keep that one (data.dedup.responses_per_prompt = 1 keeps the "
            "first of train); an even mixture cannot be learnt.",
        )


def _marks(name: str, one: dict[str, Any]) -> Iterator[Finding]:
    for sign, mark in one["marks"].items():
        share = mark["rows"] / one["rows"]
        often = "warning" if share > OFTEN else "note"
        where = f"{rows(mark['rows'])} ({percent(share)}); the first is {mark['first']}"
        if sign == "few_shot":
            yield warning(
                often,
                f"{name}: prompts hold worked examples in {where}.",
                "Tuning needs no few-shot examples in the prompt: make each its own row.",
            )
        elif sign == "user_prefix":
            yield warning(
                "warning",
                f"{name}: texts begin with the name of their role in {where}.",
                "A chat template seems to be applied already: give the bare texts.",
            )
        elif sign == "trimmed_answers":
            yield warning(
                "note",
                f"{name}: the chat format strips white space around answers in {where}.",
                "Nothing to do, unless the white space matters to whoever reads the answers.",
            )
        else:
            yield warning(
                "warning",
                f"{name}: the text {sign!r} is in {where}.",
                "It is kept as text, not as a control token: a chat template was probably applied "
                "twice; give the bare texts.",
            )


def _validation(sets: dict[str, Any]) -> Iterator[Finding]:
    if "train" in sets and "validation" not in sets:
        yield warning(
            "warning",
            "There is no validation set.",
            "Overfitting cannot be seen and no epoch can be chosen: set data.validation, or cut "
            "one with data.split.validation.",
        )


def _between(report: dict[str, Any]) -> Iterator[Finding]:
    for pair in report["skew"]:
        if pair["differs"] or not pair["told"]:
            severity = "warning" if pair["differs"] else "note"
            remedy = " ".join([pair["choice"], *pair["remedies"][:3]]).strip() or "Give more rows."
            yield warning(severity, pair["summary"], remedy)
    labels = report["labels"] or {"missing": {}, "unseen": {}}
    for name, missing in labels["missing"].items():
        yield warning(
            "warning",
            f"{name} lacks {len(missing)} of train's answers: {', '.join(missing[:8])}.",
            f"What {name} says about them is nothing: add rows, or cut {name} from the training "
            'rows with the same share of each: data.split.stratify = "category".',
        )
    for name, unseen in labels["unseen"].items():
        yield warning(
            "error",
            f"{name} has answers that train never gives: {', '.join(unseen[:8])}.",
            "They cannot be learnt: add training rows, or check their spelling.",
        )
