"""The report in about 40 lines of plain text."""

from collections.abc import Callable
from typing import Any

from sft.data.audit.texts import percent, shorten

SHOWN_WARNINGS = 8
SHOWN_CATEGORIES = 6


def render(report: dict[str, Any]) -> str:
    """Sets side by side, how they differ, and the warnings last."""
    sets = report["sets"]
    rows = [("", list(sets))]
    rows += [(label, [cell(one) for one in sets.values()]) for label, cell in _ROWS]
    lines = _table([row for row in rows if any(row[1])])
    lines += _categories(sets)
    lines += _labels(report["labels"])
    if report["production"]:
        lines.append(f"production: {report['production']['rows']:,} prompts")
    if report["skew"]:
        lines.append("")
        lines += [pair["verdict"] for pair in report["skew"]]
    return "\n".join([*lines, "", *_warnings(report["warnings"])]) + "\n"


def tally(warnings: list[dict[str, str]]) -> str:
    """``2 errors, 1 warning, no notes``."""
    parts = []
    for severity in ("error", "warning", "note"):
        count = sum(warning["severity"] == severity for warning in warnings)
        parts.append(f"{count or 'no'} {severity}{'' if count == 1 else 's'}")
    return ", ".join(parts)


def _warnings(warnings: list[dict[str, str]]) -> list[str]:
    lines = [tally(warnings)]
    for warning in warnings[:SHOWN_WARNINGS]:
        lines.append(f"{warning['severity'].upper():7} {warning['text']}")
        if warning["severity"] != "note":
            lines.append(f"        {shorten(warning['remedy'], 200)}")
    hidden = len(warnings) - SHOWN_WARNINGS
    return lines + ([f"        … and {hidden} more in the report"] if hidden > 0 else [])


def _table(rows: list[tuple[str, list[str]]]) -> list[str]:
    first = max(len(label) for label, _ in rows)
    columns = list(zip(*(cells for _, cells in rows), strict=True))
    widths = [max(map(len, column)) for column in columns]
    return [
        "  ".join([label.ljust(first), *(c.rjust(w) for c, w in zip(cells, widths, strict=True))])
        for label, cells in rows
    ]


def _lengths(key: str) -> Callable[[dict[str, Any]], str]:
    def cell(one: dict[str, Any]) -> str:
        marks = one["lengths"][key].get("percentiles")
        return f"{marks['50']:,.0f} / {marks['95']:,.0f} / {marks['max']:,}" if marks else ""

    return cell


def _top(mix: dict[str, float], count: int = 2) -> str:
    top = [f"{name} {percent(share)}" for name, share in mix.items() if share >= 0.005]
    return ", ".join(top[:count])


def _over(one: dict[str, Any]) -> str:
    over = one["over_long"]
    here = next(at for at in over["at"] if at["length"] == over["length"])
    return f"{here['over']:,} over {over['length']:,}"


def _repeats(one: dict[str, Any]) -> str:
    return f"{one['repeats']['rows']:,}" if one["repeats"] and one["repeats"]["rows"] else ""


def _system(one: dict[str, Any]) -> str:
    systems = one["systems"]
    return (
        f"{percent(systems['share'])}, {systems['distinct']} distinct"
        if systems["distinct"]
        else ""
    )


_ROWS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("rows", lambda one: f"{one['rows']:,}"),
    ("rejected", lambda one: f"{one['rejected_rows']:,}"),
    ("tokens", lambda one: f"{one['tokens']:,}"),
    ("trained tokens", lambda one: f"{one['trained_tokens']:,}"),
    ("prompt tokens, median / 95 % / longest", _lengths("prompt")),
    ("response tokens", _lengths("response")),
    ("tokens a row", _lengths("row")),
    ("exchanges a row", _lengths("exchanges")),
    ("rows too long", _over),
    ("rows that repeat earlier ones", _repeats),
    ("rows with a system instruction", _system),
    ("prompt languages", lambda one: _top(one["languages"]["prompt"])),
    ("response languages", lambda one: _top(one["languages"]["response"])),
    ("prompt scripts", lambda one: _top(one["scripts"]["prompt"])),
)


def _categories(sets: dict[str, Any]) -> list[str]:
    """Of the first set that has some: of train, if it does."""
    name = next((name for name, one in sets.items() if one["categories"]), "")
    if not name:
        return []
    found_in = sets[name]["categories"]
    head = ["rows", "trained tokens", "share", "tokens a row, median / longest"]
    rows = [(f"categories of {name}", head)]
    for category, found in list(found_in.items())[:SHOWN_CATEGORIES]:
        tokens = f"{found['median_tokens']:,.0f} / {found['max_tokens']:,}"
        cells = [f"{found['rows']:,}", f"{found['trained_tokens']:,}"]
        cells += [percent(found["trained_share"]), tokens]
        rows.append((f"  {shorten(category, 40) or '(none)'}", cells))
    hidden = len(found_in) - SHOWN_CATEGORIES
    return ["", *_table(rows)] + ([f"  and {hidden} more in the report"] if hidden > 0 else [])


def _labels(labels: dict[str, Any] | None) -> list[str]:
    if not labels:
        return []
    return [
        f"{name}: {len(found['counts'])} labels, {found['entropy_bits']:.2f} bits; always saying "
        f"{found['majority']!r} is right in {percent(found['majority_share'])}"
        for name, found in labels["sets"].items()
    ]
