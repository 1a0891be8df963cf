"""What a run tunes, by kind and by count: said before the first step, and kept with the run."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sft.model import decoder, flops, lora
from sft.model.specs import Spec


def describe(spec: Spec, config: ConfigDict) -> dict[str, Any]:
    """What ``config.lora`` tunes of a model.

    Returns:
      ``{"model", "projections", "layers", "rank", "scale", "dora", "trained", "parameters"}``;
      ``projections`` are empty, and rank and scale ``None``, where all weights are tuned;
      ``trained`` and ``parameters`` are numbers of parameters, the latter of the model alone.

    Raises:
      UserError: ``config.lora.targets`` has a part that matches nothing.
    """
    leaves = jax.tree.leaves(decoder.abstract_params(spec, jnp.dtype("float32")))
    total, rank = sum(math.prod(leaf.shape) for leaf in leaves), config.lora.rank
    if not rank:
        names, trained, scale = (), total, None
    else:
        names = lora.match(config.lora.targets)
        trained = sum(flops.adapter_sizes(spec, names, rank))
        outputs = [lora.shapes(spec)[name][1] for name in names if config.lora.dora]
        trained += spec.num_layers * sum(map(math.prod, outputs))  # magnitudes
        scale = lora.scaling(rank, config.lora.alpha, config.lora.rslora)
    return {
        "model": spec.name,
        "projections": list(names),
        "layers": spec.num_layers,
        "rank": rank or None,
        "scale": scale,
        "dora": config.lora.dora,
        "trained": trained,
        "parameters": total,
    }


def said(found: dict[str, Any]) -> str:
    """One line of it for the terminal."""
    trained, total = found["trained"], found["parameters"]
    if not found["projections"]:
        return f"train all {total:,} parameters of {found['model']}"
    kind = "DoRA adapters" if found["dora"] else "adapters"
    return (
        f"train {kind} of rank {found['rank']}, scaled by {found['scale']:g}, on "
        f"{', '.join(found['projections'])} in all {found['layers']} layers of {found['model']}: "
        f"{trained:,} parameters, {trained / total:.2%} of the model's {total:,}"
    )
