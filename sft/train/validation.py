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

from sft.data.batches import pipeline
from sft.data.chat.encoding import ANSWER, END, PROMPT, SCAFFOLD, SYSTEM, Example
from sft.mesh import sharding
from sft.run import hosts
from sft.run.progress import Progress
from sft.train.steps import Steps
from sft.types import Batch, Tree

_SAMPLE = 64  # examples whose prompts are scored


@dataclasses.dataclass(frozen=True)
class Scored:
    """Of each example, in order, float64 ``[n]``.

    Attributes:
      nll: negative log-likelihood of its trained tokens, nats, summed.
      correct: trained tokens that greedy decoding would choose.
      trained: trained tokens.
      end_nll: the part of ``nll`` that is of ends of turn.
      ends: ends of turn among the trained tokens.
    """

    nll: np.ndarray
    correct: np.ndarray
    trained: np.ndarray
    end_nll: np.ndarray
    ends: np.ndarray


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
    batch_size = -(-config.eval.batch_size // groups) * groups
    batches = pipeline.eval_batches(
        examples,
        batch_size=batch_size,  # rounded up: rows without an example have no weight
        max_length=max_length or config.data.eval_max_length,
        bucket=math.lcm(pipeline.BUCKET, steps.row_multiple),
        process=part,
        processes=parts,
    )
    found = np.zeros((5, len(order)))
    with Progress(len(examples), what, "example") as progress:
        for start, batch in zip(range(0, len(order), batch_size), batches, strict=True):
            sums = jax.device_get(steps.score(trainable, frozen, place(batch, steps)))
            here = order[start : start + batch_size]
            rows = (sums["loss"].total, sums["correct"].total, sums["loss"].weight)
            found[:3, here] = [values[: len(here)] for values in rows]
            for nll_L, i in zip(sums["nll_BxL"], here, strict=False):
                is_end = examples[i].kinds[1:] == END
                found[3:, i] = nll_L[: len(is_end)][is_end].sum(dtype=np.float64), is_end.sum()
            progress.update(len(here))
    return Scored(*found)


def summary(scored: Scored) -> dict[str, float]:
    """Means per trained token over the set.

    ``loss_se`` is the standard error of ``loss`` over examples drawn like these: of a ratio of two
    sums, by linearisation (Cochran 1977, *Sampling Techniques*, section 6.3). ``answer_loss`` and
    ``end_loss`` are the loss of the answers' own tokens and of the ends of turn after them: a
    pretrained model, which hardly ends a turn, may know answers and lose 20 nats at each end.
    """
    weight, count = float(scored.trained.sum()), len(scored.trained)
    loss = float(scored.nll.sum()) / weight
    spread = float(np.sum((scored.nll - loss * scored.trained) ** 2))
    return {
        "loss": loss,
        "token_accuracy": float(scored.correct.sum()) / weight,
        "loss_se": math.sqrt(spread * count / max(count - 1, 1)) / weight,
        "weight": weight,
        "answer_loss": _share(scored.nll - scored.end_nll, scored.trained - scored.ends),
        "end_loss": _share(scored.end_nll, scored.ends),
    }


def _share(total: np.ndarray, weight: np.ndarray) -> float:
    return float(total.sum()) / max(float(weight.sum()), 1.0)


def validate(
    config: ConfigDict, steps: Steps, trainable: Tree, frozen: Tree, examples: Sequence[Example]
) -> dict[str, float]:
    """``summary`` of ``by_example``."""
    return summary(by_example(config, steps, trainable, frozen, examples))


def prompt_loss(
    config: ConfigDict, steps: Steps, trainable: Tree, frozen: Tree, examples: Sequence[Example]
) -> float:
    """Nats per token of what the user and the system say, over a sample of the examples.

    Whether the model has seen text like this at all: answers of one token, which nothing in the
    prompt announces, do not say.
    """
    chosen = [examples[i * len(examples) // _SAMPLE] for i in range(_SAMPLE)]
    chosen = list(examples) if len(examples) <= _SAMPLE else chosen
    rows = []
    for example in chosen:
        is_text = (example.kinds == PROMPT) | (example.kinds == SYSTEM)
        kinds = np.where(is_text, ANSWER, SCAFFOLD).astype(np.uint8)
        rows.append(Example(example.tokens, kinds))
    scored = by_example(config, steps, trainable, frozen, rows, what="prompts")
    return _share(scored.nll, scored.trained)


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
