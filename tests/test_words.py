import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tokenizer import LITERALS, LITERALS_4, gemma3, golden, tiny_pieces

from sft.data.tokenizer import sentencepiece as tokenizer_lib
from sft.data.tokenizer import words
from sft.data.tokenizer.sentencepiece import NORMAL, USER_DEFINED, Tokenizer
from sft.errors import UserError

SPACES = [" ", "  ", "     ", "\n", "\n\n\n\n\n\n", "\t", "\r\n", "▁", "▁▁", "\u3000", "\u00a0"]
MARKUP = [">", "</", "> </", ">▁</", ">  </", "</b> </b>"]
LETTERS = ["a", "an", "in", "user", "日", "é", "\U0001f469\u200d\U0001f467", "\0"]
PARTS = st.sampled_from([*SPACES, *MARKUP, *LETTERS, *LITERALS, *LITERALS_4])
TEXTS = st.lists(PARTS | st.text(max_size=4), max_size=12).map("".join)


def with_pieces(*pieces, kind=NORMAL, changes=None) -> Tokenizer:
    """A tiny tokenizer with more pieces, as SentencePiece spells them, merged first."""
    rows = [*tiny_pieces(), *[(piece, 9.0 - i, kind) for i, piece in enumerate(pieces)]]
    model = tokenizer_lib._schema().ModelProto.FromString(tokenizer_lib._model_proto(rows))
    for name, value in (changes or {}).items():
        setattr(model.normalizer_spec, name, value)
    return Tokenizer(model.SerializeToString())


# The published vocabulary has this one piece that reaches over a space, and what it is made of.
KNOWN = with_pieces("</", "▁</", ">▁</", "▁in", "▁us", "▁user", "日日")


@settings(deadline=None)
@given(TEXTS)
def test_cut_text_has_the_ids_of_the_whole(text):
    assert KNOWN._words is not None
    found = KNOWN.encode_array(text)
    assert found.tolist() == KNOWN.encode(text)
    assert found.dtype == np.int32


@settings(deadline=None)
@given(TEXTS)
def test_cut_text_has_the_ids_of_the_whole_under_the_real_vocabulary(text):
    tokenizer = gemma3()
    assert tokenizer._words is not None
    assert tokenizer.encode_array(text).tolist() == tokenizer.encode(text)


def test_the_published_strings_are_equal():
    tokenizer, rows = gemma3(), golden("tokenizer_gemma3.jsonl.gz")
    assert all(tokenizer.encode_array(row["text"]).tolist() == row["ids"] for row in rows)


def test_the_known_crossing_is_met_and_kept_together():
    crossing = KNOWN._processor.piece_to_id(">▁</")
    assert crossing in KNOWN.encode("<us> </us>")
    assert KNOWN.encode_array("<us> </us> </us>").tolist() == KNOWN.encode("<us> </us> </us>")
    assert words.find_words("x <b> </b> y > z\n\n  w ") == [
        *("x", " <b> </b>", " y", " >", " z", "\n\n", "  w", " ")
    ]


@pytest.mark.parametrize("piece", ["n▁a", "\n▁", "▁\n", "a\n", "\nb", "a▁", ">▁▁</"])
def test_a_vocabulary_with_another_crossing_is_not_cut(piece):
    tokenizer = with_pieces(piece)
    assert tokenizer._words is None
    text = f"an a\n an{piece}b \nan n an {piece}"
    assert tokenizer.encode_array(text).tolist() == tokenizer.encode(text)


def test_runs_of_mixed_white_space_are_not_cut_either():
    tokenizer = with_pieces("\n▁▁", kind=USER_DEFINED)
    assert tokenizer._words is None
    assert tokenizer.encode_array("a\n  b").tolist() == tokenizer.encode("a\n  b")


def test_pieces_that_text_cannot_produce_do_not_matter():
    assert with_pieces("<x y>".replace(" ", "▁"), kind=USER_DEFINED)._words is not None


def test_cutting_that_vocabulary_would_be_wrong():
    tokenizer = with_pieces("a▁", "a▁b")
    cut = words.Words(tokenizer._processor.encode).encode("a b")
    assert np.frombuffer(cut, np.int32).tolist() != tokenizer.encode("a b")


@pytest.mark.parametrize(
    "changes", [{"add_dummy_prefix": True}, {"remove_extra_whitespaces": True}]
)
def test_a_normalizer_that_changes_text_is_not_cut(changes):
    tokenizer = with_pieces(changes=changes)
    assert tokenizer._words is None
    text = " an  a\n user"
    assert tokenizer.encode_array(text).tolist() == tokenizer.encode(text)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(words, "_MAX_WORDS", 4)
    asked = []
    memo = words.Words(lambda word: asked.append(word) or [len(word)])
    long = "x" * 65
    assert memo.encode(f"a bb a\n {long}") == np.array([1, 3, 2, 1, 66], np.int32).tobytes()
    assert set(memo) == {"a", " bb", " a", "\n"} and f" {long}" in asked
    memo.encode("a bb a")
    assert asked.count("a") == 1
    memo.encode("new")
    assert set(memo) == {"new"}


@pytest.mark.parametrize("text", ["\ud800", "a b\udfffc", "é" * 40 + " \ud83d" + "x" * 40])
def test_half_a_surrogate_pair_is_named(text):
    whole = with_pieces("n▁a")
    for encode in (KNOWN.encode, KNOWN.encode_array, KNOWN.encode_bytes, whole.encode_bytes):
        with pytest.raises(UserError, match=r"half of a surrogate pair, U\+D[89A-F]") as error:
            encode(text)
        assert str(error.value).isprintable() and len(str(error.value)) < 600
    assert KNOWN.encode_array("\U0001f600").tolist() == KNOWN.encode("\U0001f600")
