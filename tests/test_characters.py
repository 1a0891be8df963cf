"""What nobody can see is no text, by Unicode's own properties."""

import unicodedata

import pytest

from sft.data.characters import is_blank, surrogate
from sft.data.conversation import Reading, Reject
from sft.data.read import records
from sft.data.read.records import Source
from sft.data.read.schemas import parse
from sft.errors import UserError

DRAWN_AS_NOTHING = "\u2800\U00016fe4\U0001d159"  # in none of the properties


def test_blank_characters_are_those_of_the_properties():
    regex = pytest.importorskip("regex")
    ignorable = regex.compile(r"\p{Default_Ignorable_Code_Point}").match
    drawn = regex.compile(r"\p{Prepended_Concatenation_Mark}").match
    for code in (*range(1, 0xD800), *range(0xE000, 0x110000)):
        letter = chr(code)
        kind = unicodedata.category(letter)
        unseen = kind in ("Cc", "Zs", "Zl", "Zp") or (kind == "Cf" and not drawn(letter))
        unseen = unseen or ignorable(letter) is not None or letter in DRAWN_AS_NOTHING
        assert is_blank(letter) == unseen, f"U+{code:04X} {kind}"


BLANK = [
    *("\u200b", "\ufeff", "\u2060", "\xad", "\u200e", "\u2800", "\u3164", "\u115f", "\u1160"),
    *("\uffa0", "\u180e", "\ufe0f", "\U000e0100", "\U000e0041\U000e007f", "\u034f", "\u061c"),
    *("\u2066\u2069", "\u17b4", "\x07", "\x85", "\u2028", "\U0001d159", " \u200b\n\ufeff\t\u3000"),
]
SEEN = [
    *(
        "\U0001f469\u200d\U0001f467",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\u2764\ufe0f",
    ),
    *("\u200bx", "a\xadb", "\u2581", "\ufffd", "\u0600", "\ue000", "\u0301", ".", "\u115f\u1161"),
]


def turns(role, text, *, key="content", name="messages"):
    question = [{"text": "q"}] if key == "parts" else "q"
    return {name: [{"role": "user", key: question}, {"role": role, key: text}]}


WHERE = {
    "prompt": lambda text: ({"input_text": text, "output_text": "a"}, {}),
    "answer": lambda text: ({"input_text": "q", "output_text": text}, {}),
    "message": lambda text: (turns("assistant", text), {}),
    "part": lambda text: (turns("assistant", [{"type": "text", "text": text}]), {}),
    "parts": lambda text: (turns("model", [{"text": text}], key="parts", name="contents"), {}),
    "turn": lambda text: (
        {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "a"}]},
        {},
    ),
    "template": lambda text: ({"x": text, "output_text": "a"}, {"template": "{x}"}),
    "columns": lambda text: ({"x": text, "output_text": "a"}, {"template": "Title: {x}"}),
    "completion": lambda text: (
        {"input_text": "q", "output_text": [{"role": "assistant", "content": text}]},
        {},
    ),
    "history": lambda text: (
        {"input_text": "q", "output_text": "a", "h": [["q", text]]},
        {"history": "h"},
    ),
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("text", BLANK, ids=ascii)
def test_a_text_that_nobody_can_see_is_empty_everywhere(where, text):
    row, reading = WHERE[where](text)
    with pytest.raises(Reject, match=r"^empty text: "):
        parse(row, "x:1", Reading(**reading))


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("text", SEEN, ids=ascii)
def test_a_text_that_is_seen_stays_as_it_is(where, text):
    row, reading = WHERE[where](text)
    found, _ = parse(row, "x:1", Reading(**reading))
    said = [turn.text.removeprefix("Title: ") for turn in found.turns]
    assert text in said


@pytest.mark.parametrize("text", BLANK, ids=ascii)
def test_a_system_instruction_that_nobody_can_see_is_none(text):
    row = {"input_text": "q", "output_text": "a"}
    messages = [{"role": "system", "content": text}, *turns("assistant", "a")["messages"]]
    for given, reading in (
        (row | {"s": text}, Reading(system="s")),
        ({"messages": messages}, Reading()),
        ({"messages": messages}, Reading(instruction="Be brief.")),
        (row | {"s": text}, Reading(system="s", instruction="Be brief.")),
    ):
        assert parse(given, "x:1", reading)[0].system == (reading.instruction or None)
    with pytest.raises(UserError, match=r"config\.data\.reading\.instruction = .*no visible text"):
        Reading(instruction=text)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "é\ud83d", "\udc80x"], ids=ascii)
def test_half_a_surrogate_pair_is_refused_everywhere(where, text):
    row, reading = WHERE[where](text)
    with pytest.raises(Reject, match=r"^lone surrogate: .*, character"):
        parse(row, "x:1", Reading(**reading))


def test_where_half_a_surrogate_pair_is(tmp_path):
    assert [surrogate(t) for t in ("", "a", "é\U0001f600", "ab\ud800", "\udfff")] == [0, 0, 0, 3, 1]
    path = tmp_path / "a.jsonl"  # as JSON spells it, and a whole pair
    path.write_text('{"input_text": "\\ud83d\\ude00", "output_text": "\\ud83d"}')
    with pytest.raises(UserError, match=r"a\.jsonl:1: lone surrogate: output_text, character 1"):
        records.read([Source("", str(path))])
