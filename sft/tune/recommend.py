"""``sft recommend``: what to start from for this data set and model, by the guide's table."""

import math
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft import config as configs
from sft import topology
from sft.errors import UserError
from sft.model import specs
from sft.model.specs import Spec
from sft.tune import table
from sft.workdir import path_of, read_json, write_json

ALPHA = 32.0  # of LoRA, whatever the rank: what the rates behind table.base_rate were found with
START = 100  # examples from which the guide would have one start
FEWEST = 20  # "20 pairs can already move Gemma"
STEPS = 50  # fewer can hardly leave the warm-up and come down again

Result = dict[str, Any]


def main(config: ConfigDict, workdir: str, modality: str = "text", slice_name: str = "") -> Result:
    """Prints the recommendation and writes ``recommendation.json``.

    Args:
      workdir: of a run that ``sft data`` has audited.
      modality: text | image | audio; the table has rows for all, though only text is trained here.
      slice_name: TPU slice for which to say how long the training takes at least; may be empty.

    Returns:
      ``{"row", "changes": {key: value}, "rules", "warnings", "examples", "context", "base_rate",
      "steps", "tokens", "hours": at least so many, or None}``.

    Raises:
      UserError: no audit, no training set in it, no such slice or modality.
    """
    path = path_of(workdir) / "data" / "report.json"
    train = _audited(path)
    spec = specs.get(config.model.name)
    choice = table.look_up(table.tier(spec), modality, train["rows"], train["mean_tokens"])
    changes = diff(config, spec, choice)
    tuned = config.copy_and_resolve_references()
    tuned.update_from_flattened_dict(changes)
    found = {
        "row": choice.row.name,
        "changes": changes,
        "rules": list(choice.rules),
        "warnings": warnings(tuned, train),
        "examples": train["rows"],
        "context": train["mean_tokens"],
        "base_rate": table.base_rate(spec),
        "multiplier": choice.multiplier,
        "steps": steps(tuned, train),
        "tokens": tuned.train.epochs * train["tokens"],
        "hours": hours(tuned, spec, train, slice_name) if slice_name else None,
    }
    print("\n".join(lines(found, spec, config, slice_name)))
    out = path_of(workdir) / "recommendation.json"
    write_json(out, found)
    print(f"wrote {out}")
    return found


def diff(config: ConfigDict, spec: Spec, choice: table.Choice) -> dict[str, Any]:
    """The values to set; epochs are the default's where the guide has none."""
    epochs = choice.epochs if choice.epochs is not None else configs.default().train.epochs
    return {
        "train.epochs": epochs,
        "optim.learning_rate": float(f"{choice.multiplier * table.base_rate(spec):.2g}"),
        "lora.rank": choice.adapter,
        "lora.alpha": ALPHA,
        "lora.rslora": False,
    }


def steps(config: ConfigDict, train: Result) -> int:
    """Optimiser steps of the whole run, packing about as tight as the tokens allow."""
    rows = train["rows"]
    if config.data.pack:
        rows = min(rows, math.ceil(train["tokens"] / config.data.max_length))
    return config.train.epochs * max(1, math.ceil(rows / config.train.batch_size))


def hours(config: ConfigDict, spec: Spec, train: Result, slice_name: str) -> float:
    """At least so many on that slice: the roofline of ``sft plan`` times the steps.

    Raises:
      UserError: no such slice, or a mesh that does not suit it.
    """
    from sft.plan import roofline

    slice_ = topology.get(slice_name)
    share = train["trained_tokens"] / train["tokens"]
    each = max(roofline.seconds(spec, config, slice_, share).values())
    return steps(config, train) * each / 3600


def warnings(config: ConfigDict, train: Result) -> list[str]:
    """Where the set is too small for what is to be done with it."""
    rows, epochs, count = train["rows"], config.train.epochs, steps(config, train)
    found = []
    if rows < FEWEST:
        found.append(
            f"{rows} examples: fewer than {FEWEST} hardly tell a model anything. Add some."
        )
    elif rows < START:
        found.append(
            f"{rows} examples: the guide would have one start near {START}, look at the effect, "
            "and then add corner cases."
        )
    if rows < START and epochs > configs.default().train.epochs:
        found.append(
            f"{epochs} epochs of {rows} examples: they will be known by heart. Watch the "
            "validation loss; train.patience ends the run when it rises."
        )
    if count < STEPS:
        found.append(
            f"{count} optimiser steps in all: lower train.batch_size (now "
            f"{config.train.batch_size}) until there are {STEPS} or more."
        )
    return found


def lines(found: Result, spec: Spec, config: ConfigDict, slice_name: str) -> list[str]:
    """For a person."""
    now = dict(configs.flatten(config))
    text = [
        f"{found['examples']:,} training examples of {found['context']:.0f} tokens in the mean, "
        f"{spec.name}: the guide's row is {found['row']}.",
        f"Learning rate: {found['multiplier']:g} x {found['base_rate']:g}, the base rate of "
        f"{spec.name} (sft/tune/table.py).",
        *(f"By our rule, {rule}." for rule in found["rules"]),
        "",
        *(
            f"  --config.{key}={value}" + ("" if now[key] != value else "  (as it is)")
            for key, value in found["changes"].items()
        ),
        "",
        f"{found['steps']:,} steps, {found['tokens']:,} tokens.",
    ]
    if found["hours"] is not None:
        text.append(
            f"On {slice_name} at least {found['hours']:.2g} hours of steps, at peak rates "
            "(sft plan says whether they fit)."
        )
    return text + [f"warning: {warning}" for warning in found["warnings"]]


def _audited(path: Path) -> Result:
    """The training set as ``sft data`` counted it.

    Raises:
      UserError: there is no audit, or no training row in it.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file. Run sft data with the same --workdir first.")
    train = read_json(path).get("sets", {}).get("train", {})
    if not train.get("rows") or not train.get("tokens"):
        raise UserError(f"{path}: no training rows in it. Run sft data again.")
    return train
