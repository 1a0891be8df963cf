"""The training step computes what it should, and only that."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from step_runs import EXAMPLES, UNPACKED, B, L, assert_same_run, baseline, build, run
from tiny import (
    FLOAT32,
    assert_trees_close,
    avals,
    device_batch,
    make_adapters,
    make_params,
    scored,
)

from sft.model import decoder, lora, specs
from sft.train.cut import Cut


def plain_loss(adapters, params, batch):
    """Mean negative log-likelihood with all logits at once."""
    spec = specs.tiny("gemma3")
    hidden = decoder.forward(
        spec, params, adapters, batch.tokens_BxL, batch.positions_BxL, batch.segments_BxL,
        dataclasses.replace(FLOAT32, lora_scale=2.0),
    )  # fmt: skip
    logp = jax.nn.log_softmax(decoder.logits(spec, params, hidden))
    logp = jnp.take_along_axis(logp, batch.targets_BxL[..., None], axis=-1)[..., 0]
    return -jnp.sum(batch.weights_BxL * logp) / jnp.sum(batch.weights_BxL)


def test_packed_and_unpacked_rows_agree_with_the_plain_formula():
    """The same conversations in four rows of two and in eight of one."""
    spec, examples = specs.tiny("gemma3"), EXAMPLES[:B]
    packed = device_batch([examples[i : i + 2] for i in range(0, B, 2)] + [[]] * 4, L)
    assert packed.weights_BxL.sum() == UNPACKED[0].weights_BxL.sum()
    adapters = make_adapters(spec, rank=2)
    value, gradient = jax.jit(jax.value_and_grad(plain_loss))(
        adapters, make_params(spec), UNPACKED[0]
    )
    norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
    ours = [run([batch], adapters) for batch in (packed, UNPACKED[0])]
    for state, (metrics,), _ in ours:
        np.testing.assert_allclose(metrics["loss"].mean(), value, rtol=1e-5)
        np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)
        first_moment = optax.tree.get(state.opt_state, "mu")
        expected = jax.tree.map(lambda g: 0.1 * g / jnp.maximum(norm, 1), gradient)
        assert_trees_close(first_moment, expected, rtol=1e-4, atol=1e-6)


def test_rows_of_weight_zero_change_nothing():
    examples = [[e] for e in EXAMPLES[:4]]
    empty = device_batch(examples + [[]] * 4, L)
    mute = device_batch([*examples, *([e] for e in EXAMPLES[4:8])], L)
    mute = mute.replace(weights_BxL=mute.weights_BxL.at[4:].set(0))
    adapters = make_adapters(specs.tiny("gemma3"), rank=2)
    ours, theirs = run([mute], adapters), run([empty], adapters)
    assert_same_run(ours, theirs)
    assert ours[1][0]["loss"].weight == sum(e.is_target[1:].sum() for e in EXAMPLES[:4])


def test_a_batch_without_targets_moves_nothing():
    empty = device_batch([[]] * B, L)
    state, (metrics,), _ = run([empty], make_adapters(specs.tiny("gemma3"), rank=2))
    assert metrics["loss"].total == metrics["loss"].weight == metrics["grad_norm"] == 0
    assert_trees_close(state.trainable, make_adapters(specs.tiny("gemma3"), rank=2), 0, 0)


def test_lora_moves_every_adapter_and_no_weight():
    steps, params = build()
    start, frozen = steps.init(jax.random.key(0), params)
    one = run(UNPACKED[:1])[0].trainable
    two = run(UNPACKED[:2])[0].trainable
    for name in lora.NAMES:
        # B is zero, so that the first gradient of A is.
        np.testing.assert_array_equal(one[name]["A"], start.trainable[name]["A"])
        for before, after in (
            (start.trainable[name]["B"], one[name]["B"]),
            (one[name]["A"], two[name]["A"]),
        ):
            moved = np.abs(after - before).max(axis=tuple(range(1, after.ndim)))
            assert np.all(moved > 0), name  # in every layer
    assert_trees_close(baseline()[2], make_params(specs.tiny("gemma3")), 0, 0)
    assert_trees_close(frozen, params, 0, 0)


def test_targets_choose_what_is_trained():
    state, _, _ = run(UNPACKED[:1], lora__targets="v|gate")
    assert set(state.trainable) == {"v", "gate"}
    assert all(np.any(pair["B"]) for pair in state.trainable.values())


def test_dropout_depends_on_seed_and_step_only_and_is_off_in_evaluation():
    changes = {"lora__dropout": 0.5, "optim__learning_rate": 1e-12}
    adapters = make_adapters(specs.tiny("gemma3"), rank=2)
    twice = [UNPACKED[0], UNPACKED[0]]

    def losses(seed):
        history = run(twice, adapters, seed, **changes)[1]
        return [float(metrics["loss"].total) for metrics in history]

    first = losses(seed=0)
    assert losses(seed=0) == first
    assert first[0] != first[1]
    assert losses(seed=1)[0] != first[0]
    steps, params = build(**changes)
    plain, _ = build()
    ours, theirs = (scored(s, adapters, params, UNPACKED[0]) for s in (steps, plain))
    assert float(ours["loss"].total) == float(theirs["loss"].total) not in first


def test_bfloat16_computes_near_float32_and_keeps_float32_state():
    state, history, frozen = run(dtype="bfloat16")
    assert {x.dtype for x in jax.tree.leaves(frozen)} == {jnp.dtype(jnp.bfloat16)}
    for tree in (state.trainable, *(optax.tree.get(state.opt_state, m) for m in ("mu", "nu"))):
        assert {x.dtype for x in jax.tree.leaves(tree)} == {jnp.dtype(jnp.float32)}
    for ours, theirs in zip(history, baseline()[1], strict=True):
        assert ours["loss"].total.dtype == jnp.float32
        np.testing.assert_allclose(ours["loss"].mean(), theirs["loss"].mean(), rtol=0.02)
        assert ours["loss"].total != theirs["loss"].total


def test_training_lowers_the_loss():
    history = run(UNPACKED[:1] * 15)[1]
    assert history[-1]["loss"].mean() < history[0]["loss"].mean() - 0.3


def test_one_compilation_and_the_state_stays_in_its_place():
    steps, params = build(mesh=(4, 2, 1, 1), lora__targets="q")
    state, frozen = steps.init(jax.random.key(0), params)
    for count, batch in enumerate(UNPACKED, start=1):
        old = state
        batch = jax.device_put(batch, steps.batch_sharding)
        state, _ = steps.train(state, frozen, batch)
        assert all(x.is_deleted() for x in jax.tree.leaves(old.trainable))  # donated
        assert not any(x.is_deleted() for x in jax.tree.leaves(frozen))
        assert int(state.step) == count
        for leaf, place in zip(
            jax.tree.leaves(state), jax.tree.leaves(steps.state_sharding), strict=True
        ):
            assert leaf.sharding.is_equivalent_to(place, leaf.ndim)
    assert steps.train._cache_size() == 1


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
@pytest.mark.parametrize(
    "mesh", [(1, 1, 1, 1), pytest.param((4, 2, 1, 1), marks=pytest.mark.slow), (1, 2, 2, 2)]
)
def test_rows_scored_one_by_one_add_up_to_the_loss_that_is_trained(family, mesh):
    steps, params = build(mesh=mesh, family=family)
    adapters = make_adapters(specs.tiny(family), rank=2)
    empty = [[]]  # rows that fill a last batch
    batch = device_batch([[e] for e in EXAMPLES[: B - 1]] + empty, L)
    rows = steps.score(adapters, params, jax.device_put(batch, steps.batch_sharding))
    whole = run([batch], adapters, mesh=mesh, family=family)[1][0]
    trained = [e.is_target[1:].sum() for e in EXAMPLES[: B - 1]]
    assert max(trained) > 5 > min(trained)
    np.testing.assert_array_equal(rows["loss"].weight, [*trained, 0])
    for name in ("loss", "correct"):
        total = np.sum(np.asarray(rows[name].total, np.float64))
        np.testing.assert_allclose(total, whole[name].total, rtol=1e-6)
        assert rows[name].total[-1] == 0
    if family == "gemma3":
        mean = scored(steps, adapters, params, batch)["loss"].mean()
        np.testing.assert_allclose(mean, plain_loss(adapters, params, batch), rtol=1e-5)
    one = device_batch([[EXAMPLES[2]]] + empty * (B - 1), L)
    alone = scored(steps, adapters, params, one)["loss"]
    np.testing.assert_allclose(rows["loss"].total[2], alone.total, rtol=1e-5)


def test_the_step_builds_neither_all_logits_nor_a_gradient_of_the_embedding(monkeypatch):
    spec = specs.tiny("gemma3")
    # Several blocks, so that one of them is not all of the table.
    monkeypatch.setattr(Cut, "of", lambda mesh, chunk: Cut(chunk, block=64))

    def built(**changes):
        steps, params = build(**changes)
        state, frozen = jax.eval_shape(steps.init, jax.random.key(0), params)
        shapes = [a.shape for a in avals(jax.make_jaxpr(steps.train)(state, frozen, UNPACKED[0]))]
        logits = [s for s in shapes if spec.vocab in s and math.prod(s) >= B * L * spec.vocab]
        return logits, (spec.vocab, spec.embed) in shapes

    assert built() == ([], False)
    assert built(lora__rank=0) == ([], True)
