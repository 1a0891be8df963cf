"""``tokenizer.json``, in the library that reads it, against the published tokenizer and chats."""

import json

import jinja2.sandbox
import pytest
import tokenizers
from test_tokenizer import LITERALS, gemma3, golden, tiny

from sft.data.chat import encoding
from sft.data.conversation import Conversation, Turn
from sft.errors import UserError
from sft.export import tokenizer as exported
from sft.export import verify

TEXTS = ("<table> </b>", "a\n\n\nb", "user model  the", "é日本", "x" * 300, "", " ", "\t\n")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Gemma 3's, written and read."""
    folder = tmp_path_factory.mktemp("tokenizer")
    exported.write(gemma3(), folder, 32_768)
    return folder, tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def render(folder, turns, system, **options):
    """As Transformers renders a chat template."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def refuse(message):
        raise jinja2.TemplateError(message)

    environment.globals["raise_exception"] = refuse
    template = environment.from_string((folder / "chat_template.jinja").read_text())
    messages = [{"role": role, "content": text} for role, text in turns]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return template.render(messages=messages, bos_token="<bos>", **options)


def roles(texts):
    return [(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]


def test_strings_of_the_published_tokenizer(real):
    _, tokenizer = real
    rows = golden("tokenizer_gemma3.jsonl.gz")
    assert len(rows) > 5000
    for row in rows:
        assert tokenizer.encode(row["text"], add_special_tokens=False).ids == row["ids"]
        assert tokenizer.encode(row["text"]).ids == [2, *row["ids"]]
        assert tokenizer.decode(row["ids"]) == row["text"]


def test_what_steers_written_out_in_text(real):
    """Is read as the published tokenizer reads it, half of it too, and spaces that are U+2581."""
    _, tokenizer = real
    rows = golden("tokenizer_literals_gemma3.jsonl.gz")
    assert len(rows) > 100
    for row in rows:
        assert tokenizer.encode(row["text"], add_special_tokens=False).ids == row["ids"]
    spaces = tokenizer.encode("▁▁▁x", add_special_tokens=False).ids
    assert spaces == tokenizer.encode("   x", add_special_tokens=False).ids


def test_chats_of_the_published_template(real):
    folder, tokenizer = real
    rows = golden("tokenizer_chat_gemma3.jsonl.gz")
    for row in rows:
        turns = roles(row["turns"])
        whole = render(folder, turns, row["system"])
        asked = render(folder, turns[:-1], row["system"], add_generation_prompt=True)
        assert tokenizer.encode(whole, add_special_tokens=False).ids == row["ids"]
        assert tokenizer.encode(asked, add_special_tokens=False).ids == row["prompt_ids"]


def test_control_pieces_in_text_are_control(real):
    """As in the published one, since the template needs it."""
    _, tokenizer = real
    ids = dict(zip(LITERALS, (gemma3()._processor.piece_to_id(x) for x in LITERALS), strict=True))
    del ids["<0x0A>"]  # a byte: plain text
    for literal, index in ids.items():
        assert tokenizer.encode(f"a{literal}b", add_special_tokens=False).ids[1:-1] == [index]
    skipped = tokenizer.decode([105, 2364, 107, *gemma3().encode("x"), 106])
    assert skipped == "user\nx"


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_small_vocabularies(tmp_path, family):
    tokenizer = tiny(family)
    exported.write(tokenizer, tmp_path, 8192)
    written = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert written.encode(text, add_special_tokens=False).ids == ids
        assert written.decode(ids) == tokenizer.decode(ids)
    said = Conversation(
        (Turn("user", " the b "), Turn("model", "us"), Turn("user", "er")), "mo", "t"
    )
    text = render(
        tmp_path, roles([" the b ", "us", "er"]), "mo", add_generation_prompt=True
    )  # fmt: skip
    expected = encoding.encode_prompt(said, tokenizer, family).tolist()
    assert written.encode(text, add_special_tokens=False).ids == expected
    assert (tmp_path / "tokenizer.model").read_bytes() == tokenizer.model


def test_roles_out_of_order_are_refused(tmp_path):
    exported.write(tiny(), tmp_path, 8192)
    with pytest.raises(jinja2.TemplateError, match="must take turns"):
        render(tmp_path, [("assistant", "a")], None)


def test_a_wrong_tokenizer_is_not_published(tmp_path):
    made = exported.build(tiny())
    made["model"]["merges"] = made["model"]["merges"][::-1][:3]
    (tmp_path / "tokenizer.json").write_text(json.dumps(made))
    with pytest.raises(UserError, match="the tokenizer of the run into"):
        verify.check_tokenizer(tiny(), tmp_path / "tokenizer.json")
