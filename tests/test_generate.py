"""Decoding with a cache against a loop of full forward passes, and the choice of tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare
from tiny import FLOAT32, forward, make_adapters, make_params

from sft.model import decoder, generate, specs
from sft.model.generate import Sampling, choose

NEW = 20  # two and a half windows of the tiny models
FAMILIES = ("gemma2", "gemma3")
NO_STOP = Sampling(max_new_tokens=NEW, stop_ids=(-1,))


def make_prompts(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 256, n).astype(np.int32) for n in lengths]


PROMPTS = make_prompts((3, 17, 1, 9, 30))
BUCKETS = {"batch_size": 3, "bucket": 16}


def setting(family):
    spec = specs.tiny(family)
    return spec, FLOAT32, make_params(spec), make_adapters(spec)


def ask(family, prompts, sampling=NO_STOP, **options):
    spec, run_options, params, adapters = setting(family)
    return generate.generate(
        spec, run_options, sampling, params, adapters, prompts, **(BUCKETS | options)
    )


def argmax_loop(family, prompts):
    """Greedy answers without a cache: the whole forward pass again for each token."""
    spec, options, params, adapters = setting(family)
    width = max(map(len, prompts)) + NEW
    tokens_BxL = np.zeros((len(prompts), width), np.int32)
    ends_B = np.array([len(p) for p in prompts])
    for row, prompt in enumerate(prompts):
        tokens_BxL[row, : len(prompt)] = prompt
    answers = []
    for _ in range(NEW):
        segments_BxL = (np.arange(width) < ends_B[:, None]).astype(np.int32)
        hidden_BxLxD = forward(
            spec, params, adapters, tokens_BxL, np.arange(width) * segments_BxL, segments_BxL,
            options,
        )  # fmt: skip
        last_BxD = hidden_BxLxD[np.arange(len(prompts)), ends_B - 1]
        new_B = np.argmax(decoder.logits(spec, params, last_BxD), axis=-1)
        tokens_BxL[np.arange(len(prompts)), ends_B] = new_B
        ends_B = ends_B + 1
        answers.append(new_B)
    return np.array(answers).T.tolist()


@pytest.fixture(scope="module", params=FAMILIES)
def greedy(request):
    """A family, and the greedy answers of the loop."""
    return request.param, argmax_loop(request.param, PROMPTS)


def test_greedy_equals_the_loop_without_a_cache(greedy):
    family, expected = greedy
    assert len(set(map(tuple, expected))) == len(PROMPTS)
    assert ask(family, PROMPTS) == expected


def test_batch_size_order_and_padding_do_not_change_greedy_answers(greedy):
    family, expected = greedy
    assert ask(family, PROMPTS[::-1], batch_size=4, bucket=40) == expected[::-1]
    assert ask(family, PROMPTS[1:2], batch_size=1) == expected[1:2]


def test_an_answer_ends_before_its_first_stop_token(greedy):
    family, expected = greedy
    stops = (expected[0][4], expected[1][9])
    sampling = Sampling(max_new_tokens=NEW, stop_ids=stops)
    cut = [
        answer[: next((i for i, token in enumerate(answer) if token in stops), NEW)]
        for answer in expected
    ]
    assert len(cut[0]) <= 4 and len({len(answer) for answer in cut}) > 1
    assert ask(family, PROMPTS, sampling) == cut


def test_the_cap_counts_new_tokens(greedy):
    family, expected = greedy
    sampling = Sampling(max_new_tokens=1, stop_ids=(-1,))
    assert ask(family, PROMPTS[:3], sampling) == [answer[:1] for answer in expected[:3]]


def test_temperature_seed_and_filters():
    def sampled(seed=0, **options):
        sampling = Sampling(max_new_tokens=NEW, stop_ids=(-1,), **options)
        return ask("gemma3", PROMPTS[:3], sampling, seed=seed)

    cold = sampled()
    warm = sampled(temperature=1.0)
    assert warm != cold
    assert sampled(temperature=1.0) == warm
    assert sampled(seed=1, temperature=1.0) != warm
    assert sampled(seed=1) == cold
    assert sampled(temperature=1.0, top_k=1) == cold
    assert sampled(temperature=1.0, top_p=1e-6) == cold


LOGITS_V = np.log(np.array([0.04, 0.3, 0.1, 0.25, 0.01, 0.2, 0.1]))


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"temperature": 1.0}, range(7)),
        ({"temperature": 2.0}, range(7)),
        ({"temperature": 0.5, "top_k": 3}, (1, 3, 5)),
        ({"temperature": 1.0, "top_p": 0.5}, (1, 3)),  # 0.3 is not enough, 0.55 is
        ({"temperature": 1.0, "top_p": 0.6}, (1, 3, 5)),
        ({"temperature": 1.0, "top_p": 0.3 - 1e-4}, (1,)),
        ({"temperature": 1.0, "top_k": 3, "top_p": 0.7}, (1, 3)),  # 0.73 of what the three share
        ({"temperature": 1.0, "top_p": 0.0}, (1,)),
    ],
)
def test_samples_follow_the_filtered_softmax(options, kept):
    kept, rows = list(kept), 20_000
    sampling = Sampling(max_new_tokens=1, stop_ids=(0,), **options)
    logits_BxV = jnp.broadcast_to(jnp.asarray(LOGITS_V, jnp.float32), (rows, 7))
    tokens_B = np.asarray(choose(logits_BxV, sampling, jax.random.key(0)))
    counts_V = np.bincount(tokens_B, minlength=7)
    assert tokens_B.dtype == np.int32
    assert counts_V[kept].sum() == rows
    p = np.exp(LOGITS_V[kept] / options["temperature"])
    if len(kept) > 1:
        assert chisquare(counts_V[kept], rows * p / p.sum()).pvalue > 1e-3


def test_rows_are_sampled_apart():
    logits_BxV = jnp.zeros((64, 50))
    sampling = Sampling(max_new_tokens=1, stop_ids=(0,), temperature=1.0)
    assert len(np.unique(choose(logits_BxV, sampling, jax.random.key(0)))) > 20


def test_one_compilation_per_bucket_and_progress():
    sampling, done = Sampling(max_new_tokens=2, stop_ids=(7,)), []
    before = generate.decode._cache_size()
    for seed in (0, 1):
        prompts = make_prompts((2, 5, 7, 8, 9, 16, 11), seed)  # four of up to 8, three of up to 16
        answers = ask(
            "gemma3", prompts, sampling, batch_size=2, bucket=8, seed=seed, on_batch=done.append
        )
        assert len(answers) == 7
    assert generate.decode._cache_size() == before + 2
    assert done == [2, 2, 2, 1] * 2


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_the_gemma_package_with_its_cache(family):
    from gemma import gm
    from test_parity import gemma_model
    from weight_layouts import flat_gemma, nest

    spec, options, params, _ = setting(family)
    transposed = family == "gemma3"
    model = gemma_model(gm, spec, transposed)
    tree = flat_gemma(spec, jax.tree.map(np.asarray, params), transposed)
    theirs_params = {"params": jax.tree.map(jnp.asarray, nest(tree))}
    prompts_BxL = np.stack(make_prompts((11, 11), seed=3))
    slots = prompts_BxL.shape[1] + NEW
    cache = model.config.init_cache(2, jnp.float32, cache_length=slots)
    tokens_BxL, start, answers = jnp.asarray(prompts_BxL), 0, []
    for _ in range(NEW):
        positions_L = start + jnp.arange(tokens_BxL.shape[1])
        mask_LxM = jnp.arange(slots) <= positions_L[:, None]
        out = model.apply(
            theirs_params,
            tokens_BxL,
            positions=jnp.broadcast_to(positions_L, tokens_BxL.shape),
            cache=cache,
            attention_mask=jnp.broadcast_to(mask_LxM, (2, *mask_LxM.shape)),
        )
        start, cache = start + tokens_BxL.shape[1], out.cache
        tokens_BxL = jnp.argmax(out.logits[:, -1:], axis=-1)
        answers.append(tokens_BxL[:, 0].tolist())
    ours = generate.generate(spec, options, NO_STOP, params, None, list(prompts_BxL), batch_size=2)
    assert ours == np.array(answers).T.tolist()
