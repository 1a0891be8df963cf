"""The compiled functions of a run: init, train, evaluate. No devices are looked for, no files read.

The loop calls them with real devices, the tests with fake ones, a planner with abstract arrays.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from sft.model import decoder, lora, sharding
from sft.model.specs import Spec
from sft.train import loss
from sft.types import Batch, Sums, TrainState, Tree


@dataclasses.dataclass(frozen=True)
class Steps:
    """What ``make_steps`` returns.

    Attributes:
      init: ``(key, params) -> (state, frozen)``. Under full tuning the weights become the
        float32 trainables and ``frozen`` is empty.
      train: ``(state, frozen, batch) -> (state, metrics)``; donates ``state``. Metrics: ``loss``
        and ``correct`` as ``Sums``, ``grad_norm`` before clipping.
      evaluate: ``(trainable, frozen, batch) -> {"loss": Sums, "correct": Sums}``.
      model: ``(trainable, frozen) -> (params, adapters)``, the trees of ``decoder.forward``.
      options: of ``decoder.forward``.
      params_sharding: where ``init`` wants the weights.
      state_sharding: of the state.
      batch_sharding: of every field of a batch.
    """

    init: Callable
    train: Callable
    evaluate: Callable
    model: Callable
    options: decoder.Options
    params_sharding: Tree
    state_sharding: Tree
    batch_sharding: NamedSharding


def make_steps(
    config: ConfigDict, spec: Spec, tx: optax.GradientTransformation, mesh: Mesh
) -> Steps:
    """Builds the three functions for one configuration, model, optimiser and mesh.

    Raises:
      UserError: adapter targets that match nothing; a mesh that does not divide the model.
    """
    is_lora = config.lora.rank > 0
    options = decoder.Options(
        dtype=jnp.dtype(config.model.dtype),
        remat=config.model.remat,
        lora_scale=lora.scaling(config.lora.rank, config.lora.alpha, config.lora.rslora)
        if is_lora
        else 1.0,
        dropout=config.lora.dropout,
    )
    names = lora.match(config.lora.targets) if is_lora else ()
    groups = sharding.groups(mesh)
    parts = config.train.microbatches

    def model(trainable: Tree, frozen: Tree) -> tuple[Tree, Tree]:
        return (frozen, trainable) if is_lora else (trainable, {})

    def init(key: jax.Array, params: Tree) -> tuple[TrainState, Tree]:
        start, run = jax.random.split(key)
        if is_lora:
            trainable, frozen = lora.init(spec, names, config.lora.rank, start), params
        else:
            trainable, frozen = jax.tree.map(lambda x: x.astype(jnp.float32), params), {}
        state = TrainState(
            step=jnp.int32(0),
            trainable=trainable,
            opt_state=tx.init(trainable),
            rng=jax.random.key_data(run),
        )
        return state, frozen

    def sums(trainable: Tree, frozen: Tree, batch: Batch, key: jax.Array | None):
        params, adapters = model(trainable, frozen)
        hidden_BxLxD = decoder.forward(
            spec,
            params,
            adapters,
            batch.tokens_BxL,
            batch.positions_BxL,
            batch.segments_BxL,
            options,
            key,
        )
        total, correct = loss.cross_entropy(
            hidden_BxLxD,
            params["embed_VxD"].astype(hidden_BxLxD.dtype),
            batch.targets_BxL,
            batch.weights_BxL,
            spec.final_softcap,
            config.loss.chunk,
            groups,
        )
        return total.total, {"loss": total, "correct": correct}

    def train(state: TrainState, frozen: Tree, batch: Batch):
        step_key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)

        def add_part(carry, part):
            batch_part, key = part
            gradient, metrics = jax.grad(sums, has_aux=True)(
                state.trainable, frozen, batch_part, key
            )
            return jax.tree.map(jnp.add, carry, (gradient, metrics)), None

        zero = Sums(jnp.float32(0), jnp.float32(0))
        nothing = (jax.tree.map(jnp.zeros_like, state.trainable), {"loss": zero, "correct": zero})
        # Rows k, k + parts, … make part k: each stays on the device that holds it.
        cut = jax.tree.map(
            lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), batch
        )
        (gradient, metrics), _ = jax.lax.scan(
            add_part, nothing, (cut, jax.random.split(step_key, parts))
        )
        gradient = jax.tree.map(lambda g: g / jnp.maximum(metrics["loss"].weight, 1e-9), gradient)
        updates, opt_state = tx.update(gradient, state.opt_state, state.trainable)
        new = state.replace(
            step=state.step + 1,
            trainable=optax.apply_updates(state.trainable, updates),
            opt_state=opt_state,
        )
        return new, {**metrics, "grad_norm": optax.global_norm(gradient)}

    def evaluate(trainable: Tree, frozen: Tree, batch: Batch):
        return sums(trainable, frozen, batch, None)[1]

    params_shape = decoder.abstract_params(spec, options.dtype)
    params_sharding = sharding.of_tree(params_shape, mesh)
    state_shape, frozen_shape = jax.eval_shape(init, jax.random.key(0), params_shape)
    state_sharding = sharding.of_tree(state_shape, mesh)
    frozen_sharding = sharding.of_tree(frozen_shape, mesh)
    batch_sharding = NamedSharding(mesh, sharding.BATCH)
    everywhere = NamedSharding(mesh, sharding.P())
    return Steps(
        # Not donated: under LoRA the weights pass through, and stay usable by the caller.
        init=jax.jit(
            init,
            in_shardings=(everywhere, params_sharding),
            out_shardings=(state_sharding, frozen_sharding),
        ),
        train=jax.jit(
            train,
            in_shardings=(state_sharding, frozen_sharding, batch_sharding),
            out_shardings=(state_sharding, everywhere),
            donate_argnums=0,
        ),
        evaluate=jax.jit(
            evaluate,
            in_shardings=(state_sharding.trainable, frozen_sharding, batch_sharding),
            out_shardings=everywhere,
        ),
        model=model,
        options=options,
        params_sharding=params_sharding,
        state_sharding=state_sharding,
        batch_sharding=batch_sharding,
    )
