"""The ``gemma`` package's model as it ships, ``gm.nn.LoRA``, compiled for a TPU slice.

No remat and full logits, as its examples train; adapters in their default dtype, bf16.
"""

import jax
import jax.numpy as jnp
import optax
import plan_common as common
from gemma import gm, peft
from jax.sharding import NamedSharding, PartitionSpec


def main() -> None:
    args = common.arguments()
    mesh = common.mesh(args)
    model = {"gemma3_1b": gm.nn.Gemma3_1B, "gemma3_4b": gm.nn.Gemma3_4B}[args.model]
    model = gm.nn.LoRA(rank=args.rank, model=model(dtype=jnp.bfloat16))
    cells = (args.rows, args.length)
    tokens = jnp.zeros((1, 8), jnp.int32)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), tokens))["params"]
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), params)
    frozen, adapters = peft.split_params(params)
    tx = optax.adamw(2e-4)

    def step(state, frozen, tokens_BxL, targets_BxL, weights_BxL):
        adapters, moments = state

        def loss(adapters):
            out = model.apply({"params": peft.merge_params(frozen, adapters)}, tokens_BxL)
            each_BxL = optax.softmax_cross_entropy_with_integer_labels(out.logits, targets_BxL)
            return jnp.sum(each_BxL * weights_BxL) / jnp.sum(weights_BxL)

        value, gradient = jax.value_and_grad(loss)(adapters)
        updates, moments = tx.update(gradient, moments, adapters)
        return (optax.apply_updates(adapters, updates), moments), value

    whole = lambda x: PartitionSpec()  # noqa: E731
    state = common.described((adapters, jax.eval_shape(tx.init, adapters)), mesh, whole)
    frozen = common.described(frozen, mesh, common.divided(mesh))
    batch = NamedSharding(mesh, common.BATCH)
    ids = jax.ShapeDtypeStruct(cells, jnp.int32, sharding=batch)
    weights = jax.ShapeDtypeStruct(cells, jnp.float32, sharding=batch)
    jitted = jax.jit(step, donate_argnums=0)
    common.compile_and_print(jitted, mesh, state, frozen, ids, ids, weights)


if __name__ == "__main__":
    main()
