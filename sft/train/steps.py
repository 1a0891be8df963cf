"""The compiled functions of a run: init, train, score. No devices are looked for, no files read.

The loop calls them with real devices, the tests with fake ones, a planner with abstract arrays.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from sft.mesh import sharding
from sft.model import attention, decoder, lora
from sft.model.specs import Spec
from sft.train import loss
from sft.train.cut import Cut
from sft.types import Batch, Sums, TrainState, Tree


@dataclasses.dataclass(frozen=True)
class Steps:
    """What ``make_steps`` returns.

    Attributes:
      init: ``(key, params) -> (state, frozen)``. Under full tuning the weights become the
        float32 trainables, ``frozen`` is empty, and ``params`` is donated.
      train: ``(state, frozen, batch) -> (state, metrics)``; donates ``state``. Metrics: ``loss``
        and ``correct`` as ``Sums``, ``grad_norm`` before clipping.
      score: ``(trainable, frozen, batch) -> {"loss": Sums, "correct": Sums, "nll_BxL"}``, every row
        by itself: the fields of the ``Sums`` are ``[B]``, and ``nll_BxL`` is 0 without a target.
      model: ``(trainable, frozen) -> (params, adapters)``, the trees of ``decoder.forward``.
      options: of ``decoder.forward``.
      row_multiple: what the length of rows must be a multiple of.
      params_sharding: where ``init`` wants the weights.
      state_sharding: of the state.
      batch_sharding: of every field of a batch.
    """

    init: Callable
    train: Callable
    score: Callable
    model: Callable
    options: decoder.Options
    row_multiple: int
    params_sharding: Tree
    state_sharding: Tree
    batch_sharding: NamedSharding


@dataclasses.dataclass(frozen=True)
class _Recipe:
    """What the compiled functions close over. ``names`` is empty under full tuning."""

    spec: Spec
    options: decoder.Options
    tx: optax.GradientTransformation
    names: tuple[str, ...]
    rank: int
    dora: bool
    parts: int
    cut: Cut


def make_steps(
    config: ConfigDict, spec: Spec, tx: optax.GradientTransformation, mesh: Mesh
) -> Steps:
    """Builds the functions for one configuration, model, optimiser and mesh.

    Raises:
      UserError: adapter targets that match nothing; a mesh that does not divide the model.
    """
    recipe = _recipe(config, spec, tx, mesh)
    init = functools.partial(_init, recipe)
    params_shape = decoder.abstract_params(spec, lora.weights_dtype(config))
    params_sharding = sharding.of_tree(params_shape, mesh)
    state_shape, frozen_shape = jax.eval_shape(init, jax.random.key(0), params_shape)
    state_sharding = sharding.of_tree(state_shape, mesh)
    frozen_sharding = sharding.of_tree(frozen_shape, mesh)
    batch_sharding = NamedSharding(mesh, sharding.PLACES)
    everywhere = NamedSharding(mesh, sharding.P())
    return Steps(
        # Under LoRA the weights pass through, and stay usable by the caller; under full tuning
        # there would be two float32 copies of them.
        init=jax.jit(
            init,
            in_shardings=(everywhere, params_sharding),
            out_shardings=(state_sharding, frozen_sharding),
            donate_argnums=() if recipe.names else 1,
        ),
        train=jax.jit(
            functools.partial(_train, recipe),
            in_shardings=(state_sharding, frozen_sharding, batch_sharding),
            out_shardings=(state_sharding, everywhere),
            donate_argnums=0,
        ),
        score=jax.jit(
            functools.partial(_score, recipe),
            in_shardings=(state_sharding.trainable, frozen_sharding, batch_sharding),
            out_shardings=everywhere,
        ),
        model=functools.partial(_model, recipe),
        options=recipe.options,
        row_multiple=attention.multiple(recipe.options.attention, mesh.shape["sequence"]),
        params_sharding=params_sharding,
        state_sharding=state_sharding,
        batch_sharding=batch_sharding,
    )


def _recipe(
    config: ConfigDict, spec: Spec, tx: optax.GradientTransformation, mesh: Mesh
) -> _Recipe:
    rank, alpha = config.lora.rank, config.lora.alpha
    platform = mesh.devices.flat[0].platform
    return _Recipe(
        spec=spec,
        options=decoder.Options(
            dtype=jnp.dtype(config.model.dtype),
            remat=config.model.remat,
            lora_scale=lora.scaling(rank, alpha, config.lora.rslora) if rank else 1.0,
            dropout=config.lora.dropout,
            attention=attention.choose(
                config.model.attention,
                platform,
                spec,
                config.data.max_length,
                mesh.shape["sequence"],
            ),
            mesh=mesh,
        ),
        tx=tx,
        names=lora.match(config.lora.targets) if rank else (),
        rank=rank,
        dora=config.lora.dora,
        parts=config.train.microbatches,
        cut=Cut.of(mesh, config.loss.chunk),
    )


def _model(recipe: _Recipe, trainable: Tree, frozen: Tree) -> tuple[Tree, Tree]:
    return (frozen, trainable) if recipe.names else (trainable, {})


def _init(recipe: _Recipe, key: jax.Array, params: Tree) -> tuple[TrainState, Tree]:
    start, run = jax.random.split(key)
    if recipe.names:
        trainable, frozen = lora.init(recipe.spec, recipe.names, recipe.rank, start), params
        if recipe.dora:
            trainable = lora.with_magnitudes(trainable, params["layers"])
    else:
        trainable, frozen = jax.tree.map(lambda x: x.astype(jnp.float32), params), {}
    state = TrainState(
        step=jnp.int32(0),
        trainable=trainable,
        opt_state=recipe.tx.init(trainable),
        rng=jax.random.key_data(run),
    )
    return state, frozen


def _hidden(recipe: _Recipe, trainable: Tree, frozen: Tree, batch: Batch, key: jax.Array | None):
    """Final hidden states ``[B, L, D]``, and the output embedding ``[V, D]`` in their dtype."""
    params, adapters = _model(recipe, trainable, frozen)
    hidden_BxLxD = decoder.forward(
        recipe.spec,
        params,
        adapters,
        batch.tokens_BxL,
        batch.positions_BxL,
        batch.segments_BxL,
        recipe.options,
        key,
    )
    return hidden_BxLxD, params["embed_VxD"].astype(hidden_BxLxD.dtype)


def _sums(recipe: _Recipe, trainable: Tree, frozen: Tree, batch: Batch, key: jax.Array | None):
    """Summed loss, and the same with the number of correct predictions as ``Sums``."""
    hidden_BxLxD, table_VxD = _hidden(recipe, trainable, frozen, batch, key)
    nll, correct = loss.cross_entropy(
        hidden_BxLxD,
        table_VxD,
        batch.targets_BxL,
        batch.weights_BxL,
        recipe.spec.final_softcap,
        recipe.cut,
    )
    return nll.total, {"loss": nll, "correct": correct}


def _train(recipe: _Recipe, state: TrainState, frozen: Tree, batch: Batch):
    """One optimiser update: gradients are summed over the parts and divided once."""
    step_key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)

    def add_part(carry, part):
        batch_part, key = part
        sums = functools.partial(_sums, recipe)
        result = jax.grad(sums, has_aux=True)(state.trainable, frozen, batch_part, key)
        return jax.tree.map(jnp.add, carry, result), None

    zero = Sums(jnp.float32(0), jnp.float32(0))
    nothing = (jax.tree.map(jnp.zeros_like, state.trainable), {"loss": zero, "correct": zero})
    # Rows k, k + parts, … make part k: each stays on the device that holds it.
    parts = jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(-1, recipe.parts, *x.shape[1:]), 1, 0), batch
    )
    (gradient, metrics), _ = jax.lax.scan(
        add_part, nothing, (parts, jax.random.split(step_key, recipe.parts))
    )
    gradient = jax.tree.map(lambda g: g / jnp.maximum(metrics["loss"].weight, 1e-9), gradient)
    updates, opt_state = recipe.tx.update(gradient, state.opt_state, state.trainable)
    new = TrainState(
        step=state.step + 1,
        trainable=optax.apply_updates(state.trainable, updates),
        opt_state=opt_state,
        rng=state.rng,
    )
    return new, {**metrics, "grad_norm": optax.tree.norm(gradient)}


def _score(recipe: _Recipe, trainable: Tree, frozen: Tree, batch: Batch):
    hidden_BxLxD, table_VxD = _hidden(recipe, trainable, frozen, batch, None)

    nll_BxL, correct_BxL = loss.by_position(
        hidden_BxLxD,
        table_VxD,
        batch.targets_BxL,
        batch.weights_BxL,
        recipe.spec.final_softcap,
        recipe.cut,
    )
    weight_B = jnp.sum(batch.weights_BxL, axis=1)
    nll, correct = (Sums(jnp.sum(x, axis=1), weight_B) for x in (nll_BxL, correct_BxL))
    return {"loss": nll, "correct": correct, "nll_BxL": nll_BxL}
