"""What to start from for this data set and model, by the guide's table."""

import math
from typing import Any

from ml_collections import ConfigDict

from sft import config as configs
from sft.mesh import slices
from sft.model import specs
from sft.model.specs import Spec
from sft.tune import table

ALPHA = 32.0  # of LoRA, whatever the rank: what the rates behind table.base_rate were found with
START = 100  # examples from which the guide would have one start
FEWEST = 20  # "20 pairs can already move Gemma"
STEPS = 50  # fewer can hardly leave the warm-up and come down again

Result = dict[str, Any]


def recommend(config: ConfigDict, train: Result, modality: str, slice_name: str) -> Result:
    """The guide's row for a training set, and what follows from it.

    Args:
      train: the training set as ``sft data`` counted it.
      modality: text | image | audio; the table has rows for all, though only text is trained here.
      slice_name: TPU slice for which to say how long the training takes at least; may be empty.

    Returns:
      ``{"row", "changes": {key: value}, "rules", "warnings", "examples", "context", "base_rate",
      "steps", "tokens", "hours": at least so many, or None}``.

    Raises:
      UserError: no such slice or modality.
    """
    spec = specs.get(config.model.name)
    choice = table.look_up(table.tier(spec), modality, train["rows"], train["mean_tokens"])
    changes = diff(config, spec, choice)
    tuned = config.copy_and_resolve_references()
    tuned.update_from_flattened_dict(changes)
    return {
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

    slice_ = slices.get(slice_name)
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
