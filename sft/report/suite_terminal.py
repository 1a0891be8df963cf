"""A suite's result as plain text."""

import json
from pathlib import Path
from typing import Any

from sft.eval.suites import compare
from sft.eval.suites.cases import KINDS
from sft.run import display

SHOWN = 20  # failing cases; the file has all
_WIDTH = 72  # characters of a text that are shown


def render(result: compare.Result, base: compare.Result | None, path: Path) -> str:
    """Pass rates by kind, beside the base model's where there are any, and the failing cases.

    Args:
      base: the base model's result; ``None`` where there is none, or ``result`` is it.
      path: of the result.
    """
    lines = [f"{result['arm']} on suite {result['suite']} ({result['file']})", *_rates(result)]
    if base is None:
        failing = compare.alone(result)
        if result["arm"] != "base":
            lines.append("To compare: sft eval suite --checkpoint base")
    else:
        found = compare.compare(base, result)
        failing = found.failing
        lines += _changes(found)
    return "\n".join([*lines, *_failing(failing, path), f"wrote {path}"])


def _rates(result: compare.Result) -> list[str]:
    lines = [f"  {'':<10}{'cases':>6}{'passed':>8}  {'rate':>7}  95 % interval"]
    for kind in KINDS:
        if kind in result["kinds"]:
            lines.append(f"  {kind:<10}{_rate(result['kinds'][kind])}")
    lines.append(f"  {'all':<10}{_rate(result)}")
    if any(row.get("cut") is None for row in result["cases"]):
        return [*lines, "  how many answers were cut is not known: they are of an older version"]
    share, cap = result["cut"] / result["count"], result["max_new_tokens"]
    said = f"{display.share(share)} of the answers ({result['cut']}/{result['count']})"
    return [*lines, f"  cut at {cap} tokens: {said}"]


def _rate(part: dict[str, Any]) -> str:
    text = f"{part['count']:>6}{part['passed']:>8}"
    if part["interval"]:
        interval = display.interval(*part["interval"], "pass_rate")
        text += f"  {display.share(part['pass_rate']):>7}  {interval}"
    return text + (f"  ({part['undecided']} without a verdict)" if part["undecided"] else "")


def _changes(found: compare.Comparison) -> list[str]:
    lines = [f"{found.arms[0]} to {found.arms[1]}, the same cases"]
    for change in found.changes:
        lines.append(
            f"  {change.kind:<10}{display.share(change.before / change.count)} to "
            f"{display.share(change.after / change.count)}: {display.points(change.difference)} "
            f"points ({display.points(change.low)} to {display.points(change.high)}), McNemar's "
            f"exact {display.p_value(change.p)}; "
            f"{len(change.fixed)} fixed, {len(change.broken)} broken"
        )
    if found.unpaired:
        lines.append(
            f"  {len(found.unpaired)} cases are not compared: the suite has changed since "
            f"{found.arms[0]} was asked. Run sft eval suite --checkpoint {found.arms[0]} again."
        )
    return lines


def _failing(failing: tuple[dict[str, Any], ...], path: Path) -> list[str]:
    if not failing:
        return ["every decided case passes"]
    lines = [f"failing cases: {len(failing)}"]
    for row in failing[:SHOWN]:
        state = f", {row['state']}" if row["state"] else ""
        lines.append(f"  {row['id']} ({row['kind']}{state})")
        cut = " (cut)" if row["cut"] else ""
        lines.append(f"    {_quoted(row['prompt'])} -> {_quoted(row['answer'])}{cut}")
        lines.append(f"    {_shorter(row['why'])}")
    if len(failing) > SHOWN:
        lines.append(f"  … and {len(failing) - SHOWN} more: {path}")
    return lines


def _quoted(text: str) -> str:
    """In quotes, on one line."""
    return json.dumps(_shorter(text), ensure_ascii=False)


def _shorter(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
