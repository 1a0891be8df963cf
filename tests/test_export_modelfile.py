"""Ollama's ``Modelfile``: the prompts of training, and how answers are drawn."""

import itertools
import re
import types

import go_template
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_export_chat import ANY, FRAMINGS, HOSTILE, TURNS, messages, of_family, trained

from sft.config import default
from sft.data.chat import encoding
from sft.data.sets.framing import Framing
from sft.export import modelfile


def made(family="gemma3", framing=None, **values):
    config = default()
    config.update_from_flattened_dict(values)
    tuned = types.SimpleNamespace(
        config=config, framing=framing or Framing(), format=encoding.FORMATS[family]
    )
    return modelfile.text(tuned, "model.gguf")


def check(family, framing, texts, system=None):
    asked = trained(framing, texts, system)
    text = encoding.spell(asked.turns, asked.system, of_family(family), family)
    found = go_template.render(made(family, framing), messages(texts, system))
    assert found == text.replace(encoding.MARK, "")


@pytest.mark.parametrize("family", list(encoding.FORMATS))
def test_prompts_of_training(family):
    # Ollama strips nothing: texts of the user are sent as they are.
    stripped = [tuple(text.strip() for text in texts) for texts in TURNS]
    for framing, texts in itertools.product(FRAMINGS, stripped):
        check(family, framing, texts)
        check(family, framing, texts, "Say b.")


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(list(encoding.FORMATS)),
    ANY.filter(lambda text: not text or text.strip()),
    st.lists(ANY, min_size=2, max_size=3),
)
def test_any_text(family, system, around):
    check(family, Framing(system, tuple(around)), ("a",))


def test_the_system_instruction_stands_alone_where_ollama_keeps_it():
    text = made(framing=Framing('Two\n\nlines, "quoted", {{ x }}.'))
    assert 'SYSTEM """Two\n\nlines, "quoted", {{ x }}."""\n' in text
    assert "Two" not in go_template.read(text)[2]


@pytest.mark.parametrize(
    "system", ['a """ b', '"""', "日本\u3000語", "👩\u200d💻", "a\rb", "\xa0a"]
)
def test_otherwise_it_is_in_the_template(system):
    """Its parser drops what is not printable, and ends a value where quotes end a line."""
    text = made(framing=Framing(system))
    assert "SYSTEM" not in text and all(c in "\n" or c.isprintable() for c in text)
    check("gemma3", Framing(system), ("a",))


def test_all_lines_of_the_template_are_of_printable_characters():
    for text in HOSTILE:
        found = made(framing=Framing(around=(text, text)))
        assert all(c in "\n" or c.isprintable() for c in found)
        assert found.count('"""') == 2


def test_texts_that_end_an_answer():
    """Quoted thrice, a value keeps its white space; what it does not keep is not written so."""
    text = made(**{"eval.stop": r"\n,Q: ,\, \,,a\rb," + '"""'})
    stops = re.findall(r'^PARAMETER stop (?:"""(.*?)"""|([^"\n]*))$', text, re.M | re.S)
    assert [quoted or plain for quoted, plain in stops] == ["<end_of_turn>", "\n", "Q: ", ", ,"]
    assert text.count("# Give with each request") == 2
    assert r'stop = "a\U0000000db"' in text and r'stop = "\"\"\""' in text


def test_how_answers_are_drawn():
    greedy, _, _ = go_template.read(made())
    assert greedy == {"stop": "<end_of_turn>", "temperature": "0.0", "repeat_penalty": "1.0"}
    values = {"eval.temperature": 0.7, "eval.top_p": 0.9, "data.max_length": 8192}
    drawn, _, _ = go_template.read(made("gemma4", **values))
    assert drawn == {
        "stop": "<turn|>",
        "temperature": "0.7",
        "top_k": "0",
        "top_p": "0.9",
        "num_ctx": "8224",
        "repeat_penalty": "1.0",
    }
