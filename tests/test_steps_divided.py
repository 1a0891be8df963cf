"""However a step is divided, over devices, in time or by a kernel, it computes the same."""

import jax
import numpy as np
import pytest
from step_runs import EXAMPLES, UNPACKED, B, L, assert_same_run, baseline, fully_tuned, run
from tiny import device_batch, make_params

from sft.model import specs


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "mesh",
    [
        (8, 1, 1, 1),
        (2, 2, 1, 2),
        (1, 2, 2, 2),
        slow((4, 2, 1, 1)),
        slow((1, 1, 8, 1)),
        slow((2, 1, 2, 2)),
        slow((1, 2, 4, 1)),
    ],
)
def test_a_mesh_computes_what_one_device_does(mesh):
    assert_same_run(run(mesh=mesh), baseline())


@pytest.mark.parametrize("mesh", [slow((2, 2, 1, 2)), (1, 2, 2, 2)])
def test_attention_kernels_compute_what_the_reference_does(mesh):
    """Splash takes parts of rows of 128; each device runs it on its queries and heads."""
    length = 128 * mesh[2]
    rows = [device_batch([EXAMPLES[i : i + 5] for i in range(B)], length)]
    usual = run(rows, mesh=mesh, data__max_length=length)
    fused = run(rows, mesh=mesh, data__max_length=length, model__attention="splash")
    assert_same_run(fused, usual)


@pytest.mark.parametrize("mesh", [slow((2, 2, 1, 2)), (1, 2, 2, 2)])
def test_full_tuning_on_a_mesh_computes_what_one_device_does(mesh):
    one, many = fully_tuned((1, 1, 1, 1)), fully_tuned(mesh)
    assert_same_run(many, one)
    assert one[2] == {}
    before = make_params(specs.tiny("gemma2"))
    for (path, new), old in zip(
        jax.tree.leaves_with_path(one[0].trainable), jax.tree.leaves(before), strict=True
    ):
        moved = np.abs(new - old).max(axis=tuple(range(1, new.ndim)))
        assert np.all(moved > 0), path  # in every layer; of the embedding, every row


@pytest.mark.parametrize(
    ("parts", "mesh"), [slow(4, (1, 1, 1, 1)), (2, (2, 2, 1, 1)), slow(4, (1, 2, 2, 2))]
)
def test_microbatches_compute_what_one_batch_does(parts, mesh):
    tokens = UNPACKED[0].weights_BxL.reshape(-1, parts, L).sum((0, 2))
    assert len(set(tokens.tolist())) > 1  # a mean of means would differ
    assert_same_run(run(train__microbatches=parts, mesh=mesh), baseline())


@pytest.mark.parametrize(
    ("remat", "mesh"),
    [
        ("projections", (1, 1, 1, 1)),
        ("none", (1, 2, 2, 2)),
        ("host", (1, 1, 1, 1)),
        slow("host", (1, 2, 2, 2)),
        slow("projections", (1, 2, 2, 2)),
        slow("none", (1, 1, 1, 1)),
    ],
)
def test_what_is_computed_again_changes_no_gradient(remat, mesh):
    assert_same_run(run(model__remat=remat, mesh=mesh), baseline())
