"""DoRA against its formulas: PEFT's written out in NumPy, and the whole weight in plain JAX."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import (
    FLOAT32,
    assert_trees_close,
    avals,
    device_batch,
    forward,
    make_adapters,
    make_config,
    make_examples,
    make_params,
)

from sft.mesh import sharding
from sft.model import decoder, dora, lora, specs
from sft.model.decode import generate
from sft.train import optim
from sft.train.steps import make_steps

SPEC, SCALE = specs.tiny("gemma3"), 0.3
ROW = jnp.arange(12, dtype=jnp.int32)[None]
INPUT = (ROW * 7 + 1, ROW, jnp.ones_like(ROW))
OPTIONS = dataclasses.replace(FLOAT32, lora_scale=SCALE)


def moved(spec=SPEC, names=lora.NAMES):
    """Adapters and magnitudes, both away from their start."""
    adapters = lora.with_magnitudes(make_adapters(spec, names), make_params(spec)["layers"])
    rng = np.random.default_rng(7)
    for adapter in adapters.values():
        adapter["m"] *= jnp.asarray(rng.uniform(0.5, 1.5, adapter["m"].shape), jnp.float32)
    return adapters


def as_matrices(name, weight, adapter, layer):
    """PEFT's ``weight [out, in]``, ``lora_A [R, in]``, ``lora_B [out, R]`` and ``m [out]``."""
    inputs = int(np.prod(lora.shapes(SPEC)[name][0]))
    weight = lora.oriented(name, weight)
    w, a, b, m = (np.asarray(x[layer], np.float64) for x in (weight, *map(adapter.get, "ABm")))
    return w.reshape(inputs, -1).T, a.reshape(inputs, -1).T, b.reshape(len(b), -1).T, m.ravel()


@pytest.mark.parametrize("name", lora.NAMES)
@pytest.mark.parametrize("dropped", [False, True])
def test_a_projection_is_what_peft_computes(name, dropped):
    """``peft.tuners.lora.dora.DoraLinearLayer``; dropout is on the input of the base product too"""
    inputs, outputs = lora.shapes(SPEC)[name]
    adapter, weight = moved()[name], make_params(SPEC)["layers"][lora.WEIGHTS[name]]
    x = jax.random.normal(jax.random.key(3), (2, 5, *inputs))
    x_dropped = lora.dropout(x, 0.4, jax.random.key(4)) if dropped else x
    gain_SxO = lora.with_gains({name: adapter}, {lora.WEIGHTS[name]: weight}, SCALE)[name]["gain"]
    letters = "abc"[: len(inputs)], "xyz"[: len(outputs)]
    one = jax.tree.map(lambda leaf: leaf[2], adapter)
    update = lora.up_project(lora.down_project(x_dropped, {name: one}, (name,))[name], one, SCALE)
    equation = "BL{0},{0}{1}->BL{1}".format(*letters)
    w = lora.oriented(name, weight)[2]
    ours = dora.project(equation, x, x_dropped, w, update, gain_SxO[2])

    w_OxI, a_RxI, b_OxR, m_O = as_matrices(name, weight, adapter, 2)
    x, x_dropped = (np.asarray(t, np.float64).reshape(10, -1) for t in (x, x_dropped))
    result = x @ w_OxI.T
    weight_norm = np.linalg.norm(w_OxI + SCALE * (b_OxR @ a_RxI), axis=1)
    mag_norm_scale = (m_O / weight_norm)[None]
    lora_result = x_dropped @ a_RxI.T @ b_OxR.T
    base_result = x_dropped @ w_OxI.T
    result = result + (mag_norm_scale - 1) * base_result + mag_norm_scale * lora_result * SCALE
    np.testing.assert_allclose(np.asarray(ours).reshape(10, -1), result, rtol=1e-5, atol=1e-5)
    assert ours.shape == (2, 5, *outputs)


@pytest.mark.parametrize("name", lora.NAMES)
def test_magnitudes_start_at_the_norms_of_the_columns(name):
    weight = make_params(SPEC)["layers"][lora.WEIGHTS[name]]
    start = lora.with_magnitudes(make_adapters(SPEC), make_params(SPEC)["layers"])[name]
    assert start["m"].shape == (SPEC.num_layers, *lora.shapes(SPEC)[name][1])
    assert start["m"].dtype == jnp.float32
    for layer in range(SPEC.num_layers):
        w_OxI, _, _, m_O = as_matrices(name, weight, start, layer)
        np.testing.assert_allclose(m_O, np.linalg.norm(w_OxI, axis=1), rtol=1e-6)


@pytest.mark.parametrize(("dtype", "atol"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0)])
def test_a_fresh_one_is_the_base_model(dtype, atol):
    """In bfloat16 to the last bit: a gain within float32 rounding of 1 is lost in rounding."""
    params = make_params(SPEC, dtype=dtype)
    adapters = lora.init(SPEC, lora.NAMES, 4, jax.random.key(1))
    adapters = lora.with_magnitudes(adapters, params["layers"])
    options = dataclasses.replace(OPTIONS, dtype=jnp.dtype(dtype))
    ours, base = (forward(SPEC, params, a, *INPUT, options) for a in (adapters, None))
    np.testing.assert_allclose(np.float32(ours), np.float32(base), atol=atol, rtol=0)


def test_a_magnitude_held_at_the_norm_is_lora():
    params, plain = make_params(SPEC), make_adapters(SPEC)
    layers = lora.merge(params, plain, SCALE)["layers"]
    held = lora.with_magnitudes(plain, layers)
    ours, theirs = (forward(SPEC, params, a, *INPUT, OPTIONS) for a in (held, plain))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize(
    ("family", "names"), [("gemma2", lora.NAMES), ("gemma3", lora.NAMES), ("gemma3", ("q", "o"))]
)
def test_merged_equals_adapted(family, names):
    spec = specs.tiny(family)
    params, adapters = make_params(spec), moved(spec, names)
    merged = lora.merge(params, adapters, SCALE)
    adapted = forward(spec, params, adapters, *INPUT, OPTIONS)
    np.testing.assert_allclose(
        forward(spec, merged, None, *INPUT, OPTIONS), adapted, atol=5e-5, rtol=1e-5
    )
    plain = {name: {leaf: pair[leaf] for leaf in "AB"} for name, pair in adapters.items()}
    assert np.abs(forward(spec, params, plain, *INPUT, OPTIONS) - adapted).max() > 1e-2


def whole_weight(params, adapters):
    """The weights of equation 5 as arrays, their norm a constant."""
    layers = dict(params["layers"])
    for name, adapter in adapters.items():
        weight = lora.oriented(name, layers[lora.WEIGHTS[name]])
        inputs = tuple(range(1, adapter["A"].ndim - 1))
        update = jax.vmap(lambda a, b: jnp.tensordot(a, b, 1))(adapter["A"], adapter["B"])
        directed = weight + SCALE * update
        norm = jnp.sqrt(jnp.sum(directed**2, inputs, keepdims=True))
        m = jnp.expand_dims(adapter["m"], inputs)
        whole = m * directed / jax.lax.stop_gradient(norm)
        layers[lora.WEIGHTS[name]] = jnp.moveaxis(whole, -3, -1) if name in "qkv" else whole
    return {**params, "layers": layers}


@pytest.mark.parametrize("remat", ["layer", "projections"])
def test_gradients_are_those_of_the_formula_with_a_constant_norm(remat):
    params, adapters = make_params(SPEC), moved()
    options = dataclasses.replace(OPTIONS, remat=remat)
    weights = jax.random.normal(jax.random.key(9), (1, 12, SPEC.embed))

    def ours(adapters):
        return jnp.sum(weights * decoder.forward(SPEC, params, adapters, *INPUT, options))

    def plain(adapters):
        tree = whole_weight(params, adapters)
        return jnp.sum(weights * decoder.forward(SPEC, tree, None, *INPUT, FLOAT32))

    ours, theirs = (jax.jit(jax.grad(f))(adapters) for f in (ours, plain))
    assert_trees_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert all(np.abs(x).max() > 1e-2 for x in jax.tree.leaves(theirs))


def test_no_float32_array_of_the_size_of_the_stacked_weights():
    params = make_params(SPEC, dtype=jnp.bfloat16)
    options = dataclasses.replace(OPTIONS, dtype=jnp.dtype(jnp.bfloat16))
    run = lambda a: decoder.forward(SPEC, params, a, *INPUT, options).sum()  # noqa: E731
    sizes = {params["layers"][leaf].size for leaf in lora.WEIGHTS.values()}
    built = list(avals(jax.make_jaxpr(jax.grad(run))(moved())))
    assert not [a for a in built if a.size in sizes and a.dtype == jnp.float32]


def test_a_column_of_zeros_has_a_finite_answer():
    weight, (a, b) = jnp.zeros((6, 3)), (jnp.ones((6, 2)), jnp.zeros((2, 3)))
    assert np.all(dora.norm(weight, a, b, 1.0) > 0)


def test_decoding_with_a_cache_answers_as_the_merged_weights_do():
    params, adapters = make_params(SPEC), moved()
    prompts = [np.arange(1, n, dtype=np.int32) for n in (4, 9)]
    sampling = generate.Sampling(max_new_tokens=12, stop_ids=(-1,))
    adapted, merged, base = (
        generate.generate(SPEC, OPTIONS, sampling, *trees, prompts, batch_size=2)
        for trees in (
            (params, adapters),
            (lora.merge(params, adapters, SCALE), None),
            (params, None),
        )
    )
    assert adapted == merged != base


def test_a_step_on_a_mesh_moves_every_leaf_and_no_weight():
    config = make_config(
        lora__dora=True,
        lora__dropout=0.1,
        train__batch_size=4,
        optim__learning_rate=1e-2,
        mesh__fsdp=2,
        mesh__tensor=2,
    )
    mesh = sharding.make_mesh(config)
    steps = make_steps(config, SPEC, optim.make(config.optim, 10), mesh)
    params = jax.device_put(make_params(SPEC), steps.params_sharding)
    state, frozen = steps.init(jax.random.key(0), params)
    start = jax.tree.map(np.asarray, state.trainable)
    batch = device_batch([[e] for e in make_examples(4)], 48)
    for _ in range(2):  # B is zero, so that the first gradient of A is
        state, _ = steps.train(state, frozen, jax.device_put(batch, steps.batch_sharding))
    assert {tuple(adapter) for adapter in state.trainable.values()} == {("A", "B", "m")}
    for name, adapter in state.trainable.items():
        for leaf, value in adapter.items():
            change = np.abs(value - start[name][leaf]).max(axis=tuple(range(1, value.ndim)))
            assert np.all(change > 0), (name, leaf)  # in every layer
    assert_trees_close(frozen, make_params(SPEC), 0, 0)
