import concurrent.futures
import dataclasses
import mmap
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_chat import talk
from test_tokenizer import tiny

from sft.data.batches import examples
from sft.data.batches.examples import Examples, encode_all
from sft.data.chat import encoding
from sft.data.chat.encoding import ANSWER, END, PROMPT, Example
from sft.errors import UserError

TALKS = [
    talk("a b", "user"),
    talk("an\n\nin", "the model", "é日", "x " * 40, system="S"),
    talk("<end_of_turn>", "  tu  ", system="日"),
    talk("a", "b", "c", "d", context=[1]),
]


def equal(found: Examples, expected) -> bool:
    """Same examples, one by one."""
    return len(found) == len(expected) and all(
        np.array_equal(a.tokens, b.tokens) and np.array_equal(a.kinds, b.kinds)
        for a, b in zip(found, expected, strict=True)
    )


def one_by_one(talks=TALKS, format="gemma3", train_on="all", tokenizer=None):
    return [encoding.encode(talk, tokenizer or tiny(), format, train_on) for talk in talks]


def no_encoding(*_):
    raise AssertionError("encoded although it was in the cache")


LISTS = st.lists(st.lists(st.sampled_from([PROMPT, ANSWER, END]), max_size=5), max_size=6)


@given(LISTS, st.data())
def test_flat_arrays_behave_as_the_list(kinds, data):
    made = [
        Example(np.arange(len(row), dtype=np.int32) + 10 * i, np.array(row, np.uint8))
        for i, row in enumerate(kinds)
    ]
    found = Examples.from_list(made)
    assert equal(found, made) and equal(found[1:4], made[1:4]) and equal(found[::-1], made[::-1])
    assert found.lengths.tolist() == [len(e.tokens) for e in made]
    assert found.trained.tolist() == [int(e.is_target.sum()) for e in made]
    assert (found.tokens.dtype, found.kinds.dtype, found.starts.dtype) == (
        *(np.int32, np.uint8, np.int64),
    )
    if made:
        chosen = data.draw(st.lists(st.integers(-len(made), len(made) - 1), max_size=8))
        assert equal(found.select(chosen), [made[i] for i in chosen])
        assert found.select(chosen).trained.tolist() == found.trained[chosen].tolist()


def test_examples_are_views_and_indices_are_checked():
    found = Examples.from_list(one_by_one())
    assert np.shares_memory(found[2].tokens, found.tokens)
    assert np.array_equal(found[-1].tokens, found[3].tokens)
    assert np.array_equal(found[np.int64(1)].kinds, found[1].kinds)
    for index in (4, -5):
        with pytest.raises(IndexError):
            found[index]


@pytest.mark.parametrize("format", encoding.FORMATS)
@pytest.mark.parametrize("train_on", encoding.TRAIN_ON)
def test_all_at_once_equals_one_by_one(format, train_on):
    tokenizer = tiny("gemma4" if "4" in format else format)
    found = encode_all(TALKS, tokenizer, format, train_on)
    assert equal(found, one_by_one(TALKS, format, train_on, tokenizer))
    assert (found.tokens.dtype, found.kinds.dtype, found.starts.dtype) == (
        *(np.int32, np.uint8, np.int64),
    )


def test_no_conversations(tmp_path):
    found = encode_all([], tiny(), "gemma3", cache=str(tmp_path))
    assert len(found) == 0 and found.trained.shape == (0,) and [*tmp_path.iterdir()] == []


def test_errors_name_the_row():
    bad = dataclasses.replace(talk("a", " "), source="b.jsonl:9")
    with pytest.raises(UserError, match=r"b\.jsonl:9: turn 2: the answer has no text"):
        encode_all([*TALKS, bad], tiny(), "gemma3")


def test_a_second_call_reads_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert equal(encode_all(TALKS, tiny(), "gemma3", cache="~/c"), one_by_one())
    monkeypatch.setattr(encoding, "render", no_encoding)
    elsewhere = [dataclasses.replace(t, source="moved:1", group="g") for t in TALKS]
    found = encode_all(elsewhere, tiny(), "gemma3", cache="~/c")
    monkeypatch.undo()
    assert equal(found, one_by_one())
    base = found.tokens
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, mmap.mmap)
    assert [len([*entry.iterdir()]) for entry in (tmp_path / "c").iterdir()] == [4]


def test_whatever_decides_the_ids_decides_the_key():
    same = [talk("a", "b", "c", "d")]
    others = [
        [talk("a", "b")],
        [talk("ab", "", "c", "d")],
        [talk("a", "bc", "", "d")],
        [talk("a", "b", "c", "d", system="")],
        [talk("", "b", "c", "d", system="a")],
        [talk("a", "b", "c", "d", context=[1])],
        [talk("a", "b"), talk("c", "d")],
        [talk("c", "d"), talk("a", "b")],
        [talk("a", "b", "c", "d"), *same],
    ]
    keys = [examples._content_hash(talks, tiny(), "gemma3", "all") for talks in [same, *others]]
    keys += [
        examples._content_hash(same, tiny("gemma2"), "gemma3", "all"),
        examples._content_hash(same, tiny(), "gemma2", "all"),
        examples._content_hash(same, tiny(), "gemma3", "last"),
    ]
    assert len(set(keys)) == len(keys) == 13
    assert keys[0] == examples._content_hash(same, tiny(), "gemma3", "all")


def test_the_key_tells_another_version(monkeypatch):
    before = examples._content_hash(TALKS, tiny(), "gemma3", "all")
    monkeypatch.setattr(examples, "VERSION", examples.VERSION + 1)
    assert examples._content_hash(TALKS, tiny(), "gemma3", "all") != before


def shorten(entry):
    path = entry / "tokens.npy"
    path.write_bytes(path.read_bytes()[:-4])


def flip(entry):
    data = bytearray((entry / "kinds.npy").read_bytes())
    data[-1] ^= 1
    (entry / "kinds.npy").write_bytes(data)


DAMAGE = {
    "shorter": shorten,
    "flipped": flip,
    "missing": lambda entry: (entry / "starts.npy").unlink(),
    "garbage": lambda entry: (entry / "checksums.npy").write_bytes(b"\x93NUMPY\x01\x00\x03\x00{{"),
    "empty": lambda entry: (entry / "tokens.npy").write_bytes(b""),
    "object": lambda entry: np.save(entry / "tokens.npy", np.array([{}]), allow_pickle=True),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_entry_is_made_anew(tmp_path, monkeypatch, damage):
    encode_all(TALKS, tiny(), "gemma3", cache=str(tmp_path))
    (entry,) = tmp_path.iterdir()
    damage(entry)
    assert equal(encode_all(TALKS, tiny(), "gemma3", cache=str(tmp_path)), one_by_one())
    monkeypatch.setattr(encoding, "render", no_encoding)
    whole = encode_all(TALKS, tiny(), "gemma3", cache=str(tmp_path))
    monkeypatch.undo()
    assert equal(whole, one_by_one())
    assert [*tmp_path.iterdir()] == [entry]


@pytest.mark.parametrize("name", [*examples._ARRAYS, "checksums"])
def test_no_changed_byte_goes_unnoticed(tmp_path, name):
    found = Examples.from_list(one_by_one(TALKS[:1]))
    examples._store(found, tmp_path / "key")
    path = tmp_path / "key" / f"{name}.npy"
    data, noticed = path.read_bytes(), 0
    for offset in range(len(data)):
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        loaded = examples._load(tmp_path / "key", 1)
        assert loaded is None or equal(loaded, found)  # some bytes only fill the header
        noticed += loaded is None
    assert noticed > 20


def test_a_cache_in_a_bucket_is_refused():
    with pytest.raises(
        UserError, match=r"config\.data\.cache = 'gs://b/c': expected a local direct"
    ):
        encode_all(TALKS, tiny(), "gemma3", cache="gs://b/c")


def test_a_cache_that_cannot_be_written_is_named_once(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for _ in range(2):
        cache = str(tmp_path / "file" / "cache")
        assert equal(encode_all(TALKS, tiny(), "gemma3", cache=cache), one_by_one())
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert f"{cache}: tokenised sets are not kept: Not a directory" in printed.err


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    def full(path, _):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert equal(encode_all(TALKS, tiny(), "gemma3", cache=str(tmp_path)), one_by_one())
    assert "No space left on device" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_another_process_may_store_the_same(tmp_path):
    found = Examples.from_list(one_by_one())
    for _ in range(2):
        examples._store(found, tmp_path / "key")
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    stored = examples._load(tmp_path / "key", len(found))
    assert stored is not None and equal(stored, found)
    assert examples._load(tmp_path / "key", len(found) + 1) is None


def test_processes_give_the_same_in_order(monkeypatch):
    monkeypatch.setattr(examples, "_POOL_FROM", 0)
    monkeypatch.setattr(examples, "_CHUNK", 2)
    found = encode_all(TALKS + TALKS[:1], tiny(), "gemma3", "last", workers=2)
    assert equal(found, one_by_one(TALKS + TALKS[:1], train_on="last"))
    bad = dataclasses.replace(talk("a", " "), source="b.jsonl:9")
    with pytest.raises(UserError, match=r"b\.jsonl:9: turn 2: the answer has no text"):
        encode_all([*TALKS, bad], tiny(), "gemma3", workers=1)


def test_small_inputs_start_no_process(monkeypatch):
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", no_encoding)
    assert equal(encode_all(TALKS, tiny(), "gemma3", workers=8), one_by_one())


def test_importing_is_light_and_silent_off_a_terminal():
    heavy = "jax", "gemma", "gguf", "sentencepiece", "grain", "pyarrow", "multiprocessing.pool"
    code = (
        f"import sys, sft.data.batches.truncation; print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
