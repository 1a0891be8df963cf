"""Labels ranked by likelihood: against log-probabilities written out, and labels that go on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_run

from sft import session
from sft.eval import metrics, ranking
from sft.eval.ranking import Choices, without_longer
from sft.mesh import sharding
from sft.model import specs
from sft.train import optim
from sft.train.steps import make_steps

registered = tiny_run.registered


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(specs.SPECS, tiny_run.SPEC.name, tiny_run.SPEC)
        yield tiny_run.build(tmp_path_factory.mktemp("ranking"))


def test_ranks_are_those_of_the_forward_pass(project):
    config = project.values()
    spec = specs.get("tiny_run")
    tok = session.tokenizer(config, spec)
    mesh = sharding.make_mesh(config)
    steps = make_steps(config, spec, optim.make(config.optim, 1), mesh)
    params = session.params(config, spec, steps.params_sharding)
    state, frozen = steps.init(jax.random.key(0), params)
    prompts = [np.array([2, *tok.encode(text)], np.int32) for text in ("a b", "c d e f", "g")]
    labels = ["b", "a b c", "d"]
    found = ranking.rank(config, steps, state.trainable, frozen, tok, prompts, labels)

    def log_likelihood(prompt, label):
        ids = np.concatenate([prompt, tok.encode_array(label)])
        count = len(tok.encode_array(label))
        positions = jnp.arange(len(ids))[None]
        hidden = tiny.forward(
            spec, params, {}, jnp.asarray(ids)[None], positions, jnp.ones_like(positions),
            tiny.FLOAT32,
        )  # fmt: skip
        logits = hidden @ params["embed_VxD"].T
        logits = logits if spec.final_softcap is None else (
            jnp.tanh(logits / spec.final_softcap) * spec.final_softcap
        )  # fmt: skip
        every = jax.nn.log_softmax(logits[0], axis=-1)
        return sum(
            float(every[len(ids) - count - 1 + t, ids[len(prompt) + t]]) for t in range(count)
        )

    expected = np.array([[log_likelihood(p, x) for x in labels] for p in prompts])
    np.testing.assert_allclose(found.log_likelihood_nxk, expected, rtol=1e-5, atol=1e-5)
    assert found.chosen.tolist() == expected.argmax(1).tolist()
    per_character = expected / np.array([1, 5, 1])
    assert found.chosen_norm.tolist() == per_character.argmax(1).tolist()


def test_choices_stand_in_order_and_count_the_label_alone():
    choices = Choices([np.array([2, 5]), np.array([2])], [np.array([7]), np.array([8, 9])])
    assert [one.tokens.tolist() for one in choices] == [[2, 5, 7], [2, 5, 8, 9], [2, 7], [2, 8, 9]]
    assert [int(one.is_target.sum()) for one in choices] == [1, 2, 1, 2]
    assert len(choices) == 4 and choices.longest == 4


def test_a_label_that_begins_another_is_what_does_not_go_on():
    """p(x) = 0.5, of which it goes on as p(x y) = 0.4, and that as p(x y z) = 0.1."""
    tokens = [(1,), (1, 2), (1, 2, 3), (4,)]
    found = without_longer(np.log([[0.5, 0.4, 0.1, 0.2]]), tokens)
    np.testing.assert_allclose(np.exp(found), [[0.1, 0.3, 0.1, 0.2]], rtol=1e-12)
    # Without that the label that begins the others would always win.
    assert found.argmax(1).tolist() == [1]
    two = without_longer(np.log([[0.5, 0.2, 0.2]]), [(1,), (1, 2), (1, 3)])
    np.testing.assert_allclose(np.exp(two), [[0.1, 0.2, 0.2]], rtol=1e-12)
    same = without_longer(np.log([[0.5, 0.5]]), [(1,), (1, 2)])
    assert np.isfinite(same).all() and same.argmax(1).tolist() == [1]
    apart = np.log([[0.5, 0.2]])
    np.testing.assert_array_equal(without_longer(apart, [(1,), (2, 1)]), apart)


def test_metrics_of_ranks():
    found = metrics.ranked(["a", "b", "b"], 4)
    assert list(found) == list(metrics.RANKED)
    rows = found["label_accuracy"].statistics(["a", "b", "a"], ["a", "b", "b"])
    assert float(found["label_accuracy"].value(rows.sum(0))) == pytest.approx(2 / 3)
    rows = found["label_macro_f1"].statistics(["a", "b", "a"], ["a", "b", "b"])
    assert float(found["label_macro_f1"].value(rows.sum(0))) == pytest.approx(2 / 3)
    assert {metric.signature for metric in found.values()} == {"ranked:4"}
