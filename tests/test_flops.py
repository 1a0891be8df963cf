"""Counted operations against hand-computed numbers, against every matrix product of the traced
step, and against XLA's own count where that can be trusted."""

import dataclasses
import itertools
import math

import jax
import pytest
from jax._src.interpreters import partial_eval
from tiny import make_config

from sft.mesh import sharding
from sft.model import decoder, flops, specs
from sft.train import optim
from sft.train.steps import make_steps
from sft.types import Batch

TINY = specs.tiny()  # 4 layers: three see 8 keys, one sees all


def brute_pairs(length, window):
    return sum(
        0 <= q - k < (window or length) for q, k in itertools.product(range(length), repeat=2)
    )


@pytest.mark.parametrize("length", [1, 7, 8, 9, 33])
@pytest.mark.parametrize("window", [None, 1, 8, 40])
def test_pairs_of_a_causal_row(length, window):
    assert flops.pairs(length, window) == brute_pairs(length, window)


def test_by_hand():
    """Two rows of 16 positions, 5 of them trained; rank 2 on q and down."""
    config = make_config(lora__targets="q|down", model__remat="layer")
    found = flops.train_step(TINY, config, rows=2, length=16, trained=5)
    tokens = 32
    # Width 32: q and o 32 x 64, k and v 32 x 32, gate, up and down 32 x 48.
    weights = 4 * (2 * 2048 + 2 * 1024 + 3 * 1536)
    assert found.projections == 2 * 2 * tokens * weights
    seen = 2 * (3 * (36 + 8 * 8) + 136)  # pairs, of 3 windowed layers and a whole one
    assert found.attention == 3 * 2 * 2 * seen * 64
    down, up = 4 * 2 * (32 + 48), 4 * 2 * (64 + 32)
    assert found.adapters == 3 * 2 * tokens * (down + up)
    assert found.head == 2 * 2 * 5 * 256 * 32
    assert found.recomputed == 2 * tokens * (weights + down + up) + 2 * 2 * seen * 64
    parts = found.projections + found.attention + found.adapters + found.head
    assert found.model == parts and found.executed == parts + found.recomputed


def test_gemma3_1b_is_near_four_operations_a_parameter_and_token():
    """Frozen weights: 2 forward and 2 backward; the 698 million parameters of the layers."""
    config = make_config(lora__rank=1, lora__targets="q", model__remat="none")
    found = flops.train_step(specs.get("gemma3_1b"), config, rows=1, length=1000, trained=0)
    assert found.projections == 4 * 1000 * 697_761_792
    assert found.recomputed == found.head == 0


def step_of(config, spec):
    """The step of ``sft.train.steps`` on one device, traced with abstract arrays."""
    mesh = sharding.make_mesh(config, jax.devices()[:1])
    steps = make_steps(config, spec, optim.make(config.optim, 10), mesh)
    params = decoder.abstract_params(spec, steps.options.dtype)
    state, frozen = jax.eval_shape(steps.init, jax.eval_shape(lambda: jax.random.key(0)), params)
    cells = (config.train.batch_size, config.data.max_length)
    i, f = jax.ShapeDtypeStruct(cells, "int32"), jax.ShapeDtypeStruct(cells, "float32")
    return steps.train.trace(state, frozen, Batch(i, i, f, i, i))


def products(jaxpr) -> int:
    """Operations of all matrix products; a scan's body as often as it runs, a while's once."""
    total = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += (
                2
                * math.prod(equation.outvars[0].aval.shape)
                * math.prod(left[i] for i in contracted)
            )
        is_jaxpr = lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")  # noqa: E731
        inner = filter(is_jaxpr, jax.tree.leaves(equation.params, is_leaf=is_jaxpr))
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += times * sum(products(p) for p in inner)
    return total


@pytest.mark.parametrize(
    "changes",
    [
        {"model__remat": "layer"},
        {"model__remat": "projections"},
        {"model__remat": "none"},
        {"model__remat": "host"},
        {"lora__rank": 0, "model__remat": "layer"},
        {"lora__rank": 0, "model__remat": "none"},
        {"lora__targets": "q|down", "train__microbatches": 2, "model__remat": "layer"},
    ],
)
def test_equals_every_product_of_the_traced_step(monkeypatch, changes):
    """All positions are trained and fit one chunk: the loops over chunks and blocks run once.

    The reference attention computes masked pairs too, so here those are counted.
    """
    config = make_config(data__max_length=32, train__batch_size=4, **changes)
    jaxpr = step_of(config, TINY).jaxpr
    used, _ = partial_eval.dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars))
    monkeypatch.setattr(flops, "pairs", lambda length, window: length**2)
    assert products(used) == flops.train_step(TINY, config, 4, 32, trained=128).executed


def test_xla_counts_the_same_for_one_layer():
    """With one layer XLA's count is right. Doubling D, F and both leaves of it, in the mixed
    difference, what is proportional to D times F: the products of gate, up and down."""
    config = make_config(data__max_length=8, train__batch_size=1, lora__targets="q")
    expected = mixed = 0
    for (embed, hidden), sign in {(64, 96): 1, (64, 48): -1, (32, 96): -1, (32, 48): 1}.items():
        spec = dataclasses.replace(
            TINY, num_layers=1, pattern=TINY.pattern[:1], embed=embed, hidden=hidden
        )
        counted = step_of(config, spec).lower().cost_analysis()
        mixed += sign * counted["flops"]
        expected += sign * flops.train_step(spec, config, 1, 8, trained=8).executed
    assert mixed == expected == 2 * 8 * 3 * 32 * 48 * 3  # forward, backward, and again
