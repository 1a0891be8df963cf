"""Loss and token accuracy of a whole set, example by example.

Independent of every training knob, of batch size, packing and device count: each example is a row
of its own, and rows are added up in float64.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sft import hosts
from sft.data import pipeline
from sft.data.chat import Example
from sft.model import sharding
from sft.train import log
from sft.train.steps import Steps
from sft.types import Batch, Tree


@dataclasses.dataclass(frozen=True)
class Scored:
    """Of each example, in order, float64 ``[n]``.

    Attributes:
      nll: negative log-likelihood of its trained tokens, nats, summed.
      correct: trained tokens that greedy decoding would choose.
      trained: trained tokens.
    """

    nll: np.ndarray
    correct: np.ndarray
    trained: np.ndarray


def by_example(
    config: ConfigDict,
    steps: Steps,
    trainable: Tree,
    frozen: Tree,
    examples: Sequence[Example],
    *,
    max_length: int | None = None,
    what: str = "validation",
) -> Scored:
    """Scores every example by itself, unpacked. On several hosts, all get all numbers.

    Args:
      max_length: of an example, in tokens; ``None`` = ``config.data.eval_max_length``.
      what: for the progress bar.

    Raises:
      UserError: an example is longer.
    """
    groups = sharding.groups(mesh_of(steps))
    part, parts = hosts.share(steps.batch_sharding)
    order = pipeline.eval_order(examples)
    bar = log.progress(len(examples), what, "example")
    found = []
    for batch in pipeline.eval_batches(
        examples,
        # Rounded up: rows without an example have no weight.
        batch_size=-(-config.eval.batch_size // groups) * groups,
        max_length=max_length or config.data.eval_max_length,
        bucket=math.lcm(pipeline.BUCKET, steps.row_multiple),
        process=part,
        processes=parts,
    ):
        sums = jax.device_get(steps.score(trainable, frozen, place(batch, steps)))
        found.append([sums["loss"].total, sums["correct"].total, sums["loss"].weight])
        bar.update(np.count_nonzero(sums["loss"].weight))
    bar.close()
    # Rows without an example fill the last batch only, behind the others.
    values = np.concatenate(found, axis=1).astype(np.float64)[:, : len(order)]
    restored = np.empty_like(values)
    restored[:, order] = values
    return Scored(*restored)


def summary(scored: Scored) -> dict[str, float]:
    """Means per trained token over the set.

    ``loss_se`` is the standard error of ``loss`` over examples drawn like these: of a ratio of two
    sums, by linearisation (Cochran 1977, *Sampling Techniques*, section 6.3).
    """
    weight, count = float(scored.trained.sum()), len(scored.trained)
    loss = float(scored.nll.sum()) / weight
    spread = float(np.sum((scored.nll - loss * scored.trained) ** 2))
    return {
        "loss": loss,
        "token_accuracy": float(scored.correct.sum()) / weight,
        "loss_se": math.sqrt(spread * count / max(count - 1, 1)) / weight,
        "weight": weight,
    }


def validate(
    config: ConfigDict, steps: Steps, trainable: Tree, frozen: Tree, examples: Sequence[Example]
) -> dict[str, float]:
    """``summary`` of ``by_example``."""
    return summary(by_example(config, steps, trainable, frozen, examples))


def place(batch: Batch, steps: Steps) -> Batch:
    """This process's rows as part of global arrays on the devices."""
    _, parts = hosts.share(steps.batch_sharding)

    def on_devices(x: np.ndarray) -> jax.Array:
        shape = len(x) * parts, x.shape[1]  # whole rows, also where another host has their end
        return jax.make_array_from_process_local_data(steps.batch_sharding, x, shape)

    return jax.tree.map(on_devices, batch)


def mesh_of(steps: Steps) -> Mesh:
    mesh = steps.batch_sharding.mesh
    assert isinstance(mesh, Mesh)
    return mesh
