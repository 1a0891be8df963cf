"""What is exported: a checkpoint of a run, as adapters beside the base model or merged with it."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sft import inputs
from sft.data.tokenizer import Tokenizer
from sft.eval import arms
from sft.eval.arms import Arm
from sft.model import decoder, lora, specs
from sft.model.specs import Spec
from sft.types import Tree


@dataclasses.dataclass(frozen=True)
class Tuned:
    """One model.

    Attributes:
      config: of the run.
      path: of the run.
      arm: the checkpoint.
      params: as in ``decoder.forward``, in the dtype of training.
      adapters: float32, ``{name: {"A", "B"}}`` and ``"m"`` with DoRA; empty under full tuning.
      options: of ``decoder.forward``, with the scale of the adapters.
      base: the weights before tuning; under full tuning they are read again.
      shardings: of ``params``; ``None`` = on the first device.
    """

    config: ConfigDict
    path: Path
    arm: Arm
    spec: Spec
    tokenizer: Tokenizer
    params: Tree
    adapters: Tree
    options: decoder.Options
    base: Callable[[], Tree]
    shardings: Tree = None

    @property
    def scale(self) -> float:
        return self.options.lora_scale

    @property
    def has_magnitudes(self) -> bool:
        """Whether the adapters are DoRA's."""
        return any("m" in adapter for adapter in self.adapters.values())

    @property
    def has_plain_adapters(self) -> bool:
        """Whether there are adapters that every library knows: LoRA's, not DoRA's."""
        return bool(self.adapters) and not self.has_magnitudes

    def leaves(self, dtype: str) -> Iterator[tuple[str, int | None, np.ndarray]]:
        """The merged weights: leaf, layer (``None`` = not stacked) and values, oriented as ours.

        Merged in float32 and rounded once, a leaf at a time, so that no second copy of the model
        is ever there.
        """
        wanted = jnp.dtype(dtype)
        for leaf in ("embed_VxD", "final_norm_D"):
            yield leaf, None, np.asarray(self.params[leaf]).astype(wanted)
        for leaf in self.params["layers"]:
            stacked = np.asarray(self._merged(leaf)).astype(wanted)
            for layer, values in enumerate(stacked):
                yield leaf, layer, values

    def _merged(self, leaf: str) -> jax.Array:
        weight = self.params["layers"][leaf]
        mine = {name: self.adapters[name] for name in self.adapters if lora.WEIGHTS[name] == leaf}
        if not mine:
            return weight
        base = {"layers": {leaf: weight.astype(jnp.float32)}}
        return lora.merge(base, mine, self.scale)["layers"][leaf]


def load(config: ConfigDict, path: Path, checkpoint: str) -> Tuned:
    """The checkpoint that ``--checkpoint`` means, with the base model of the run.

    Raises:
      UserError: no such checkpoint, a damaged one, or no weights.
    """
    arm = arms.which(path, config, checkpoint)
    spec = specs.get(config.model.name)
    tokenizer = inputs.tokenizer(config, spec)
    model = arms.load(config, str(path), arm.step, tokenizer)
    params, adapters = model.steps.model(model.trainable, model.frozen)
    options = dataclasses.replace(model.steps.options, remat="none", attention="reference")

    placed = model.steps.params_sharding

    def base() -> Tree:
        return params if adapters else inputs.params(config, spec, placed)

    return Tuned(config, path, arm, spec, tokenizer, params, adapters, options, base, placed)
