"""The fused cross-entropy against log_softmax written out, and what it must never build."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import avals

from sft.train import loss, vocabulary
from sft.train.cut import Cut
from sft.types import Sums

B, L, D, V = 4, 10, 8, 36
FACTOR = 1.7  # of the cotangent


def cross_entropy(*arguments, **settings):
    """Over four blocks of the vocabulary. The last arguments are ``chunk`` and ``groups``."""
    *arrays, softcap, chunk, groups = arguments
    settings = {"block": 9} | settings
    return loss.cross_entropy(*arrays, softcap, Cut(chunk, groups=groups, **settings))


def make_inputs(dtype=jnp.float32, share=0.4):
    """Hidden states, table, targets, and fractional weights on a share of the positions."""
    rng = np.random.default_rng(0)
    hidden_BxLxD = jnp.asarray(rng.normal(size=(B, L, D)), dtype)
    table_VxD = jnp.asarray(rng.normal(size=(V, D)), dtype)
    targets_BxL = rng.integers(0, V, (B, L))
    # So that some predictions are right.
    best_BxL = jnp.argmax(hidden_BxLxD @ table_VxD.T, axis=-1)
    targets_BxL = np.where(rng.random((B, L)) < 0.3, best_BxL, targets_BxL)
    weights_BxL = rng.uniform(0.1, 2, (B, L)) * (rng.random((B, L)) < share)
    return (
        hidden_BxLxD,
        table_VxD,
        jnp.asarray(targets_BxL, jnp.int32),
        jnp.asarray(weights_BxL, jnp.float32),
    )


def plain(hidden_BxLxD, table_VxD, targets_BxL, weights_BxL, softcap, *_):
    """All logits at once."""
    z = jnp.einsum("bld,vd->blv", hidden_BxLxD, table_VxD, preferred_element_type=jnp.float32)
    if softcap is not None:
        z = softcap * jnp.tanh(z / softcap)
    logp = jnp.take_along_axis(jax.nn.log_softmax(z), targets_BxL[..., None], axis=-1)[..., 0]
    weight = weights_BxL.sum()
    correct = jnp.sum(weights_BxL * (jnp.argmax(z, axis=-1) == targets_BxL))
    return Sums(-jnp.sum(weights_BxL * logp), weight), Sums(correct, weight)


def gradients(function, inputs, softcap=None, chunk=8, groups=1):
    """``(value and sums, gradients of hidden and table)`` of a multiple of the total."""

    def scaled(hidden_BxLxD, table_VxD):
        total, correct = function(hidden_BxLxD, table_VxD, *inputs[2:], softcap, chunk, groups)
        return FACTOR * total.total, (total, correct)

    return jax.jit(jax.value_and_grad(scaled, argnums=(0, 1), has_aux=True))(*inputs[:2])


def check(ours, theirs, rtol=2e-5, atol=5e-6):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize(
    ("chunk", "groups"), [(1, 1), (8, 1), (7, 2), (5, 4), (10, 4), (1000, 1), (1000, 2)]
)
def test_value_accuracy_and_gradients(softcap, chunk, groups):
    inputs = make_inputs()
    theirs = gradients(plain, inputs, softcap)
    check(gradients(cross_entropy, inputs, softcap, chunk, groups), theirs)
    value = jax.jit(cross_entropy, static_argnums=(4, 5, 6))(*inputs, softcap, chunk, groups)
    check(value, theirs[0][1])  # the path without gradients
    assert 0 < value[1].total < value[1].weight


def test_hidden_gradient_alone_and_table_gradient_alone():
    inputs = make_inputs()
    _, (d_hidden, d_table) = gradients(plain, inputs)
    for argument, expected in ((0, d_hidden), (1, d_table)):
        ours = jax.grad(
            lambda *a: FACTOR * cross_entropy(*a, *inputs[2:], None, 8, 2)[0].total, argument
        )(*inputs[:2])
        np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 4])
def test_no_trained_position_gives_zero(groups):
    inputs = make_inputs(share=0)
    (value, (total, correct)), grads = gradients(cross_entropy, inputs, chunk=8, groups=groups)
    assert value == total.total == total.weight == correct.total == total.mean() == 0
    assert all(np.all(np.asarray(g) == 0) for g in grads)


@pytest.mark.parametrize("groups", [1, 4])
def test_every_position_trained(groups):
    inputs = make_inputs(share=1)
    assert np.all(inputs[3] > 0)
    check(gradients(cross_entropy, inputs, 2.0, 4, groups), gradients(plain, inputs, 2.0))


def test_trained_positions_in_one_group_only():
    *inputs, weights_BxL = make_inputs(share=1)
    inputs = (*inputs, weights_BxL.at[1:].set(0))
    check(gradients(cross_entropy, inputs, None, 3, 4), gradients(plain, inputs))


def test_extreme_logits_stay_finite():
    hidden_BxLxD, *rest = make_inputs()
    ours = gradients(cross_entropy, (1e4 * hidden_BxLxD, *rest))
    check(ours, gradients(plain, (1e4 * hidden_BxLxD, *rest)), atol=1e-5)


def test_inside_a_scan():
    """As gradient accumulation does it, and as one gradient through the whole scan."""
    hidden_BxLxD, table_VxD, *rest = make_inputs()

    def by_row(function):
        def body(total, row):
            hidden, target, weight = (x[None] for x in row)
            return total + function(hidden, table_VxD, target, weight, None, 3, 1)[0].total, None

        def total(hidden_BxLxD):
            return jax.lax.scan(body, jnp.float32(0), (hidden_BxLxD, *rest))[0]

        def accumulated(hidden_BxLxD):
            def one(carry, row):
                hidden, *others = row
                grad = jax.grad(lambda h: body(jnp.float32(0), (h, *others))[0])(hidden)
                return carry, grad

            return jax.lax.scan(one, 0, (hidden_BxLxD, *rest))[1]

        return jax.jit(jax.value_and_grad(total))(hidden_BxLxD), jax.jit(accumulated)(hidden_BxLxD)

    check(by_row(cross_entropy), by_row(plain))


def test_ties_count_as_correct():
    table_VxD = jnp.array([[1.0, 0], [1, 0], [0, 1]])  # ids 0 and 1 always tie
    hidden_BxLxD = jnp.array([[[1.0, 0], [1, 0], [1, 0], [0, 1]]])
    targets_BxL = jnp.array([[0, 1, 2, 2]])
    weights_BxL = jnp.array([[1.0, 2, 4, 8]])
    _, correct = cross_entropy(hidden_BxLxD, table_VxD, targets_BxL, weights_BxL, None, 2, 1)
    assert correct == Sums(1 + 2 + 8, 15)


def test_bfloat16_is_near_float32():
    inputs = make_inputs(jnp.bfloat16)
    (value, sums), grads = gradients(cross_entropy, inputs)
    (expected, expected_sums), expected_grads = gradients(
        plain, (*(x.astype(jnp.float32) for x in inputs[:2]), *inputs[2:])
    )
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, expected, rtol=1e-4)  # float32 logits of the same inputs
    np.testing.assert_allclose(sums[1].total, expected_sums[1].total)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        assert ours.dtype == jnp.bfloat16
        assert np.linalg.norm(ours.astype(jnp.float32) - theirs) < 0.01 * np.linalg.norm(theirs)


def shapes_in_gradient(function, argnums):
    inputs = make_inputs()

    def total(hidden_BxLxD, table_VxD):
        return function(hidden_BxLxD, table_VxD, *inputs[2:], 2.0, 4, 2)[0].total

    jaxpr = jax.make_jaxpr(jax.jit(jax.grad(total, argnums)))(*inputs[:2])
    return {tuple(a.shape) for a in avals(jaxpr) if jnp.issubdtype(a.dtype, jnp.floating)}


def test_neither_all_logits_nor_an_unwanted_table_gradient_exist():
    def full_logits(shapes):
        return any(np.prod(shape) >= B * L * V for shape in shapes)

    only_hidden = shapes_in_gradient(cross_entropy, 0)
    assert not full_logits(only_hidden)
    assert (V, D) not in only_hidden
    both = shapes_in_gradient(cross_entropy, (0, 1))
    assert not full_logits(both)
    # The walk does see such arrays where they exist.
    assert (V, D) in both
    assert full_logits(shapes_in_gradient(plain, 0))


@pytest.mark.parametrize(
    ("trained", "chunk", "groups", "chunks"),
    [
        ([0, 0, 0, 0], 4, 1, 0),
        ([1, 0, 0, 0], 4, 1, 1),
        ([4, 0, 0, 0], 4, 1, 1),
        ([3, 0, 2, 0], 4, 1, 2),
        ([10, 10, 10, 10], 4, 1, 10),
        ([10, 10, 10, 10], 1000, 1, 1),
        ([5, 0, 0, 1], 4, 4, 2),  # the fullest group decides
        ([5, 4, 1, 1], 4, 2, 3),
    ],
)
def test_the_cost_is_that_of_the_trained_positions(monkeypatch, trained, chunk, groups, chunks):
    hidden_BxLxD, table_VxD, targets_BxL, _ = make_inputs()
    weights_BxL = (np.arange(L)[::-1] < np.array(trained)[:, None]).astype(np.float32)
    trips, real = [], jax.lax.fori_loop

    def counted(lower, upper, body, carry):
        if isinstance(upper, int):  # over the vocabulary
            return real(lower, upper, body, carry)

        def count(i, carry):
            jax.debug.callback(lambda i: trips.append(int(i)), i)
            return body(i, carry)

        return real(lower, upper, count, carry)

    monkeypatch.setattr(jax.lax, "fori_loop", counted)
    total, _ = cross_entropy(
        hidden_BxLxD, table_VxD, targets_BxL, jnp.asarray(weights_BxL), None, chunk, groups
    )
    assert float(total.weight) == sum(trained)
    jax.effects_barrier()
    assert sorted(trips) == sorted(list(range(chunks)) * 4)  # for each block of the vocabulary


@pytest.mark.parametrize("block", [1, 5, 12, 36, 4096])
def test_the_size_of_a_block_changes_nothing(block):
    inputs = make_inputs()

    def in_blocks(*arguments):
        return cross_entropy(*arguments, block=block)

    check(gradients(in_blocks, inputs, softcap=2.0), gradients(plain, inputs, softcap=2.0))


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize(
    ("parts", "shares"), [(2, 1), (3, 1), (4, 1), (36, 1), (1, 3), (1, 36), (2, 2), (3, 6)]
)
def test_the_number_of_parts_of_the_vocabulary_changes_nothing(parts, shares, softcap):
    inputs = make_inputs()

    def in_parts(*arguments):
        return cross_entropy(*arguments, parts=parts, shares=shares, block=6)

    check(gradients(in_parts, inputs, softcap, groups=2), gradients(plain, inputs, softcap))


@pytest.mark.parametrize(("groups", "spans"), [(1, 2), (2, 5), (4, 10)])
def test_cutting_the_rows_changes_nothing(groups, spans):
    inputs = make_inputs()

    def in_spans(*arguments):
        return cross_entropy(*arguments, spans=spans)

    check(gradients(in_spans, inputs, 2.0, 3, groups), gradients(plain, inputs, 2.0))


@pytest.mark.parametrize("share", [0, 0.4, 1])
def test_by_position(share):
    *arrays, weights_BxL = make_inputs(share=share)
    cut = Cut(3, block=6, groups=2, spans=5, parts=2, shares=3)
    nll_BxL, correct_BxL = jax.jit(loss.by_position, static_argnums=(4, 5))(
        *arrays, weights_BxL, 2.0, cut
    )
    for place in np.ndindex(B, L):
        one_BxL = jnp.zeros_like(weights_BxL).at[place].set(weights_BxL[place])
        expected = plain(*arrays, one_BxL, 2.0)
        check((nll_BxL[place], correct_BxL[place]), tuple(x.total for x in expected))


def test_blocks_are_a_multiple_of_the_lanes_of_a_tpu_where_one_divides():
    for parts, entries in ((1, (4096, 3712, 250)), (2, (4096, 4002, 125))):
        tables = [jnp.zeros((V, 1)) for V in (262144, 256128, 250)]
        cut = Cut(1, block=4096, parts=parts)
        shapes = [vocabulary.in_blocks(table, cut).shape for table in tables]
        assert tuple(shape[3] for shape in shapes) == entries
        assert {shape[1:3] for shape in shapes} == {(parts, 1)}
    shared = Cut(1, block=4096, shares=8)
    assert vocabulary.in_blocks(jnp.zeros((262144, 1)), shared).shape == (64, 1, 8, 512, 1)


def test_positions_of_weight_zero_are_never_read():
    hidden_BxLxD, table_VxD, targets_BxL, weights_BxL = make_inputs()
    poisoned = jnp.where(weights_BxL[..., None] > 0, hidden_BxLxD, 3e38)
    inputs = (hidden_BxLxD, table_VxD, targets_BxL, weights_BxL)
    check(gradients(cross_entropy, (poisoned, *inputs[1:]), chunk=4), gradients(plain, inputs))


def test_sums_add_up_and_divide_once():
    both = Sums(jnp.float32(3), jnp.float32(1)) + Sums(jnp.float32(1), jnp.float32(3))
    assert dataclasses.astuple(both) == (4, 4) and both.mean() == 1
