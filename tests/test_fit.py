import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_chat import talk, tiny_for
from test_examples import equal

from sft.data.batches import truncation as fit_lib
from sft.data.batches.examples import Examples, encode_all
from sft.data.batches.truncation import POLICIES, fit, lost_at
from sft.data.chat import encoding
from sft.data.chat.encoding import ANSWER, CONTEXT, END, PROMPT, SCAFFOLD, SYSTEM, Example
from sft.errors import UserError

COUNTS = ("policy", "max_length", "over", "dropped", "truncated", "lost_trained_tokens", "share")
SOURCES = [f"data.jsonl:{i}" for i in range(1, 40)]

ASKED = st.text(st.sampled_from("ab \n<日"), max_size=9) | st.just("<start_of_turn>user\n<|turn>")
SAID = st.tuples(st.sampled_from("ab日"), ASKED).map("".join)
SYSTEMS = st.none() | st.text(st.sampled_from("S\n "), min_size=1, max_size=6)


@st.composite
def talks(draw):
    exchanges = draw(st.lists(st.tuples(ASKED, SAID), min_size=1, max_size=4))
    texts = [text for pair in exchanges for text in pair]
    context = draw(st.sets(st.integers(0, len(texts) - 2)))
    return talk(*texts, system=draw(SYSTEMS), context=context)


SETS = st.lists(talks(), min_size=1, max_size=5)
FORMATS = st.sampled_from(list(encoding.FORMATS))


def try_fit(examples, max_length, policy):
    """As ``fit``, with nothing left for an error instead of the error."""
    try:
        return fit(examples, max_length, policy, 1.0, SOURCES)
    except UserError as error:
        assert "none is left" in str(error)
        return Examples.from_list([]), np.zeros(0, np.int64), lost_at(examples, max_length, policy)


@settings(deadline=None)
@given(
    SETS, FORMATS, st.sampled_from(encoding.TRAIN_ON), st.sampled_from(POLICIES), st.integers(1, 70)
)
def test_what_is_left_fits_and_the_report_is_exact(conversations, format, train_on, policy, size):
    examples = encode_all(conversations, tiny_for(format), format, train_on)
    left, kept, report = try_fit(examples, size, policy)
    over = np.flatnonzero(examples.lengths - 1 > size)
    assert (left.lengths - 1 <= size).all() and len(left) == len(kept)
    assert (left.trained > 0).all() and (left.trained <= examples.trained[kept]).all()
    assert kept.tolist() == sorted({*kept.tolist()})
    assert set(range(len(examples))) - {*kept} <= {*over}
    for place, row in enumerate(kept):
        if row not in over:
            assert equal(left[place : place + 1], [examples[row]])
    assert report["over"] == len(over) == report["dropped"] + report["truncated"]
    assert report["dropped"] == len(examples) - len(left)
    assert report["lost_trained_tokens"] == examples.trained.sum() - left.trained.sum()
    assert report["share"] == len(over) / len(examples)
    assert {key: report[key] for key in COUNTS} == lost_at(examples, size, policy)
    json.dumps(report)


def shortened(conversation, tokenizer, format, train_on, size) -> Example | None:
    """``truncate_prompt_left`` from its definition: encode with fewer exchanges until it fits."""
    for first in range(0, len(conversation.turns), 2):
        turns = conversation.turns[first:]
        try:
            shorter = dataclasses.replace(conversation, turns=turns)
            found = encoding.encode(shorter, tokenizer, format, train_on)
        except UserError:  # no trained answer is left
            return None
        if len(found.tokens) - 1 <= size:
            return found
    prompt = np.flatnonzero(found.kinds == PROMPT)
    excess = len(found.tokens) - 1 - size
    if excess >= len(prompt):
        return None
    gone = prompt[:excess]
    return Example(np.delete(found.tokens, gone), np.delete(found.kinds, gone))


@settings(deadline=None, max_examples=200)
@given(SETS, FORMATS, st.sampled_from(encoding.TRAIN_ON), st.integers(1, 70))
def test_prompt_left_is_the_encoding_of_the_shorter_conversation(
    conversations, format, train_on, size
):
    tokenizer = tiny_for(format)
    examples = encode_all(conversations, tokenizer, format, train_on)
    left, kept, _ = try_fit(examples, size, "truncate_prompt_left")
    expected = [shortened(c, tokenizer, format, train_on, size) for c in conversations]
    assert kept.tolist() == [i for i, example in enumerate(expected) if example is not None]
    assert equal(left, [example for example in expected if example is not None])


@settings(deadline=None)
@given(SETS, FORMATS, st.integers(1, 70))
def test_response_keeps_the_first_tokens(conversations, format, size):
    examples = encode_all(conversations, tiny_for(format), format)
    left, kept, _ = try_fit(examples, size, "truncate_response")
    cut = [Example(e.tokens[: size + 1], e.kinds[: size + 1]) for e in examples]
    assert kept.tolist() == [i for i, example in enumerate(cut) if example.is_target.any()]
    assert equal(left, [cut[i] for i in kept])


# <bos> <turn> header | text | end newline <turn> header | answer end
KINDS = [SCAFFOLD] * 3 + [PROMPT] * 4 + [SCAFFOLD] * 4 + [ANSWER] * 3 + [END]
TOKENS = [2, 5, 7, 20, 21, 22, 23, 6, 8, 5, 9, 30, 31, 32, 6]
ONE = Example(np.array(TOKENS, np.int32), np.array(KINDS, np.uint8))


def rows(*examples) -> Examples:
    return Examples.from_list(examples)


def test_by_hand():
    short = Example(ONE.tokens[7:], ONE.kinds[7:])
    left, kept, report = fit(rows(short, ONE), 12, "truncate_prompt_left", 0, SOURCES)
    assert left[1].tokens.tolist() == [2, 5, 7, 22, 23, 6, 8, 5, 9, 30, 31, 32, 6]
    assert kept.tolist() == [0, 1]
    assert report == {
        **{"policy": "truncate_prompt_left", "max_length": 12, "over": 1, "dropped": 0},
        **{"truncated": 1, "lost_trained_tokens": 0, "share": 0.5, "examples": ["data.jsonl:2"]},
        **{
            "rows": 2,
            "longest": 14,
            "longest_at": "data.jsonl:2",
            "holds": {"most": 16, "all": 16},
        },
    }
    left, _, report = fit(rows(short, ONE), 12, "truncate_response", 0, SOURCES)
    assert left[1].tokens.tolist() == TOKENS[:13] and left[1].kinds.tolist() == KINDS[:13]
    assert report["lost_trained_tokens"] == 2
    left, kept, report = fit(rows(short, ONE, short), 12, "drop", 0, SOURCES)
    assert kept.tolist() == [0, 2] and equal(left, [short, short])
    assert (report["dropped"], report["lost_trained_tokens"]) == (1, 4)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_last_token_needs_no_place(policy):
    """15 tokens fit 14 places, and come back as they are."""
    given_rows = rows(ONE)
    left, kept, report = fit(given_rows, 14, policy, 0.0, SOURCES)
    assert left is given_rows and kept.tolist() == [0] and report["over"] == 0
    assert lost_at(given_rows, 13, policy)["over"] == 1


def test_a_prompt_keeps_a_token():
    left, _, _ = fit(rows(ONE), 11, "truncate_prompt_left", 0, SOURCES)
    assert left[0].tokens.tolist() == [2, 5, 7, 23, 6, 8, 5, 9, 30, 31, 32, 6]
    assert lost_at(rows(ONE), 10, "truncate_prompt_left")["dropped"] == 1


def test_the_system_instruction_moves_to_the_first_turn_that_is_left():
    tokenizer = tiny_for("gemma3")
    long = talk("a " * 30, "an", "in", "user", system="S")
    examples = encode_all([long], tokenizer, "gemma3")
    left, _, report = fit(examples, 20, "truncate_prompt_left", 0, SOURCES)
    assert equal(left, [encoding.encode(talk("in", "user", system="S"), tokenizer, "gemma3")])
    assert (left.kinds == SYSTEM).sum() == 2
    assert report["lost_trained_tokens"] == len(tokenizer.encode("an")) + 1


def test_context_only_rows_that_lose_their_trained_answer_are_dropped():
    kinds = np.where(ONE.kinds >= ANSWER, CONTEXT, ONE.kinds).astype(np.uint8)
    kinds[-1] = END
    report = lost_at(rows(Example(ONE.tokens, kinds)), 13, "truncate_response")
    assert (report["dropped"], report["truncated"], report["lost_trained_tokens"]) == (1, 0, 1)


def test_error_allows_a_share():
    short = Example(ONE.tokens[7:], ONE.kinds[7:])
    examples = rows(short, short, short, ONE)
    left, kept, report = fit(examples, 10, "error", 0.25, SOURCES)
    assert kept.tolist() == [0, 1, 2] and len(left) == 3 and report["dropped"] == 1
    with pytest.raises(UserError) as error:
        fit(examples, 10, "error", 0.24, SOURCES)
    assert str(error.value) == (
        "config.data.max_length = 10: 1 of 4 examples are longer (the longest, data.jsonl:4, needs "
        "14); config.data.max_over_long = 0.24 of the rows may be. max_length = 16 holds all. "
        "Raise it, or set config.data.over_long to one of drop, truncate_prompt_left, "
        "truncate_response."
    )


def test_nothing_left_and_unknown_policies_are_errors():
    with pytest.raises(
        UserError, match=r"over_long = 'drop' none is left\. max_length = 16 holds all\."
    ):
        fit(rows(ONE, ONE), 3, "drop", 0, SOURCES)
    with pytest.raises(UserError, match="over_long = 'cut': expected one of"):
        lost_at(rows(ONE), 3, "cut")


@pytest.mark.parametrize(
    ("needed", "max_length", "most", "every"),
    [
        ([], 512, 1024, 1024),
        ([3, 9], 512, 1024, 1024),  # all fit: the next length
        ([512, 513], 512, 1024, 1024),
        ([1024], 512, 1024, 1024),
        ([1025], 512, 2048, 2048),
        ([100] * 99 + [70_000], 64, 128, 131_072),
        ([100] * 98 + [300, 70_000], 64, 512, 131_072),
        ([40], 24, 64, 64),
    ],
)
def test_the_lengths_that_would_do(needed, max_length, most, every):
    lengths = np.array(needed, np.int64) + 1
    found = fit_lib.holding(lengths, max_length)
    assert found == {"most": most, "all": every}
    shares = [np.mean(lengths - 1 <= length) if needed else 1 for length in found.values()]
    assert shares[0] >= 0.99 and shares[1] == 1
    said = fit_lib.held(found)
    assert said.startswith(f"max_length = {most:,} holds") and f"{every:,}" in said


def test_cutting_loses_what_it_must_and_refusing_comes_after():
    examples = rows(ONE, ONE)
    left, kept, report = fit_lib.cut(examples, 3, "error", SOURCES)
    assert len(left) == len(kept) == 0 and report["dropped"] == 2
    with pytest.raises(UserError, match="over_long = 'error' none is left"):
        fit_lib.refuse(report, 1.0)
    fit_lib.refuse(fit_lib.cut(examples, 14, "error", SOURCES)[2], 0.0)


def test_no_examples_and_few_names():
    left, kept, report = fit(rows(), 5, "error", 0, [])
    assert len(left) == len(kept) == 0 and report["share"] == 0
    _, _, report = fit(rows(*[ONE] * 30), 12, "truncate_response", 0, SOURCES)
    assert report["over"] == 30 and report["examples"] == SOURCES[:20]
