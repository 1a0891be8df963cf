"""Every implementation of attention against the float32 reference, values and gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from sft.errors import UserError
from sft.mesh import sharding
from sft.model import attention, specs

L, H = 256, 32
WINDOWS = (40, None, 2)
MESHES = ((2, 2, 1, 2), (2, 1, 2, 2), (1, 2, 2, 2))


def packed(rng, rows):
    """Positions and segments of rows of several segments, the last of which is padding."""
    positions, segments = np.zeros((2, rows, L), np.int32)
    for row in range(rows):
        cuts = np.sort(rng.choice(np.arange(1, L), 3, replace=False))
        for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, L], strict=True), start=1):
            positions[row, start:stop] = np.arange(stop - start)
            segments[row, start:stop] = number if stop < L or row == 0 else 0
        if row:  # as batches have it
            positions[row, segments[row] == 0] = 0
    return positions, segments


def case(rows=2, heads=4, kv_heads=2, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda n: jnp.array(rng.normal(size=(rows, L, n, H)), jnp.float32)  # noqa: E731
    positions, segments = packed(rng, rows)
    return (draw(heads), draw(kv_heads), draw(kv_heads)), positions, segments


def both(name, qkv, positions, segments, kind, softcap, mesh=None):
    """Output and the gradients of a sum that weights every trained entry differently."""
    attend = attention.make(name, WINDOWS, softcap, positions, segments, mesh)
    weights = jnp.sin(jnp.arange(qkv[0].size, dtype=jnp.float32)).reshape(qkv[0].shape)
    weights *= (jnp.asarray(segments) > 0)[..., None, None]  # padding reaches no loss

    @jax.jit
    def run(*qkv):
        out = attend(jnp.int32(kind), *qkv)
        return jnp.sum(out * weights), out

    gradients, out = jax.grad(run, argnums=(0, 1, 2), has_aux=True)(*qkv)
    return out[jnp.asarray(segments) > 0], gradients


def assert_same(found, expected):
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("kv_heads", "kind", "softcap"),
    [(2, 0, None), (2, 1, None), (2, 2, None), (1, 0, 2.0), (4, 1, 2.0)],
)
def test_splash_equals_the_reference(kv_heads, kind, softcap):
    given = *case(kv_heads=kv_heads), kind, softcap
    expected, found = (both(name, *given) for name in ("reference", "splash"))
    assert_same(found, expected)


@pytest.mark.parametrize("name", ["reference", "splash"])
@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize(
    "shape", [(2, 2, 2, 1), *(pytest.param(s, marks=pytest.mark.slow) for s in MESHES)]
)
def test_on_a_mesh_it_is_the_same(name, kind, shape):
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(shape), sharding.AXES)
    given = *case(rows=4), kind, None
    expected, found = both("reference", *given), both(name, *given, mesh=mesh)
    assert_same(found, expected)


def test_cudnn_is_asked_for_the_same(monkeypatch):
    """The kernel needs a GPU; here its arguments go to XLA's version of the same function."""
    fused = jax.nn.dot_product_attention
    asked = []

    def on_xla(*args, implementation, **kwargs):
        asked.append(implementation)
        return fused(*args, implementation="xla", **kwargs)

    monkeypatch.setattr(jax.nn, "dot_product_attention", on_xla)
    given = *case(), 0, None
    expected, found = both("reference", *given), both("cudnn", *given)
    assert set(asked) == {"cudnn"}
    assert_same(found, expected)


GEMMA2, GEMMA3 = specs.get("gemma2_2b"), specs.get("gemma3_1b")


@pytest.mark.parametrize(
    ("name", "platform", "spec", "chosen"),
    [
        ("", "cpu", GEMMA3, "reference"),
        ("", "tpu", GEMMA3, "splash"),
        ("", "tpu", GEMMA2, "splash"),
        ("", "gpu", GEMMA3, "cudnn"),
        ("", "gpu", GEMMA2, "reference"),
        ("splash", "cpu", GEMMA3, "splash"),
        ("reference", "tpu", GEMMA3, "reference"),
    ],
)
def test_the_platform_chooses_and_the_configuration_overrides(name, platform, spec, chosen):
    assert attention.choose(name, platform, spec, 512) == chosen


@pytest.mark.parametrize(
    ("name", "platform", "spec", "length", "words"),
    [
        ("", "tpu", GEMMA3, 500, "chosen by platform.*max_length = 500 tokens, expected a multi"),
        ("splash", "tpu", dataclasses.replace(GEMMA3, head_dim=64), 512, "heads of 64"),
        ("splash", "gpu", GEMMA3, 512, "asked for.*a TPU kernel"),
        ("cudnn", "tpu", GEMMA3, 512, "a GPU kernel.*'tpu'"),
        ("cudnn", "gpu", GEMMA2, 512, "no soft cap"),
    ],
)
def test_what_cannot_serve_is_refused(name, platform, spec, length, words):
    with pytest.raises(UserError, match=words) as error:
        attention.choose(name, platform, spec, length)
    assert "model.attention = 'reference'" in str(error.value)


def test_parts_of_rows_are_counted():
    assert attention.choose("", "tpu", GEMMA3, 512, spans=4) == "splash"
    assert attention.multiple("splash", 4) == 512 and attention.multiple("reference", 4) == 4
    with pytest.raises(UserError, match="512 tokens, expected a multiple of 1024"):
        attention.choose("", "tpu", GEMMA3, 512, spans=8)
    with pytest.raises(UserError, match=r"rows divided among devices \(config.mesh.sequence = 2\)"):
        attention.choose("", "gpu", GEMMA3, 512, spans=2)
