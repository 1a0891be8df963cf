"""Floating-point operations of one training step, counted from the shapes. No arrays, no I/O.

A multiplication and an addition are two operations; only matrix products count, as is usual for
model FLOPs utilisation (Chowdhery et al. 2022, arXiv:2204.02311, appendix B). Forward, a product of
``[T, in]`` by ``[in, out]`` takes ``2 T in out``. Backward, the gradient of its input takes as many
again, and that of its weight as many again where the weight is trained: under LoRA the frozen
weights take none. Attention counts the pairs of positions that may see each other.

XLA's own count cannot serve: it counts the body of a scan once, and kernels not at all.
"""

import dataclasses
import math

from ml_collections import ConfigDict

from sft.model import lora
from sft.model.specs import Spec


@dataclasses.dataclass(frozen=True)
class Flops:
    """Of one optimiser step over the whole batch, forward and backward, by part of the model.

    Attributes:
      projections: the weights of the layers.
      attention: queries by keys, and weights by values.
      adapters: LoRA's pairs.
      head: the output embedding, for trained positions only.
      recomputed: what the backward pass does again to save memory; not part of ``model``.
    """

    projections: float
    attention: float
    adapters: float
    head: float
    recomputed: float

    @property
    def model(self) -> float:
        """What the result needs: the numerator of model FLOPs utilisation."""
        return self.projections + self.attention + self.adapters + self.head

    @property
    def executed(self) -> float:
        return self.model + self.recomputed


def train_step(spec: Spec, config: ConfigDict, rows: int, length: int, trained: float) -> Flops:
    """Counts one step.

    Args:
      config: ``lora.rank``, ``lora.targets`` and ``model.remat`` are read.
      rows: of the batch, over all devices and microbatches.
      length: positions per row, padding included. A row counts as one segment, so attention is
        an upper bound where examples are packed.
      trained: positions with loss in the whole batch.
    """
    tokens = rows * length
    full, names = not config.lora.rank, _adapted(config)
    weights = spec.num_layers * sum(i * o for i, o in _sizes(spec).values())
    low, high = adapter_sizes(spec, names, config.lora.rank)
    seen = rows * sum(pairs(length, kind.window) for kind in spec.layers)
    scores = 2 * seen * spec.heads * spec.head_dim  # one of attention's two products, forward
    table = spec.vocab * spec.embed
    forward = 2 * tokens * (weights + low + high) + 2 * scores
    # Saved outputs of projections and of attention leave to do again what is inside them: scores,
    # and the narrow side of the adapters. Under full tuning the gradient of the output embedding
    # needs the logits a second time (sft.train.loss).
    again = {"none": 0, "projections": 2 * tokens * low + scores, "layer": forward, "host": forward}
    return Flops(
        projections=2 * tokens * weights * (3 if full else 2),
        attention=2 * scores * 3,
        adapters=2 * tokens * (low + high) * 3,
        head=2 * trained * table * (3 if full else 2),
        recomputed=again[config.model.remat] + (2 * trained * table if full else 0),
    )


def pairs(length: int, window: int | None) -> int:
    """Pairs (query, key) of one causal row: a query sees itself and ``window - 1`` before it."""
    reach = min(length, window or length)
    return reach * (reach + 1) // 2 + (length - reach) * reach


def adapter_sizes(spec: Spec, names: tuple[str, ...], rank: int) -> tuple[int, int]:
    """Parameters of all A (inputs to rank) and of all B (rank to outputs)."""
    sizes = [_sizes(spec)[name] for name in names]
    layers = spec.num_layers * rank
    return layers * sum(i for i, _ in sizes), layers * sum(o for _, o in sizes)


def _adapted(config: ConfigDict) -> tuple[str, ...]:
    return lora.match(config.lora.targets) if config.lora.rank else ()


def _sizes(spec: Spec) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each projection of a layer."""
    return {name: (math.prod(i), math.prod(o)) for name, (i, o) in lora.shapes(spec).items()}
