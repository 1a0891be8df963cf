"""Learning-rate schedule and the optax chain."""

import jax
import optax
from ml_collections import ConfigDict


def warmup_steps(optim: ConfigDict, steps: int) -> int:
    """``optim.warmup`` of all steps, rounded; in a short run that may be none."""
    return round(optim.warmup * steps)


def schedule(optim: ConfigDict, steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then constant, linear or cosine decay to the end.

    Args:
      optim: the ``optim`` group of the configuration.
      steps: optimiser steps in the whole run.
    """
    peak, final = optim.learning_rate, optim.learning_rate * optim.final_scale
    warmup = warmup_steps(optim, steps)
    rest = max(steps - warmup, 1)
    after = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, final, rest),
        "cosine": optax.cosine_decay_schedule(peak, rest, alpha=optim.final_scale),
    }[optim.schedule]
    if warmup == 0:
        return after
    # From 1/warmup and not from 0: a first step that moves nothing is a step wasted.
    ramp = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([ramp, after], [warmup])


def make(optim: ConfigDict, steps: int, plus: float = 1.0) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101).

    Args:
      steps: optimiser steps in the whole run.
      plus: learning rate of every adapter's B over that of the rest (LoRA+, Hayou et al. 2024,
        arXiv:2402.12354). The state does not depend on it.
    """
    adamw = optax.adamw(
        schedule(optim, steps),
        b1=optim.b1,
        b2=optim.b2,
        eps=optim.eps,
        weight_decay=optim.weight_decay,
    )
    clip = optax.clip_by_global_norm(optim.clip_norm) if optim.clip_norm else optax.identity()
    return optax.chain(clip, adamw if plus == 1 else _faster("B", plus, adamw))


def _faster(
    leaf: str, ratio: float, tx: optax.GradientTransformation
) -> optax.GradientTransformation:
    """``tx`` with ``ratio`` times the learning rate for the leaves of that name.

    Its updates are the learning rate times the rest, the decoupled weight decay included.
    """

    def update(updates, state, params=None):
        updates, state = tx.update(updates, state, params)
        scale = lambda path, x: ratio * x if path[-1].key == leaf else x  # noqa: E731
        return jax.tree.map_with_path(scale, updates), state

    return optax.GradientTransformation(tx.init, update)
