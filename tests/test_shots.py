"""Examples in the prompt: which rows, in which words, and how many fit."""

import dataclasses

import numpy as np
import pytest
import test_tokenizer
import tiny_run
from tiny import make_config

from sft.data.chat.encoding import encode_prompt
from sft.data.conversation import Conversation, Turn
from sft.data.sets import loading
from sft.errors import UserError
from sft.eval import shots

TOK = test_tokenizer.tiny()


def talk(*texts: str, system: str | None = None, source: str = "f:1") -> Conversation:
    roles = ("user", "model") * len(texts)
    return Conversation(
        tuple(Turn(r, t) for r, t in zip(roles, texts, strict=False)), system, source
    )


TRAIN = [talk(f"q{i}", f"a{i}", source=f"t:{i}") for i in range(20)]
ASKED = [talk(f"ask {i}", f"say {i}", source=f"e:{i}") for i in range(12)]


def control(piece: str) -> int:
    return int(np.frombuffer(TOK.control_bytes(piece), np.int32)[0])


def put(train, evaluated, k=3, limit=2048, seed=0):
    config = make_config(eval__shots=k, eval__shots_max_length=limit, seed=seed)
    return shots.put(config, tiny_run.SPEC, TOK, train, evaluated)


def sources(shot: Conversation) -> list[str]:
    return [turn.text for turn in shot.turns[:-2:2]]


def test_examples_are_earlier_turns_of_the_same_chat():
    (made,) = put(TRAIN, ASKED[:1], k=2).conversations
    assert made.turns[-2:] == ASKED[0].turns and made.source == "e:0"
    pairs = [tuple(turn.text for turn in made.turns[i : i + 2]) for i in (0, 2)]
    assert len(set(pairs)) == 2 and set(pairs) <= {(f"q{i}", f"a{i}") for i in range(20)}
    config = make_config()
    (ids,) = loading.prompts(config, tiny_run.SPEC, TOK, [made])
    (q1, a1), (q2, a2) = pairs
    bos, start, end = map(control, ("<bos>", "<start_of_turn>", "<end_of_turn>"))
    said = [("user", q1), ("model", a1), ("user", q2), ("model", a2), ("user", "ask 0")]
    expected = [bos]
    for role, text in said:
        expected += [start, *TOK.encode(f"{role}\n"), *TOK.encode(text), end, *TOK.encode("\n")]
    assert ids.tolist() == [*expected, start, *TOK.encode("model\n")]


def test_no_examples_is_the_prompt_itself():
    assert put(TRAIN, ASKED, k=0).conversations == ASKED


def test_the_draw_is_of_the_seed_and_the_prompt_alone():
    whole = put(TRAIN, ASKED).conversations
    assert put(TRAIN, ASKED[::-1]).conversations == whole[::-1]
    assert put(TRAIN, ASKED[4:5]).conversations == whole[4:5]
    assert put(TRAIN, ASKED, seed=1).conversations != whole
    other = dataclasses.replace(ASKED[0], turns=(ASKED[0].turns[0], Turn("model", "other")))
    assert sources(put(TRAIN, [other]).conversations[0]) == sources(whole[0])  # not of the answer
    assert all(len(set(sources(shot))) == 3 for shot in whole)
    assert len({tuple(sources(shot)) for shot in whole}) > 6  # each prompt has its own


def test_all_rows_are_drawn_about_as_often():
    asked = [talk(f"n {i}", "x") for i in range(400)]
    drawn = [text for shot in put(TRAIN, asked, k=5).conversations for text in sources(shot)]
    counts = [drawn.count(f"q{i}") for i in range(20)]
    assert sum(counts) == 2000
    # Chi-square with 19 degrees of freedom is below 43.8 with probability 0.999.
    assert sum((count - 100) ** 2 / 100 for count in counts) < 43.8


GIVES_AWAY = [
    talk("Ask  0!", "other"),
    talk("ask 0", "say 0", "more", "b", system="s"),
    talk("ASK 0", "say 0"),
    talk("ask 0", "x", "and then", "y"),
]
TELLS_NOTHING = [talk("ask 00", "say 0"), talk("other", "say 0"), talk("first", "a", "ask 0", "b")]


def test_rows_that_say_what_is_evaluated_are_never_drawn():
    rows = [*GIVES_AWAY, *TELLS_NOTHING]
    assert shots.apart(rows, [ASKED[0]]) == TELLS_NOTHING
    assert shots.apart([*TRAIN, *ASKED], ASKED) == TRAIN
    # Not even before other prompts than their own.
    made = put([*ASKED, *TRAIN[:3]], ASKED, k=3)
    assert made.excluded == 12
    assert {text for shot in made.conversations for text in sources(shot)} == {"q0", "q1", "q2"}
    with pytest.raises(UserError, match="shots = 3: only 2 of 14 training rows are not among"):
        put([*ASKED, *TRAIN[:2]], ASKED, k=3)


def test_longer_conversations_open_like_what_they_continue():
    asked = talk("hi", "yes?", "the question", "the answer")
    assert shots.apart([talk("hi", "yes?", "the question", "x")], [asked]) == []
    assert shots.apart([talk("hi", "x")], [asked]) == []  # its first turn is asked too
    assert len(shots.apart([talk("the question", "x")], [asked])) == 1


@pytest.mark.parametrize(
    "mine, own, first",
    [
        *((None, None, "q"), ("s", "s", "q"), ("s", None, "q")),
        *((None, "s", "s\n\nq"), ("s", "t", "t\n\nq")),
    ],
)
def test_system_instructions(mine, own, first):
    made = shots.before([talk("q", "a", system=own)], talk("p", "b", system=mine))
    assert made.system == mine and made.turns[0].text == first
    assert [turn.role for turn in made.turns] == ["user", "model"] * 2
    # Gemma 3 itself writes an instruction in front of the first prompt, with a blank line.
    if mine is None and own:
        as_written = talk("q", "a", "p", "b", system=own)
        ours, theirs = (encode_prompt(c, TOK, "gemma3") for c in (made, as_written))
        assert ours.tolist() == theirs.tolist()


def test_what_does_not_fit_is_left_out_and_counted():
    whole = put(TRAIN, ASKED)
    assert whole.report == {"excluded": 0, "shortened": 0, "left_out": 0}
    config = make_config()
    for kept in (3, 2, 1, 0):
        parts = [
            dataclasses.replace(shot, turns=shot.turns[: 2 * kept] + shot.turns[-2:])
            for shot in whole.conversations
        ]
        lengths = [len(ids) for ids in loading.prompts(config, tiny_run.SPEC, TOK, parts)]
        made = put(TRAIN, ASKED, limit=max(lengths))
        fits = [len(shot.turns) // 2 - 1 for shot in made.conversations]
        assert min(fits) == kept or max(lengths) == min(lengths)
        assert made.left_out == sum(3 - n for n in fits)
        assert made.shortened == sum(n < 3 for n in fits)
        for shot, full in zip(made.conversations, whole.conversations, strict=True):
            n = len(shot.turns) // 2 - 1
            assert shot.turns == full.turns[: 2 * n] + full.turns[-2:]
    assert put(TRAIN, ASKED, limit=1).report == {"excluded": 0, "shortened": 12, "left_out": 36}
    assert put(TRAIN, ASKED, limit=1).conversations == ASKED
