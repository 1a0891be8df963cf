"""What is another model, and what is rounding."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import tiny
from test_export_layouts import make, make_published

from sft.errors import UserError
from sft.export import verify
from sft.export.verify import Difference
from sft.model import decoder, lora, specs


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Seven layers of random weights, at one position of which rounding is seen."""
    return make_published(tmp_path_factory.mktemp("run"), "gemma3")


def test_rounding_is_no_other_model(published):
    noise = verify.rounding(published)
    assert 1e-4 < noise < 1e-2
    merged = lora.merge(published.params, published.adapters, published.scale)
    found = verify.differences(published, merged, {}, 1.0)
    assert found.largest < 4 * noise and found.mean < 1e-5
    verify.check(published, dataclasses.replace(found, largest=3.9 * noise), "float32", "it")
    for wrong in ({"largest": 4.1 * noise}, {"mean": 6e-5}, {"kl": 2e-8}, {"agreement": 0.99}):
        with pytest.raises(UserError, match="it: read back, it is not the model that was tuned"):
            verify.check(published, dataclasses.replace(found, **wrong), "float32", "it")


@pytest.mark.parametrize("part", ["A", "B"])
def test_one_wrong_number_is_another_model(published, part):
    adapters = jax.tree.map(lambda x: x, published.adapters)
    adapters["up"][part] = adapters["up"][part].at[3, 1, 1].add(1e-2)
    found = verify.differences(published, published.params, adapters, published.scale)
    with pytest.raises(UserError, match="not the model"):
        verify.check(published, found, "float32", "it")


def test_where_rounding_is_small_the_limit_stays(tmp_path):
    """In two layers it is, on any processor; with four it was half of the limit on one."""
    spec = dataclasses.replace(specs.tiny("gemma2"), num_layers=2)
    tuned = make(tmp_path, "gemma2", spec=spec)
    assert 4 * verify.rounding(tuned) < verify.LIMITS["float32"].largest
    verify.check(tuned, Difference(0.9e-3, 0, 0, 1), "float32", "it")
    with pytest.raises(UserError, match=r"float32 allows logits differ by 1\.0e-03 at most"):
        verify.check(tuned, Difference(1.1e-3, 0, 0, 1), "float32", "it")


@pytest.mark.parametrize("factor", [1.001, 3, 300, 1e5])
def test_divergence_of_models_far_apart(tmp_path, monkeypatch, factor):
    """Where one model is sure and the other is not, probabilities underflow."""
    tuned = make(tmp_path, spec=dataclasses.replace(specs.tiny("gemma3"), num_layers=2))
    sure = {"final_norm_D": (1 + tuned.params["final_norm_D"]) * factor - 1}
    sure = dataclasses.replace(tuned, params=tuned.params | sure)
    ids = verify.prompts(tuned)[-1]
    monkeypatch.setattr(verify, "prompts", lambda tuned: [ids])
    tokens_1xL, places_1xL = jnp.asarray([ids]), jnp.arange(len(ids))[None]

    def log_p_LxV(one):
        given = one.adapters, tokens_1xL, places_1xL, jnp.ones_like(places_1xL), one.options
        hidden = tiny.forward(one.spec, one.params, *given)
        logits = decoder.logits(one.spec, one.params, hidden[0])
        return scipy.special.log_softmax(np.asarray(logits, np.float64), axis=-1)

    for one, other in ((tuned, sure), (sure, tuned)):
        found = verify.differences(one, other.params, other.adapters, other.scale)
        p_LxV, q_LxV = log_p_LxV(one), log_p_LxV(other)
        exact = (np.exp(p_LxV) * (p_LxV - q_LxV)).sum(-1).mean()
        assert found.kl == pytest.approx(exact, rel=1e-2) and math.isfinite(found.kl)


def test_a_model_that_diverged_is_refused(tmp_path):
    tuned = make(tmp_path)
    broken = dict(tuned.params) | {"final_norm_D": tuned.params["final_norm_D"] * jnp.nan}
    found = verify.differences(dataclasses.replace(tuned, params=broken), tuned.params, {}, 1.0)
    with pytest.raises(UserError, match="it: its logits, or the base model's, are not finite"):
        verify.check_learnt(found, "it")
    with pytest.raises(UserError, match="float16 cannot hold these weights"):
        verify.check(tuned, found, "float16", "it")
    with pytest.raises(UserError, match="not the model that was tuned"):
        verify.check(tuned, found, "float32", "it")
