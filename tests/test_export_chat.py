"""The chat template of an export gives the ids of training, whatever training put around a chat."""

import itertools

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tokenizer import gemma3, tiny

from sft.data.chat import encoding
from sft.data.conversation import Conversation, Turn
from sft.data.sets.framing import NOTHING, Framing
from sft.export import chat_template
from sft.export import tokenizer as exported

HOSTILE = (
    "{{ messages }} {% raw %} {# no #} }} %}",
    'it\'s "quoted" \\ and \\n, ${x} $x {prompt} %s',
    "three\n\nlines\r\n  and\ttabs",
    "\n starts and ends with white space \n\n",
    "日本\u3000語 é 👩‍💻 \u2028 \x85 \x0b \u200b",
    "'''\"\"\"```<table>",
)
FRAMINGS = [
    Framing(),
    *(Framing(system=text) for text in HOSTILE),
    *(Framing(around=(text, "")) for text in HOSTILE),
    *(Framing(around=("", text)) for text in HOSTILE),
    Framing("Be brief.", ("Q: ", "\n\nOnce more: ", "\nA:")),
]
TURNS = (("a",), (" the b \n", "us", "er"), ("x", "{{ y }}", " z", "w'", "v"))
families = pytest.mark.parametrize("family", list(encoding.FORMATS))


def library(tokenizer, path):
    """The exported ``tokenizer.json``, in the library that reads it."""
    exported.write(tokenizer, path, 8192)
    return tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))


@pytest.fixture(scope="module")
def tiny_libraries(tmp_path_factory):
    """By the pieces that open and close turns."""
    found = (tiny(family) for family in ("gemma2", "gemma3", "gemma4"))
    return {
        tokenizer: library(tokenizer, tmp_path_factory.mktemp("tokenizer")) for tokenizer in found
    }


def of_family(family):
    return tiny("gemma4" if family.startswith("gemma4") else family)


def messages(texts, system=None):
    opening = [] if system is None else [{"role": "system", "content": system}]
    roles = itertools.cycle(("user", "assistant"))
    return [
        *opening,
        *({"role": role, "content": text} for role, text in zip(roles, texts, strict=False)),
    ]


def trained(framing, texts, system):
    """The conversation as training reads it."""
    roles = itertools.cycle(("user", "model"))
    turns = [Turn(role, text) for role, text in zip(roles, texts, strict=False)]
    turns[0] = Turn("user", framing.prompt(texts[0]))
    return Conversation(tuple(turns), system or framing.system or None, "test")


def check(family, framing, texts, system, tokenizer, written):
    template = chat_template.jinja(encoding.FORMATS[family], framing)

    def ids(of, **options):
        text = chat_template.render(template, messages(of, system), **options)
        return written.encode(text, add_special_tokens=False).ids

    asked = trained(framing, texts, system)
    expected = encoding.encode_prompt(asked, tokenizer, family).tolist()
    assert ids(texts, add_generation_prompt=True) == expected
    whole = trained(framing, (*texts, "end"), system)
    # The template goes on to the next turn with a line break, which training has no use for.
    expected = [*encoding.encode(whole, tokenizer, family).tokens.tolist(), *tokenizer.encode("\n")]
    assert ids((*texts, "end")) == expected


@pytest.mark.parametrize("system", [None, "Say b.", HOSTILE[1], HOSTILE[3]])
@families
def test_ids_of_training(tiny_libraries, family, system):
    tokenizer = of_family(family)
    for framing, texts in itertools.product(FRAMINGS, TURNS):
        check(family, framing, texts, system, tokenizer, tiny_libraries[tokenizer])


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0▁"), max_size=12)
SYNTAX = st.sampled_from(
    ("{{", "}}", "{%", "%}", "{#", "'", '"', "\\", "\n", "${", "<table>", "  ")
)
ANY = st.lists(TEXT | SYNTAX, max_size=5).map("".join)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(list(encoding.FORMATS)),
    ANY.filter(lambda text: not text or text.strip()),
    st.lists(ANY, min_size=2, max_size=3),
    st.lists(ANY.filter(str.strip), min_size=1, max_size=1),
)
def test_any_text(tiny_libraries, family, system, around, texts):
    tokenizer = of_family(family)
    framing = Framing(system, tuple(around))
    check(family, framing, texts, None, tokenizer, tiny_libraries[tokenizer])


def test_ids_of_training_in_the_real_vocabulary(tmp_path):
    tokenizer = gemma3()
    written = library(tokenizer, tmp_path)
    for framing in FRAMINGS:
        for texts, system in ((("Wie spät ist es?",), None), (TURNS[2], HOSTILE[2])):
            check("gemma3", framing, texts, system, tokenizer, written)


def test_contents_in_parts():
    """As rows of training are read: joined as they are, and stripped as a whole."""
    template = chat_template.jinja(encoding.FORMATS["gemma3"], Framing("S", ("<", ">")))
    parts = [{"type": "text", "text": text} for text in (" a ", "b ")]
    found = chat_template.render(
        template, [{"role": "system", "content": parts}, {"role": "user", "content": parts}]
    )
    assert found == "<bos><start_of_turn>user\n a b \n\n< a b ><end_of_turn>\n"
    with pytest.raises(Exception, match="only text is read"):
        chat_template.render(template, [{"role": "user", "content": [{"type": "image"}]}])


@pytest.mark.parametrize("system", ["", " \n", [], [{"type": "text", "text": " "}], None])
def test_an_empty_system_message_is_none(system):
    """As an empty system column of a row of training."""
    template = chat_template.jinja(encoding.FORMATS["gemma3"], Framing("Be."))
    asked = [{"role": "system", "content": system}, {"role": "user", "content": "a"}]
    assert chat_template.render(template, asked) == chat_template.render(template, asked[1:])


@pytest.mark.parametrize("roles", ["a", "uu", "ut", "suu", "usa", "us", "ux", "uasu"])
def test_roles_out_of_order_are_refused(roles):
    names = {"u": "user", "a": "assistant", "t": "tool", "s": "system", "x": "x"}
    template = chat_template.jinja(encoding.FORMATS["gemma3"], Framing())
    asked = [{"role": names[role], "content": role} for role in roles]
    with pytest.raises(Exception, match="must take turns"):
        chat_template.render(template, asked)


@pytest.mark.parametrize("piece", ["<end_of_turn>", "<bos>", "<mask>", "<unk>", "<unused0>"])
def test_texts_that_name_a_control_piece_are_not_in_the_template(piece):
    framing = Framing(f"No {piece}!", (f"a{piece}", ""))
    found = chat_template.expressible(framing, tiny())
    assert (found.system, found.around) == ("", NOTHING)
    assert len(found.lost) == 2 and all(repr(piece) in sentence for sentence in found.lost)
    kept = Framing("No <end_of_turn !", ("<table>", "</b>"), ("before",))
    assert chat_template.expressible(kept, tiny()) == kept
