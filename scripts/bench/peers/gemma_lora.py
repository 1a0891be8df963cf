"""The ``gemma`` package's model as it ships, ``gm.nn.LoRA`` on Gemma 3 270M, trained with optax.

Full logits and no remat, as its examples train; adapters in their default dtype, bf16. Rows are
padded to one length, the longest example of the data set.
"""

import sys
from pathlib import Path

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax
from gemma import gm, peft

sys.path.append(str(Path(__file__).resolve().parents[3] / "tests"))

from weight_layouts import flat_gemma, nest

from sft.model import specs, weights


def load(exchange: Path, model, tokens_BxL):
    """Frozen weights, as exchanged, and fresh adapters."""
    spec = specs.get("gemma3_270m")
    params = jax.device_get(weights.load(spec, str(exchange / "hf"), dtype="bfloat16"))
    fresh = model.init(jax.random.key(0), tokens_BxL)["params"]
    _, adapters = peft.split_params(fresh)
    return nest(flat_gemma(spec, params, transposed=True)), adapters


def main() -> None:
    args = common.arguments("gemma")
    examples = common.read_examples(args.exchange)
    length = max(len(e.tokens) for e in examples)
    model = gm.nn.LoRA(rank=common.RANK, model=gm.nn.Gemma3_270M(dtype=jnp.bfloat16))
    frozen, adapters = load(args.exchange, model, jnp.zeros((1, 8), jnp.int32))
    tx = optax.adamw(common.LEARNING_RATE, weight_decay=0.0)

    @jax.jit
    def train_step(adapters, moments, frozen, tokens_BxL, is_target_BxL):
        def loss(adapters):
            params = peft.merge_params(frozen, adapters)
            logits_BxLxV = model.apply({"params": params}, tokens_BxL[:, :-1]).logits
            each_BxL = optax.softmax_cross_entropy_with_integer_labels(
                logits_BxLxV.astype(jnp.float32), tokens_BxL[:, 1:]
            )
            weights_BxL = is_target_BxL[:, 1:]
            return jnp.sum(each_BxL * weights_BxL) / jnp.sum(weights_BxL)

        value, gradient = jax.value_and_grad(loss)(adapters)
        updates, moments = tx.update(gradient, moments, adapters)
        return optax.apply_updates(adapters, updates), moments, value

    moments = tx.init(adapters)

    def step(rows: list[common.Example]) -> float:
        nonlocal adapters, moments
        batch = common.pad(rows, length)
        adapters, moments, value = train_step(
            adapters, moments, frozen, batch["tokens_BxL"], batch["is_target_BxL"]
        )
        jax.block_until_ready(adapters)
        return float(np.asarray(value))

    common.run(args, common.cut(examples, args.examples_per_step), step)


if __name__ == "__main__":
    main()
