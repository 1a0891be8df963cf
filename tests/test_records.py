import gzip
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.data import records as records_lib
from sft.data.records import Conversation, Reject, Turn
from sft.errors import UserError

PAIR = {"input_text": "2 + 2 = ?", "output_text": "4"}


def turn(role, *texts):
    return {"role": role, "parts": [{"text": text} for text in texts]}


def gemini(*contents, **more):
    return {"contents": list(contents), **more}


def write(path, *rows) -> str:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return str(path)


def reason(row) -> str:
    line = row if isinstance(row, bytes) else json.dumps(row).encode()
    with pytest.raises(Reject) as error:
        records_lib.parse(line, "x:1")
    text = str(error.value)
    assert text.startswith(error.value.kind + ": ") and text.isprintable()
    return text


def test_gemini_format():
    row = gemini(
        turn("user", "Hello, ", "you"),
        turn("model", "Hi"),
        turn("user", "Bye"),
        turn("model", " Ciao \n"),
        systemInstruction={"role": "system", "parts": [{"text": "Be brief."}]},
    )
    turns = (Turn("user", "Hello, you"), Turn("model", "Hi"), Turn("user", "Bye"))
    expected = Conversation((*turns, Turn("model", " Ciao \n")), "Be brief.", "a.jsonl:7")
    assert records_lib.parse(json.dumps(row).encode(), "a.jsonl:7") == expected


def test_system_instruction_spellings():
    for key in ("systemInstruction", "system_instruction"):
        row = gemini(turn("user", "a"), turn("model", "b"), **{key: {"parts": [{"text": "S"}]}})
        assert records_lib.parse(json.dumps(row).encode(), "x:1").system == "S"


def test_pair_format():
    expected = Conversation((Turn("user", "2 + 2 = ?"), Turn("model", "4")), None, "x:1")
    assert records_lib.parse(json.dumps(PAIR).encode(), "x:1") == expected


USER, MODEL = turn("user", "a"), turn("model", "b")
REASONS = [
    (b'{"contents": [}', "invalid JSON: column 15: Expecting value"),
    (b"hello", "invalid JSON: column 1: Expecting value"),
    (b'{"n": ' + b"1" * 5000 + b"}", "invalid JSON: Exceeds the limit"),
    (b'{"input_text": "\xff"}', "invalid UTF-8: byte 17"),
    (b'{"input_text": "a\x00"}', "NUL character: a zero byte in the file; is it UTF-16?"),
    (b'{"input_text": "a", "input_text": "b"}', "duplicate key: 'input_text'"),
    (b"[" * 200_000, "nested too deeply"),
    (b'{"contents":' * 100_000, "nested too deeply"),
    (b'{"input_text": "' + b"a" * records_lib.MAX_LINE, "line too long: over 16,777,216 bytes"),
    ([PAIR], "not an object: found a list, expected one JSON object per line"),
    (None, "not an object: found null"),
    ({}, "missing field: empty object"),
    ({"messages": []}, "unknown key: 'messages'; known here: contents"),
    ({"content": [USER, MODEL]}, "unknown key: 'content'; did you mean 'contents'?"),
    ({"input_text": "a"}, "missing field: output_text"),
    (
        {"input_text": "a", "outputtext": "b"},
        "unknown key: 'outputtext'; did you mean 'output_text'?",
    ),
    (
        {"input_text": "a", "output_text": 4},
        "wrong type: output_text is a number, expected a string",
    ),
    ({"input_text": "a", "output_text": " \n"}, "empty text: output_text has no visible text"),
    ({"input_text": "a\0b", "output_text": "c"}, "NUL character: input_text, character 2"),
    ({"input_text": "a", "output_text": "ab\ud800"}, "lone surrogate: output_text, character 3"),
    ({**PAIR, "\ud800\n": 1}, r"unknown key: '\ud800\n'; known here"),
    (gemini(USER, MODEL, input_text="a"), "unknown key: 'input_text'; known here: contents"),
    ({"systemInstruction": {"parts": [{"text": "S"}]}}, "missing field: contents"),
    ({"contents": {}}, "wrong type: contents is an object, expected a list"),
    (gemini(), "wrong role order: contents has no turns, expected 'model' last"),
    (gemini(USER), "wrong role order: contents ends with 'user', expected 'model' last"),
    (gemini(MODEL, USER), "wrong role order: contents[0].role is 'model', expected 'user'"),
    (gemini(USER, USER, MODEL), "wrong role order: contents[1].role is 'user', expected 'model'"),
    (gemini(USER, turn("assistant", "b")), "wrong role order: contents[1].role is 'assistant'"),
    (gemini("a"), "wrong type: contents[0] is a string, expected an object"),
    (gemini({"parts": [{"text": "a"}]}, MODEL), "missing field: contents[0].role"),
    (gemini({"role": "user"}, MODEL), "missing field: contents[0].parts"),
    (gemini({**USER, "part": []}), "unknown key: contents[0].'part'; did you mean 'parts'?"),
    (gemini(USER, {"role": "model", "parts": []}), "empty text: contents[1].parts has no visible"),
    (gemini(USER, turn("model", "", " ")), "empty text: contents[1].parts has no visible text"),
    (gemini({"role": "user", "parts": ["a"]}), "wrong type: contents[0].parts[0] is a string"),
    (
        gemini({"role": "user", "parts": [{"text": "a"}, {"fileData": {"fileUri": "gs://b/c"}}]}),
        "non-text part: contents[0].parts[1] has 'fileData'; only text is supported",
    ),
    (
        gemini({"role": "user", "parts": [{"inline_data": {}}]}),
        "non-text part: contents[0].parts[0]",
    ),
    (
        gemini({"role": "user", "parts": [{"txt": "a"}]}),
        "unknown key: contents[0].parts[0].'txt'; did",
    ),
    (gemini({"role": "user", "parts": [{}]}), "missing field: contents[0].parts[0].text"),
    (
        gemini(USER, MODEL, systemInstruction={"parts": []}),
        "empty text: systemInstruction.parts has no visible text",
    ),
    (gemini(USER, MODEL, systemInstruction="S"), "wrong type: systemInstruction is a string"),
    (
        gemini(USER, MODEL, systemInstruction={}, system_instruction={}),
        "duplicate key: systemInstruction and system_instruction",
    ),
]


@pytest.mark.parametrize("row, expected", REASONS, ids=[str(i) for i in range(len(REASONS))])
def test_reasons(row, expected):
    assert reason(row).startswith(expected)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["user", "model"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["contents", "role", "parts", "text", "systemInstruction", "input_text", "x"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_line_is_a_conversation_or_a_reason(line):
    try:
        assert records_lib.parse(line, "x:1").turns[-1].role == "model"
    except Reject as reject:
        assert str(reject).isprintable()


TEXT = st.text(min_size=1, max_size=20).filter(lambda t: t.strip() and "\0" not in t)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3), st.none() | TEXT)
def test_round_trip(exchanges, system):
    contents = [
        turn(r, t) for pair in exchanges for r, t in zip(("user", "model"), pair, strict=True)
    ]
    more = {"systemInstruction": {"parts": [{"text": system}]}} if system else {}
    line = json.dumps(gemini(*contents, **more)).encode()
    conversation = records_lib.parse(line, "x:1")
    assert [t.text for t in conversation.turns] == [text for pair in exchanges for text in pair]
    assert conversation.system == system


def test_reads_several_files_plain_and_gzip_in_order(tmp_path):
    first = write(tmp_path / "a.jsonl", PAIR, b"", b"  \r", {**PAIR, "output_text": "5"})
    zipped = tmp_path / "b.jsonl.gz"
    zipped.write_bytes(gzip.compress(json.dumps({**PAIR, "output_text": "6"}).encode()))
    records = records_lib.read(f"{first}, {zipped}")
    answers = [(c.turns[1].text, c.source) for c in records.conversations]
    assert answers == [("4", f"{first}:1"), ("5", f"{first}:4"), ("6", f"{zipped}:1")]
    assert (records.rejected, records.counts) == ([], {})


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    line = json.dumps(PAIR).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\r\n" + line + b"\r\n")
    assert len(records_lib.read(str(tmp_path / "a.jsonl")).conversations) == 2


def test_rejected_rows_are_listed_and_counted(tmp_path):
    bad = [{"input_text": "a"}, b"{", {"input_text": "b"}]
    path = write(tmp_path / "a.jsonl", *[PAIR] * 297, *bad)
    records = records_lib.read(path)
    assert len(records.conversations) == 297
    assert records.counts == {"missing field": 2, "invalid JSON": 1}
    assert [source for source, _ in records.rejected] == [f"{path}:{n}" for n in (298, 299, 300)]
    assert records.rejected[0][1] == "missing field: output_text"


def test_too_many_rejected_rows(tmp_path):
    path = write(tmp_path / "a.jsonl", PAIR, {"input_text": "a"}, b"{", *[PAIR] * 97)
    expected = (
        f"{path}:2: missing field: output_text. 2 of 100 rows rejected "
        "(missing field 1, invalid JSON 1); the limit is 1.0%."
    )
    with pytest.raises(UserError, match=re.escape(expected)):
        records_lib.read(path)
    assert len(records_lib.read(path, max_rejected=0.02).conversations) == 98


def test_an_enormous_line_does_not_hide_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(records_lib, "MAX_LINE", 100)
    huge = {"input_text": "x" * 1000, "output_text": "y"}
    path = write(tmp_path / "a.jsonl", PAIR, huge, PAIR)
    records = records_lib.read(path, max_rejected=0.5)
    assert [c.source for c in records.conversations] == [f"{path}:1", f"{path}:3"]
    assert records.rejected == [(f"{path}:2", "line too long: over 100 bytes")]


def test_files_that_cannot_be_used(tmp_path):
    whole = write(tmp_path / "a.jsonl", PAIR)
    zipped = gzip.compress(json.dumps([PAIR] * 50).encode())
    (tmp_path / "empty.jsonl").write_bytes(b"\n\n")
    (tmp_path / "cut.jsonl.gz").write_bytes(zipped[:-12])
    (tmp_path / "flipped.jsonl.gz").write_bytes(
        zipped[:12] + bytes([zipped[12] ^ 255]) + zipped[13:]
    )
    (tmp_path / "plain.jsonl.gz").write_bytes(b"{}")
    for name, message in [
        ("none.jsonl", "cannot read: No such file"),
        ("", "Is a directory"),
        ("empty.jsonl", "no rows"),
        ("cut.jsonl.gz", "damaged gzip"),
        ("flipped.jsonl.gz", "damaged gzip"),
        ("plain.jsonl.gz", "damaged gzip"),
    ]:
        path = str(tmp_path / name)
        with pytest.raises(UserError, match=f"^{re.escape(path)}: .*{message}") as error:
            records_lib.read(f"{whole},{path}")
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="empty path"):
        records_lib.read("")


def test_no_usable_row(tmp_path):
    path = write(tmp_path / "a.jsonl", b"{")
    with pytest.raises(UserError, match=r"1 of 1 rows rejected .*none is usable"):
        records_lib.read(path, max_rejected=1.0)
