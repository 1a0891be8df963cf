"""Findings about rows that stand more than once: in training and evaluation, or in one set."""

from collections.abc import Iterator, Mapping
from typing import Any

from sft.data.audit.texts import percent, rows

# Shares of an evaluated set, whether it is validation or test: one chooses what the other reports.
# A model that knows rows by heart gains up to a point of any score for each 1 % of them, and points
# are what epochs and models are told apart by. So rows that are the same are never nothing, and
# from 1 % on they are an error. What is only similar may give its answer away or not; we assume
# that one row in ten does, so that 10 % of similar rows make a point.
SAME_ERROR = 0.01
SIMILAR_WARNING, SIMILAR_ERROR = 0.01, 0.1
OFTEN = 0.01  # share of an evaluated set's rows that repeat others: below, intervals hardly change
LITTLE = 0.5  # share of the trained tokens; a person should know why so few are left
Finding = dict[str, str]


def findings(report: Mapping[str, Any]) -> Iterator[Finding]:
    """Of the plan of deduplication, where there is one, and of texts that sets share."""
    dedup = report.get("dedup")
    if dedup:
        yield from _left(dedup)
        for name, one in dedup["leakage"]["sets"].items():
            yield from _given_away(name, one, dedup["leakage"])
        yield from _crossed(report["sets"], dedup["leakage"]["crossed"])
    yield from _shared(report, compared=bool(dedup))
    for name, one in report["sets"].items():
        yield from _repeats(name, one)


def finding(severity: str, text: str, remedy: str) -> Finding:
    return {"severity": severity, "text": text, "remedy": remedy}


def level(same: float, similar: float) -> str:
    """``error``, ``warning``, ``note`` or ``""`` = nothing.

    Args:
      same: share of an evaluated set's rows that another set has: prompt, long answer, or all.
      similar: share of its rows that are similar to those of another set, and not the same.
    """
    if same > SAME_ERROR or similar > SIMILAR_ERROR:
        return "error"
    if same or similar > SIMILAR_WARNING:
        return "warning"
    return "note" if similar else ""


def _left(dedup: Mapping[str, Any]) -> Iterator[Finding]:
    before, left = dedup["trained_tokens"], dedup["trained_left"]
    counts = ", ".join(f"{code} {count:,}" for code, count in dedup["dropped"].items())
    if dedup["rows"] and not dedup["kept"]:
        yield finding(
            "error",
            f"train: none of its {rows(dedup['rows'])} is left after deduplication ({counts}).",
            "Look at data/report.html, and correct the files or config.data.dedup and .leakage.",
        )
    elif left < LITTLE * before:
        gone = [f"{dedup['masked_tokens']:,} repeat other rows"] * bool(dedup["masked_tokens"])
        gone += [f"rows dropped: {counts}"] * bool(counts)
        yield finding(
            "warning",
            f"train: deduplication leaves {percent(left / before)} of the trained tokens "
            f"({left:,} of {before:,}; {'; '.join(gone)}).",
            'Look at data/report.html. data.dedup.action = "report" masks and drops no stretch; a '
            "form that few rows have is kept with lower data.dedup.template_rows or template_share."
            if dedup["masked_tokens"] or "substring" in dedup["dropped"]
            else "Look at some of them in data/report.html, and see whether they are repetitions.",
        )


def _given_away(name: str, one: Mapping[str, Any], leakage: Mapping[str, Any]) -> Iterator[Finding]:
    if not one["touched"]:
        return
    culprits = f"{one['train_rows']:,} training row{'' if one['train_rows'] == 1 else 's'}"
    whose = f"{name}: {one['touched']:,} of {rows(one['rows'])} ({percent(one['share'])})"
    if leakage["policy"] == "drop":
        yield finding(
            "note",
            f"{whose} were given away by {culprits}, which are dropped: {_how(one)}.",
            "Nothing to do: data/report.html shows some of them.",
        )
        return
    similar = one["touched"] - one["same"]
    severity = level(one["same"] / one["rows"], similar / one["rows"])
    refused = ""
    if leakage["policy"] == "error" and one["share"] > leakage["max_share"]:
        severity = "error"
        refused = f" sft train refuses above data.leakage.max_share = {leakage['max_share']}."
    chosen = ", and it chooses the epoch" if name == "validation" else ""
    yield finding(
        severity,
        f"{whose} are given away by {culprits}, still in training: {_how(one)}.{refused}",
        'Set data.leakage.action = "drop" to leave them out of training, or remove them from one '
        f"of the two (data/report.html): scores on {name} are too good{chosen}. Rows of one "
        "conversation or document belong in one set: data.reading.group.",
    )


def _how(one: Mapping[str, Any]) -> str:
    """``60 by the same prompt, long answer or whole row, 3 by similar text``."""
    counts = {
        "by the same prompt, long answer or whole row": one["same"],
        "by similar text": one["touched"] - one["same"],
    }
    return ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)


def _crossed(sets: Mapping[str, Any], crossed: list[dict[str, Any]]) -> Iterator[Finding]:
    for one in crossed:
        share = one["rows"] / sets["validation"]["rows"]
        shares = (0.0, share) if one["kind"] == "similar" else (share, 0.0)
        yield finding(level(*shares), one["said"], one["remedy"])


def _shared(report: Mapping[str, Any], compared: bool) -> Iterator[Finding]:
    """Texts that two sets share, unless the plan has ``compared`` these sets already."""
    for shared in report["shared"]:
        pair = {shared["left"], shared["right"]}
        if not shared["rows"] or (compared and pair & {"train", "validation"}):
            continue
        size = report["sets"][shared["right"]]["rows"]
        yield finding(
            level(shared["rows"] / size, 0.0),
            f"{rows(shared['rows'])} word for word in both {shared['left']} and {shared['right']}.",
            f"Remove them from {shared['left']}: they make {shared['right']} look too good.",
        )


def _repeats(name: str, one: Mapping[str, Any]) -> Iterator[Finding]:
    repeats = one.get("repeats")
    if not repeats or not repeats["rows"]:
        return
    share = repeats["rows"] / one["rows"]
    yield finding(
        "warning" if share > OFTEN else "note",
        f"{name}: {repeats['rows']:,} of {rows(one['rows'])} ({percent(share)}) repeat earlier "
        f"ones; {repeats['distinct']:,} are different, and one, {repeats['first']}, stands "
        f"{repeats['most']:,} times.",
        f"Keep each once in {name}, which is never changed here: its scores count a repeated row "
        "as often as it stands, and intervals, which take rows as independent, are too narrow.",
    )
