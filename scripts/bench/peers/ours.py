"""This repository's own training step, as ``sft train`` compiles it for the quickstart.

The examples of a step are packed into rows of one static shape. ``sft.data.batches.pipeline``
fills rows with as many examples as fit; here every step must hold the same examples as the other
programs', so they are dealt out to the rows. Variants: ``layer`` or ``none``, for another
config.model.remat.
"""

import common
import jax

from configs.quickstart import get_config
from sft.data.batches.pipeline import make_batch
from sft.mesh import sharding
from sft.model import specs, weights
from sft.train import optim
from sft.train.steps import make_steps


def deal(examples: list[common.Example], rows: int) -> list[list[common.Example]]:
    """Rows of nearly equal length: longest first, each to the row that is shortest so far."""
    dealt: list[list[common.Example]] = [[] for _ in range(rows)]
    for example in sorted(examples, key=lambda e: -len(e.tokens)):
        min(dealt, key=row_length).append(example)
    return dealt


def row_length(row: list[common.Example]) -> int:
    return sum(len(e.tokens) - 1 for e in row)  # a last token is only a target


def configuration(variant: str):
    """The quickstart's, with the peers' learning rate; ``variant`` replaces model.remat."""
    config = get_config()
    config.lora.rank, config.lora.alpha = common.RANK, float(common.ALPHA)
    config.optim.learning_rate = common.LEARNING_RATE
    config.optim.schedule, config.optim.warmup = "constant", 0.0
    config.model.remat = variant or config.model.remat
    return config


def main() -> None:
    args = common.arguments("ours")
    config = configuration(args.variant)
    steps = common.cut(common.read_examples(args.exchange), args.examples_per_step)
    # As in the quickstart: rows of about data.max_length, the loss in one chunk.
    rows = -(-max(row_length(examples) for examples in steps) // config.data.max_length)
    config.train.batch_size = rows
    config.loss.chunk = max(sum(int(e.is_target.sum()) for e in examples) for examples in steps)
    spec = specs.get(config.model.name)
    mesh = sharding.make_mesh(config)
    train_steps = make_steps(config, spec, optim.make(config.optim, 1_000_000), mesh)
    params = weights.load(
        spec,
        str(args.exchange / "hf"),
        dtype=config.model.dtype,
        shardings=train_steps.params_sharding,
    )
    state, frozen = train_steps.init(jax.random.key(config.seed), params)
    longest = max(row_length(row) for examples in steps for row in deal(examples, rows))
    length = -(-longest // 8) * 8

    def step(examples: list[common.Example]) -> float:
        nonlocal state
        batch = jax.device_put(make_batch(deal(examples, rows), length), train_steps.batch_sharding)
        state, metrics = train_steps.train(state, frozen, batch)
        jax.block_until_ready(state)
        return float(metrics["loss"].mean())

    common.run(args, steps, step)


if __name__ == "__main__":
    main()
