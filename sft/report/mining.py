"""What mining found, as lines for a terminal."""

import shlex
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft.eval.mine import Parts, columns
from sft.run import display


def table(summary: dict[str, Any]) -> str:
    """The distribution of the loss over rows, and how the chosen ones differ."""
    kinds = {"": {"all rows": summary["all"]}}
    kinds |= {name: summary[name] for name in ("categories", "origins") if len(summary[name]) > 1}
    kinds[" "] = {"chosen": summary["chosen"]}
    lines = [f"{summary['arm']}: loss of {summary['data']}, nats per trained token"]
    heads = ("rows", "mean", "p10", "median", "p90", "max", "accuracy")
    lines.append(f"{'':<28}" + "".join(f"{head:>9}" for head in heads))
    for found in kinds.values():
        for name, numbers in found.items():
            label = name or "(none)"
            label = label if len(label) <= 26 else f"…{label[-25:]}"
            values = [numbers["loss"], *numbers["quantiles"].values(), numbers["token_accuracy"]]
            lines.append(
                f"{label:<28}{numbers['count']:>9,}" + "".join(f"{v:>9.4f}" for v in values)
            )
    if "exact_match" in summary["all"]:
        shares = [display.share(summary[name]["exact_match"]) for name in ("all", "chosen")]
        lines.append("exact match {} of all rows, {} of the chosen".format(*shares))
        cut = display.share(summary["all"]["cut"])
        lines.append(f"answers cut at config.eval.max_new_tokens: {cut} of all rows")
    return "\n".join(lines)


def onward(here: Path, arm: str, config: ConfigDict, parts: Parts) -> str:
    """What was written, and how to use it."""
    lines = [f"wrote {here / f'{arm}.ranked.jsonl'} and {arm}.summary.json"]
    words = []
    for name, key in (("train", "data.train"), ("evaluate", "data.test")):
        if parts[name]:
            path = here / f"{arm}.{name}.jsonl"
            lines.append(f"wrote {path}: {len(parts[name])} rows")
            words.append(f"--config.{key}={path}")
    # What the reading added to a row is in it now, and must not be added again.
    cleared = ("container", "group", "group_regex", "category", "instruction", "template")
    reading = dict.fromkeys(cleared, "") | {key: key for key in columns(parts)}
    words += [
        f"--config.data.reading.{key}={value}"
        for key, value in reading.items()
        if value != config.data.reading[key]
    ]
    if parts["evaluate"] and config.data.split.test:
        words.append("--config.data.split.test=0.0")
    lines.append(f"next: sft train with a new --workdir and {shlex.join(words)}")
    if parts["evaluate"]:
        lines.append(
            f"The rows of {arm}.evaluate.jsonl are in the training files too: do not train on "
            "those beside it."
        )
    return "\n".join(lines)
