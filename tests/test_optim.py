"""The schedule at its corners, and AdamW against a computation by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import make_config

from sft.train import optim


def rates(steps=100, **changes):
    keys = {"learning_rate": 0.5, "warmup": 0.1, "final_scale": 0.2} | changes
    schedule = optim.schedule(
        make_config(**{f"optim__{k}": v for k, v in keys.items()}).optim, steps
    )
    return np.array([float(schedule(step)) for step in range(steps + 1)])


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_warm_up_is_a_ramp_that_does_not_begin_at_zero(name):
    np.testing.assert_allclose(rates(schedule=name)[:10], 0.05 * np.arange(1, 11), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "middle", "end"),
    [("constant", 0.5, 0.5), ("linear", 0.3, 0.1), ("cosine", 0.3, 0.1)],
)
def test_after_the_warm_up(name, middle, end):
    rate = rates(schedule=name)
    assert rate[10] == pytest.approx(0.5)
    assert rate[55] == pytest.approx(middle, rel=1e-5)  # halfway from 10 to 100
    assert rate[100] == pytest.approx(end, rel=1e-5)
    assert np.all(np.diff(rate[10:]) <= 1e-7)


def test_cosine_quarter():
    expected = 0.1 + 0.4 * 0.5 * (1 + np.cos(np.pi / 4))
    assert rates(schedule="cosine", warmup=0.2)[40] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_no_warm_up_begins_at_the_peak(name):
    assert rates(schedule=name, warmup=0.0)[0] == 0.5


def test_warm_up_over_the_whole_run_and_runs_of_one_step():
    assert rates(warmup=1.0)[99] == pytest.approx(0.5)
    assert rates(steps=1, warmup=0.03)[0] == 0.5
    assert rates(steps=1, warmup=1.0)[0] == 0.5


def updates(gradients, weight, **changes):
    """Weights after each gradient, and the last state."""
    keys = {"learning_rate": 0.1, "warmup": 0.0, "schedule": "constant"} | changes
    tx = optim.make(make_config(**{f"optim__{k}": v for k, v in keys.items()}).optim, 10)
    weight = jnp.asarray(weight, jnp.float32)
    state, history = tx.init(weight), []
    for gradient in gradients:
        update, state = tx.update(jnp.asarray(gradient, jnp.float32), state, weight)
        weight = optax.apply_updates(weight, update)
        history.append(np.asarray(weight))
    return np.array(history), state


def test_adamw_by_hand():
    gradients, weight = np.array([[0.3, -0.4], [0.1, 0.2], [-0.5, 0.0]]), np.array([1.0, -2.0])
    b1, b2, eps, decay, rate = 0.8, 0.95, 1e-3, 0.1, 0.1
    m, v, expected, w = np.zeros(2), np.zeros(2), [], weight
    for t, g in enumerate(gradients, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        step = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        w = w - rate * (step + decay * w)
        expected.append(w)
    ours, _ = updates(gradients, weight, b1=b1, b2=b2, eps=eps, weight_decay=decay, clip_norm=0.0)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("clip_norm", "gradient", "seen"),
    [
        (1.0, [3.0, 4.0], [0.6, 0.8]),
        (1.0, [0.3, 0.4], [0.3, 0.4]),
        (2.0, [3.0, 4.0], [1.2, 1.6]),
        (0.0, [3.0, 4.0], [3.0, 4.0]),
    ],
)
def test_clipping_by_the_global_norm(clip_norm, gradient, seen):
    _, state = updates([gradient], [0.0, 0.0], clip_norm=clip_norm, b1=0.5)
    np.testing.assert_allclose(optax.tree.get(state, "mu"), 0.5 * np.array(seen), rtol=1e-6)


@pytest.mark.parametrize("plus", [1.0, 16.0])
def test_lora_plus_is_adamw_with_a_learning_rate_of_its_own_for_b(plus):
    """Against one optimiser for each rate; decay and the schedule go with the rate."""
    rng = np.random.default_rng(0)
    draw = lambda: {n: jnp.asarray(rng.normal(size=3), jnp.float32) for n in "ABm"}  # noqa: E731
    start, gradients = {"q": draw()}, [{"q": draw()} for _ in range(4)]

    def train(rate, *arguments):
        keys = {"learning_rate": rate, "weight_decay": 0.3, "warmup": 0.5, "eps": 1e-3}
        config = make_config(**{f"optim__{k}": v for k, v in keys.items()}).optim
        tx = optim.make(config, 4, *arguments)
        tree, state = start, tx.init(start)
        for gradient in gradients:
            update, state = tx.update(gradient, state, tree)
            tree = optax.apply_updates(tree, update)
        return tree["q"], state

    ours, state = train(0.01, plus)
    slow, slow_state = train(0.01)
    fast, _ = train(0.01 * plus)
    for leaf, expected in (("A", slow), ("m", slow), ("B", fast)):
        # With a ratio of 1, to the last bit.
        np.testing.assert_allclose(ours[leaf], expected[leaf], rtol=0 if plus == 1 else 2e-6)
    assert (np.abs(ours["B"] - slow["B"]).max() > 0.1) == (plus != 1)
    # So that a checkpoint can be read without knowing the ratio.
    assert jax.tree.structure(state) == jax.tree.structure(slow_state)
