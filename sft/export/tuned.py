"""What is exported: a checkpoint of a run, as adapters beside the base model or merged with it."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sft.data.chat import encoding
from sft.data.sets import framing, loading
from sft.data.tokenizer.sentencepiece import Tokenizer
from sft.errors import UserError
from sft.eval import arms
from sft.eval.arms import Arm
from sft.export import chat_template
from sft.model import decoder, lora
from sft.model.specs import Spec
from sft.session import Session
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

    @functools.cached_property
    def framing(self) -> framing.Framing:
        """What training put around a conversation, as far as an export can do so."""
        return chat_template.expressible(framing.of(self.config, self.path), self.tokenizer)

    @property
    def format_name(self) -> str:
        """Of the turns of training: ``config.data.chat``, or the model's own."""
        return loading.chat_format(self.config, self.spec)

    @property
    def format(self) -> encoding.Format:
        return encoding.FORMATS[self.format_name]

    @property
    def chat_template(self) -> str:
        """In Jinja."""
        return chat_template.jinja(self.format, self.framing)

    @property
    def stops(self) -> list[int]:
        """Ids that end an answer."""
        return [self.tokenizer.eos_id, self.tokenizer.end_of_turn_id]

    def leaves(self, dtype: str) -> Iterator[tuple[str, int | None, np.ndarray]]:
        """The merged weights: leaf, layer (``None`` = not stacked) and values, oriented as ours.

        Merged in float32 and rounded once, a leaf at a time, so that no second copy of the model
        is ever there.

        Raises:
          UserError: a weight is too large for the type.
        """
        for leaf in ("embed_VxD", "final_norm_D"):
            yield leaf, None, _rounded(leaf, np.asarray(self.params[leaf]), dtype)
        for leaf in self.params["layers"]:
            stacked = _rounded(leaf, np.asarray(self._merged(leaf)), dtype)
            for layer, values in enumerate(stacked):
                yield leaf, layer, values

    def _merged(self, leaf: str) -> jax.Array:
        weight = self.params["layers"][leaf]
        mine = {name: self.adapters[name] for name in self.adapters if lora.WEIGHTS[name] == leaf}
        if not mine:
            return weight
        base = {"layers": {leaf: weight.astype(jnp.float32)}}
        return lora.merge(base, mine, self.scale)["layers"][leaf]


def _rounded(leaf: str, values: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # checked
        rounded = values.astype(jnp.dtype(dtype))
    check_held(leaf, rounded)
    return rounded


def check_held(leaf: str, rounded: np.ndarray) -> None:
    """Refuses float16 where weights are beyond its range.

    Raises:
      UserError: names the leaf.
    """
    if rounded.dtype == np.float16 and not np.isfinite(rounded).all():
        raise UserError(
            f"--dtype=float16: {leaf} has weights beyond what float16 can hold (65504). Choose "
            "--dtype=bfloat16 or float32."
        )


def load(session: Session, checkpoint: str) -> Tuned:
    """The checkpoint that ``--checkpoint`` means, with the base model of the run.

    Raises:
      UserError: no such checkpoint, a damaged one, or no weights.
    """
    config, path, spec = session.config, session.path, session.spec
    arm = arms.which(path, config, checkpoint)
    model = arms.load(session, arm.step)
    params, adapters = model.steps.model(model.trainable, model.frozen)
    options = dataclasses.replace(model.steps.options, remat="none", attention="reference")

    placed = model.steps.params_sharding

    def base() -> Tree:
        return params if adapters else session.params(placed)

    return Tuned(
        config, path, arm, spec, session.tokenizer, params, adapters, options, base, placed
    )
