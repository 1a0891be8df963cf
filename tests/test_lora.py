"""Adapters: their start, their place in the forward pass, and what merging them gives."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import FLOAT32, forward, make_adapters, make_params

from sft.errors import UserError
from sft.model import decoder, lora, specs

SPEC = specs.tiny("gemma3")
ROW = jnp.arange(12, dtype=jnp.int32)[None]
INPUT = (ROW * 7 + 1, ROW, jnp.ones_like(ROW))


def hidden(params, adapters, **options):
    key = options.pop("key", None)
    return forward(SPEC, params, adapters, *INPUT, dataclasses.replace(FLOAT32, **options), key)


def test_a_is_uniform_within_one_over_root_of_the_inputs_and_b_is_zero():
    spec = specs.tiny("gemma3", num_layers=8)
    adapters = lora.init(spec, lora.NAMES, 64, jax.random.key(0))
    for name, pair in adapters.items():
        inputs, outputs = lora.shapes(spec)[name]
        bound = 1 / math.sqrt(math.prod(inputs))
        a = np.asarray(pair["A"], np.float64)
        assert pair["A"].shape == (8, *inputs, 64) and pair["B"].shape == (8, 64, *outputs)
        assert pair["A"].dtype == pair["B"].dtype == jnp.float32
        assert 0.99 * bound < np.abs(a).max() <= bound
        assert abs(a.mean()) < 0.02 * bound
        assert a.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)
        assert not np.any(pair["B"])


def test_each_projection_adapts_the_weight_of_its_shape():
    for name, (inputs, outputs) in lora.shapes(SPEC).items():
        weight = lora.oriented(name, make_params(SPEC)["layers"][lora.WEIGHTS[name]])
        assert weight.shape == (SPEC.num_layers, *inputs, *outputs)


def test_fresh_adapters_change_nothing_at_all():
    params = make_params(SPEC)
    adapters = lora.init(SPEC, lora.NAMES, 4, jax.random.key(1))
    np.testing.assert_array_equal(hidden(params, adapters, lora_scale=2.0), hidden(params, None))
    np.testing.assert_array_equal(hidden(params, {}), hidden(params, None))


def check_merged(spec, params, adapters):
    base = forward(spec, params, None, *INPUT, FLOAT32)
    adapted = forward(spec, params, adapters, *INPUT, dataclasses.replace(FLOAT32, lora_scale=0.3))
    merged = forward(spec, lora.merge(params, adapters, 0.3), None, *INPUT, FLOAT32)
    np.testing.assert_allclose(merged, adapted, atol=5e-5)
    assert np.abs(adapted - base).max() > 1e-2


@pytest.mark.parametrize("target", lora.NAMES)
def test_merged_equals_adapted_for_each_target(target):
    adapters = {
        name: pair if name == target else {"A": pair["A"], "B": jnp.zeros_like(pair["B"])}
        for name, pair in make_adapters(SPEC).items()
    }
    check_merged(SPEC, make_params(SPEC), adapters)


@pytest.mark.parametrize(
    ("family", "targets"),
    [("gemma2", ".*"), ("gemma3", ".*"), ("gemma3", "q|v|up"), ("gemma3", "o")],
)
def test_merged_equals_adapted_for_several_targets(family, targets):
    spec = specs.tiny(family)
    check_merged(spec, make_params(spec), make_adapters(spec, lora.match(targets)))


def test_merging_keeps_the_dtype_and_touches_only_the_targets():
    params = make_params(SPEC, dtype=jnp.bfloat16)
    merged = lora.merge(params, make_adapters(SPEC, ("k", "down")), 1.0)
    for name, weight in params["layers"].items():
        changed = name in (lora.WEIGHTS["k"], lora.WEIGHTS["down"])
        assert merged["layers"][name].dtype == jnp.bfloat16
        assert np.any(merged["layers"][name] != weight) == changed
    assert merged["embed_VxD"] is params["embed_VxD"]


def test_scaling():
    assert lora.scaling(8, 16.0, rslora=False) == 2.0
    assert lora.scaling(16, 16.0, rslora=True) == 4.0
    params, adapters = make_params(SPEC), make_adapters(SPEC)
    twice = jax.tree.map(lambda x: x, adapters)
    twice = {n: {"A": p["A"], "B": 2 * p["B"]} for n, p in twice.items()}
    np.testing.assert_allclose(
        hidden(params, adapters, lora_scale=1.0), hidden(params, twice, lora_scale=0.5), atol=1e-5
    )


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("q|v", ("q", "v")),
        ("v|q", ("q", "v")),
        ("gate|up|down", ("gate", "up", "down")),
        (".*", lora.NAMES),
        ("[kq]", ("q", "k")),
    ],
)
def test_targets_are_whole_names(targets, names):
    assert lora.match(targets) == names
    assert tuple(lora.init(SPEC, names, 2, jax.random.key(0))) == names


@pytest.mark.parametrize("targets", ["ga", "q_pro", "", "Q"])
def test_targets_that_match_nothing_are_an_error(targets):
    with pytest.raises(UserError, match=r"config\.lora\.targets.*matches no projection.*gate"):
        lora.match(targets)


def test_an_adapter_starts_the_same_whichever_others_are_chosen():
    every, some = (lora.init(SPEC, n, 2, jax.random.key(5)) for n in (lora.NAMES, ("k", "up")))
    np.testing.assert_array_equal(every["k"]["A"], some["k"]["A"])
    np.testing.assert_array_equal(every["up"]["A"], some["up"]["A"])
    assert np.any(every["k"]["A"] != every["v"]["A"])


@pytest.mark.parametrize("names", lora.GROUPS)
def test_one_product_for_a_group_equals_one_for_each(names):
    layer = jax.tree.map(lambda x: x[0], make_adapters(SPEC))
    inputs, _ = lora.shapes(SPEC)[names[0]]
    x = jax.random.normal(jax.random.key(0), (2, 5, *inputs))
    for present in (names, names[-1:]):
        fused = lora.down_project(x, {n: layer[n] for n in present}, names)
        assert tuple(fused) == present
        for name in present:
            a_IxR = layer[name]["A"].reshape(-1, 3)
            np.testing.assert_allclose(fused[name], x.reshape(2, 5, -1) @ a_IxR, atol=1e-6)
    assert lora.down_project(x, {}, names) == {}


def test_dropout_keeps_the_mean_and_scales_what_it_keeps():
    x = jnp.full((400, 500), 3.0)
    y = np.asarray(lora.dropout(x, 0.25, jax.random.key(0)))
    assert set(np.unique(y)) == {0.0, 4.0}
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.005)
    assert y.mean() == pytest.approx(3, abs=0.02)
    np.testing.assert_array_equal(lora.dropout(x, 0.0, jax.random.key(0)), x)


def test_dropout_needs_a_key_and_a_rate_and_depends_on_the_key():
    params, adapters = make_params(SPEC), make_adapters(SPEC)
    first, second = jax.random.key(1), jax.random.key(2)
    plain = hidden(params, adapters)
    np.testing.assert_array_equal(hidden(params, adapters, dropout=0.5), plain)
    np.testing.assert_array_equal(hidden(params, adapters, dropout=0.0, key=first), plain)
    dropped = hidden(params, adapters, dropout=0.5, key=first)
    np.testing.assert_array_equal(hidden(params, adapters, dropout=0.5, key=first), dropped)
    assert np.any(hidden(params, adapters, dropout=0.5, key=second) != dropped)
    assert np.any(dropped != plain)
    # Only the input of the adapters is dropped, never that of the base model.
    np.testing.assert_array_equal(
        hidden(params, None, dropout=0.5, key=first), hidden(params, None)
    )


def test_dropout_uses_another_key_in_each_layer_and_group(monkeypatch):
    seen, real = [], lora.dropout

    def spy(x, rate, key):
        jax.debug.callback(lambda data: seen.append(tuple(data.tolist())), jax.random.key_data(key))
        return real(x, rate, key)

    monkeypatch.setattr(lora, "dropout", spy)
    options = dataclasses.replace(FLOAT32, dropout=0.5)
    decoder.forward(
        SPEC, make_params(SPEC), make_adapters(SPEC), *INPUT, options, jax.random.key(0)
    ).block_until_ready()
    jax.effects_barrier()
    assert len(seen) == len(set(seen)) == SPEC.num_layers * len(lora.GROUPS)
