"""Decoding with a cache against a loop of full forward passes, and the choice of tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare
from tiny import FLOAT32, forward, make_adapters, make_params

from sft.model import decoder, specs
from sft.model.decode import generate, slots
from sft.model.decode.generate import Sampling, choose

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


def test_one_compilation_per_bucket_and_one_to_write_with_progress():
    sampling, done = Sampling(max_new_tokens=2, stop_ids=(7,)), []
    read = slots.reader(jax.default_backend())
    before = read._cache_size(), slots.advance._cache_size()
    for _ in range(2):
        prompts = make_prompts((2, 5, 7, 8, 9, 16, 11))  # four of up to 8, three of up to 16
        answers = ask("gemma3", prompts, sampling, batch_size=2, bucket=8, on_batch=done.append)
        assert len(answers) == 7
    assert (read._cache_size(), slots.advance._cache_size()) == (before[0] + 2, before[1] + 1)
    assert sum(done) == 14 and max(done) <= 2


def test_padding_is_little_and_shapes_are_few():
    lengths = np.arange(1, 5000)
    padded = np.array([generate.padded(int(n), 32) for n in lengths])
    assert np.all((padded >= lengths) & (padded % 32 == 0))
    assert np.all(padded - lengths < np.maximum(32, lengths / 8))
    assert len(set(padded[:512])) == 16 and len(set(padded[512:4096])) == 24


def test_rows_are_refilled_before_the_longest_answer_ends(greedy, monkeypatch):
    family, expected = greedy
    stops = expected[0][11], expected[1][5]
    cut = [expected[0][:11], expected[1][:5], *expected[2:]]
    assert not any(set(stops) & set(answer) for answer in cut)
    left, advance = [], slots.advance

    def watched(*args):
        state = advance(*args)
        left.append(int(np.sum(np.asarray(state.live_B))))
        return state

    monkeypatch.setattr(slots, "advance", watched)
    sampling = Sampling(max_new_tokens=NEW, stop_ids=stops)
    assert ask(family, PROMPTS, sampling, batch_size=2, bucket=32) == cut
    # From the longest prompt on, answers have 20, 5, 20, 11 and 20 tokens: the second row is given
    # to the third prompt while the first goes on.
    assert left == [1, 1, 1, 0]


def test_an_answer_ends_soon_after_it_is_done(greedy):
    family, expected = greedy
    wanted = expected[2][5]
    answers = ask(family, PROMPTS, is_done=lambda ids: wanted in ids)
    for answer, whole in zip(answers, expected, strict=True):
        end = whole.index(wanted) + 1 if wanted in whole else NEW
        assert answer == whole[: len(answer)]
        assert end <= len(answer) <= min(end + generate.LOOK, NEW)


def test_sampled_answers_do_not_depend_on_batch_size():
    sampling = Sampling(max_new_tokens=6, stop_ids=(-1,), temperature=1.0, top_k=20)
    answers = [ask("gemma3", PROMPTS, sampling, batch_size=n, seed=3) for n in (1, 4)]
    assert answers[0] == answers[1] and len(set(map(tuple, answers[0]))) == len(PROMPTS)


def test_equal_prompts_are_sampled_apart():
    sampling = Sampling(max_new_tokens=6, stop_ids=(-1,), temperature=1.0)
    answers = ask("gemma3", [PROMPTS[0]] * 4, sampling)
    assert len(set(map(tuple, answers))) == 4


def test_no_prompts_no_answers():
    assert ask("gemma3", []) == []


def test_float32_masters_are_used_as_they_are_rounded_where_they_are_used():
    """Full tuning keeps float32 weights and computes in bfloat16: casting them before or in each
    step must not change an answer."""
    spec, _, params, _ = setting("gemma3")
    options = decoder.Options(dtype=jnp.bfloat16)
    rounded = {
        key: value if "norm" in key else jax.tree.map(lambda x: x.astype(jnp.bfloat16), value)
        for key, value in params.items()
        if key != "layers"
    }
    rounded["layers"] = {
        key: x if "norm" in key else x.astype(jnp.bfloat16) for key, x in params["layers"].items()
    }
    one, other = (
        generate.generate(spec, options, NO_STOP, tree, None, PROMPTS, batch_size=3)
        for tree in (params, rounded)
    )
    assert one == other


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
