"""``tokenizer.json`` gives the ids of ``tokenizer.model``, and text is never control."""

import json
import shutil

import hf_folders
import pytest
import tiny_run
from hypothesis import given
from hypothesis import strategies as st
from test_tokenizer import LITERALS, control_ids, gemma3, golden, tiny, tiny_pieces, write_gguf

from sft.data.tokenizer import files as tokenizer_files
from sft.data.tokenizer import sentencepiece as tokenizer_lib
from sft.data.tokenizer.hf_json import from_json
from sft.data.tokenizer.sentencepiece import CONTROL, NORMAL, UNUSED, USER_DEFINED
from sft.errors import UserError
from sft.export import tokenizer as exported

registered = tiny_run.registered
TRANSFORMERS = hf_folders.GOLDEN / "gemma3" / "tokenizer.json"
ODD = (
    *(" " * n + "x" for n in range(1, 6)),
    *("\n" * n for n in range(1, 7)),
    *LITERALS,
    *(f"a{literal}b" for literal in LITERALS),
    *(
        "▁",
        "▁▁▁x",
        "a▁b",
        "\t\t\t",
        "\x00\x07",
        "é日本",
        "👩‍💻",
        "<<b>>",
        "<tab</b>le>",
        "\r\n",
        "",
    ),
    "user the model in an an del us us us user",
)


def written(path, **changes):
    """The file that transformers 5 wrote, with keys of ``model`` or of the whole changed."""
    raw = json.loads(TRANSFORMERS.read_text())
    for key, value in changes.items():
        (raw["model"] if key in raw["model"] else raw)[key] = value
    path.write_text(json.dumps(raw))
    return str(path)


def refused(call, *args):
    with pytest.raises(UserError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def read():
    return from_json(str(TRANSFORMERS), 512)


def test_what_transformers_wrote(read):
    """Also the same pieces of the same kinds, so that exports are the same."""
    assert [read.encode(text) for text in ODD] == [tiny().encode(text) for text in ODD]
    assert [(p, k) for p, _, k in read.pieces()] == [(p, k) for p, _, k in tiny().pieces()]
    assert (read.start_of_turn_id, read.end_of_turn_id) == (8, 9)
    assert exported.build(read) == exported.build(tiny())


@given(st.lists(st.one_of(st.text(max_size=8), st.sampled_from(ODD)), max_size=8))
def test_any_text_is_cut_alike_and_is_never_control(parts):
    text = "".join(parts)
    ids = from_json_once().encode(text)
    assert ids == tiny().encode(text)
    assert not control_ids(tiny()) & {*ids}
    assert from_json_once().encode_array(text).tolist() == ids


def from_json_once(cache=[]):  # noqa: B006  # hypothesis takes no fixtures of a module
    if not cache:
        cache.append(from_json(str(TRANSFORMERS)))
    return cache[0]


@pytest.mark.slow
def test_the_published_vocabulary(tmp_path):
    """All 5,097 strings, and 162 with control pieces written out in them."""
    exported.write(gemma3(), tmp_path, 32_768)
    tokenizer = from_json(str(tmp_path / "tokenizer.json"), 262_144)
    rows = golden("tokenizer_gemma3.jsonl.gz")
    assert len(rows) == 5097
    assert [row["text"] for row in rows if tokenizer.encode(row["text"]) != row["ids"]] == []
    literals = [row["text"] for row in golden("tokenizer_literals_gemma3.jsonl.gz")]
    for text in (*literals, *ODD, " " * 70, "\t" * 40, "\n" * 100, "a" * 300):
        assert tokenizer.encode(text) == gemma3().encode(text)
    kinds = [kind for _, _, kind in gemma3().pieces()]
    assert [kind for _, _, kind in tokenizer.pieces()] == kinds


def test_older_forms_of_the_same(tmp_path, read):
    raw = json.loads(TRANSFORMERS.read_text())
    spaced = [" ".join(pair) for pair in raw["model"]["merges"]]
    cuts = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}
    sequence = {"type": "Sequence", "normalizers": [raw["normalizer"]]}
    meta = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False}
    for changes in (
        {"merges": spaced},
        {"pre_tokenizer": cuts | {"invert": False}},
        {"normalizer": sequence},
        {"normalizer": None, "pre_tokenizer": meta},
        {"continuing_subword_prefix": ""},
    ):
        other = from_json(written(tmp_path / "tokenizer.json", **changes))
        assert other.model == read.model


def test_the_tab_of_gemma_2_is_a_byte(tmp_path, read):
    """Its file has a tab in the place of the byte that spells it."""
    raw = json.loads(TRANSFORMERS.read_text())
    vocabulary = raw["model"]["vocab"]
    tab, byte = vocabulary.pop("\t"), vocabulary.pop("<0x09>")
    vocabulary |= {"\t": byte, "<unused9>": tab}
    raw["added_tokens"][tab]["content"] = "<unused9>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    other = from_json(str(tmp_path / "tokenizer.json"))
    assert other.encode("a\tb") == [*read.encode("a"), byte, *read.encode("b")]
    assert other.decode(other.encode("a\t\tb")) == "a\t\tb"


def test_order_by_merges_where_ids_have_another(tmp_path):
    """The score comes of the place among the merges, as the library has it."""
    import tokenizers

    raw = json.loads(TRANSFORMERS.read_text())
    merges = raw["model"]["merges"]
    merges.sort(key=lambda pair: "".join(pair)[::-1], reverse=True)  # pieces together, as before
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    ours = from_json(str(tmp_path / "tokenizer.json"))
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = ["user model the in an", "usererdel", "in the the ", "tus", "ana tustus"]
    for text in texts:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids
    assert any(ours.encode(text) != tiny().encode(text) for text in texts)


RAW = json.loads(TRANSFORMERS.read_text())
DAMAGED = {
    "not JSON": ("{", "not a tokenizer.json of Gemma"),
    "a list": ("[]", "not a tokenizer.json of Gemma"),
    "nested": ("[" * 100_000, "not a tokenizer.json of Gemma"),
    "bytes": ("\x00\x01", "not a tokenizer.json of Gemma"),
    "pointer": ("version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    "unigram": ({"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}, "model 'Unigram', expected"),
    "no merges": ({"model": RAW["model"] | {"merges": []}}, "merges are missing"),
    "a merge less": ({"model": RAW["model"] | {"merges": RAW["model"]["merges"][1:]}}, "1 of"),
    "merges of one": ({"model": RAW["model"] | {"merges": [["a"]]}}, "damaged merges"),
    "numbers as merges": ({"model": RAW["model"] | {"merges": [[1, 2]]}}, "merges"),
    "vocabulary": ({"model": RAW["model"] | {"vocab": {"a": "b"}}}, "damaged"),
    "a gap": (
        {"model": RAW["model"] | {"vocab": RAW["model"]["vocab"] | {"new": 9999}}},
        "0, 1, 2",
    ),
    "twice": ({"model": RAW["model"] | {"vocab": RAW["model"]["vocab"] | {"new": 50}}}, "damaged"),
    "added": ({"added_tokens": [{"id": 3, "content": "<x>"}]}, "share an id"),
    "added as text": ({"added_tokens": ["<x>"]}, "damaged"),
    "lower case": ({"normalizer": {"type": "Lowercase"}}, "would cut text otherwise"),
    "a prefix": ({"normalizer": {"type": "Prepend", "prepend": "▁"}}, "would cut text otherwise"),
    "digits": ({"pre_tokenizer": {"type": "Digits"}}, "would cut text otherwise"),
    "no bytes": ({"model": RAW["model"] | {"byte_fallback": False}}, "model.byte_fallback = False"),
    "whole words": (
        {"model": RAW["model"] | {"ignore_merges": True}},
        "model.ignore_merges = True",
    ),
    "dropout": ({"model": RAW["model"] | {"dropout": 0.1}}, "model.dropout = 0.1"),
    "foreign": (
        {"model": RAW["model"] | {"vocab": {"<s>": 0}}, "added_tokens": []},
        "0 of 256 byte",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_and_foreign_files(tmp_path, name):
    content, said = DAMAGED[name]
    text = content if isinstance(content, str) else json.dumps(RAW | content)
    (tmp_path / "tokenizer.json").write_text(text)
    message = refused(from_json, str(tmp_path / "tokenizer.json"), 512)
    assert f"{tmp_path}/tokenizer.json: " in message and said in message


def extended(path, names):
    first = len(RAW["model"]["vocab"])
    added = [{"id": first + i, "content": name, "special": True} for i, name in enumerate(names)]
    return written(path, added_tokens=RAW["added_tokens"] + added)


def test_added_tokens_are_named(tmp_path, read):
    count = len(tiny_pieces())
    path = extended(tmp_path / "tokenizer.json", ["<tool>", "<a>", "</a>"])
    message = refused(from_json, path, count)
    assert "3 tokens were added ('<tool>', '<a>', '</a>')" in message
    assert "as ordinary text" in message
    images = extended(tmp_path / "images.json", ["<image_soft_token>"])
    assert from_json(images, count).model == read.model


@pytest.mark.parametrize("kind", [CONTROL, USER_DEFINED, NORMAL])
def test_added_tokens_of_gguf_are_named(tmp_path, kind):
    count = len(tiny_pieces())
    path = write_gguf(tmp_path / "a.gguf", [*tiny_pieces(), ("<tool>", 0.0, kind)])
    message = refused(tokenizer_lib.from_gguf, path, count)
    assert f"{count + 1} pieces, but the model has {count} embedding rows" in message
    assert "1 tokens were added ('<tool>')" in message
    path = write_gguf(tmp_path / "b.gguf", [*tiny_pieces(), ("[PAD7]", 0.0, UNUSED)])
    assert tokenizer_files.added(tmp_path / "b.gguf", count) == []
    assert tokenizer_files.added(tmp_path / "a.gguf", count) == ["<tool>"]


def test_which_file_of_a_folder(tmp_path, read):
    folder = hf_folders.write(tmp_path / "w", "file")
    assert tokenizer_files.read(folder, 512).model == tiny().model
    (folder / "tokenizer.model").unlink()
    assert tokenizer_files.read(folder, 512).model == read.model
    assert tokenizer_files.read(folder / "tokenizer.json", 512).model == read.model
    (folder / "tokenizer.json").unlink()
    assert "neither tokenizer.model nor tokenizer.json" in refused(
        tokenizer_files.read, folder, 512
    )
    assert tokenizer_files.added(folder, 512) is None


def test_files_that_disagree(tmp_path):
    count = len(tiny_pieces())
    folder = hf_folders.write(tmp_path / "w", "file")
    extended(folder / "tokenizer.json", ["<tool>"])
    message = refused(tokenizer_files.read, folder, count)
    assert "1 tokens were added ('<tool>')" in message
    assert tokenizer_files.added(folder, count) == ["<tool>"]
    shutil.copy(TRANSFORMERS, folder)
    (folder / "added_tokens.json").write_text(json.dumps({"<tool>": count}))  # of older tokenizers
    assert tokenizer_files.added(folder, count) == []  # tokenizer.json knows better
    (folder / "tokenizer.json").unlink()
    assert "('<tool>')" in refused(tokenizer_files.read, folder, count)
    (folder / "added_tokens.json").write_text("[1]")
    assert "added_tokens.json: damaged" in refused(tokenizer_files.read, folder, count)
    (folder / "added_tokens.json").unlink()
    renamed = {("<other>" if k == "<unused1>" else k): v for k, v in RAW["model"]["vocab"].items()}
    added = [
        t | {"content": t["content"].replace("<unused1>", "<other>")} for t in RAW["added_tokens"]
    ]
    written(folder / "tokenizer.json", vocab=renamed, added_tokens=added)
    message = refused(tokenizer_files.read, folder, count)
    assert "token 7 is '<other>', and '<unused1>' in tokenizer.model beside it" in message
    assert tokenizer_files.read(folder / "tokenizer.model", count).model == tiny().model
    other = tokenizer_files.read(folder / "tokenizer.json", count)
    assert other.encode("<other>") == tiny().encode("<other>")  # text, as everything that steers
