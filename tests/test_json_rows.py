import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.data.conversation import Reject
from sft.data.read import json_rows
from sft.data.read.fields import Number
from sft.data.read.json_rows import Decoder, line_value, list_values
from sft.errors import UserError

VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(-1e6, 1e6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
ROW = st.dictionaries(st.text(max_size=4), VALUE, max_size=4)


def items(data: bytes) -> list:
    """(line, value), with rejects as their reason."""
    found = list_values(io.BytesIO(data), "a.json")
    return [(number, str(v) if isinstance(v, Reject) else v) for number, v in found]


@pytest.mark.parametrize(
    "line, expected",
    [
        (b'{"a": [}', "invalid JSON: column 8: Expecting value"),
        (b"hello\n", "invalid JSON: column 1: Expecting value"),
        (b'{"a": 1} x\n', "invalid JSON: column 10: Extra data"),
        (b'{"a": "b\n', "invalid JSON: column 9: Invalid control character"),
        (b'{"a": "b', "cut off: the text ends in the middle, at character 8"),
        (b'{"a": "\xff"}', "invalid UTF-8: byte 8"),
        (b'{"a": "\x00"}', "NUL character: a zero byte in the file; is it UTF-16?"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": "' + b"a" * json_rows.MAX_LINE, "line too long: over 16,777,216 bytes"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_reasons(line, expected):
    reject = line_value(line, Decoder())
    assert isinstance(reject, Reject)
    assert str(reject).startswith(expected) and str(reject).isprintable()


@pytest.mark.parametrize(
    "line, expected",
    [
        (b'{"a": 1, "a": 2, "b": 3}', {"a": "duplicate key: 'a'", "b": "3"}),
        (
            b'{"a": {"b\\n": 1, "b\\n": 1}}',
            {"a": """{'b\\n': Reject("duplicate key: 'b\\\\n'")}"""},
        ),
        (b'{"a": NaN, "b": -Infinity}', {"a": "nan", "b": "-inf"}),
        (b'{"a": ' + b"1" * 5000 + b', "b": 3}', {"a": "number too long: 5000 digits", "b": "3"}),
    ],
    ids=("repeated", "inside", "no number", "long"),
)
def test_values_that_cannot_be_used_stand_alone(line, expected):
    row = line_value(line, Decoder())
    assert {key: str(value) for key, value in row.items()} == expected
    assert isinstance(row["a"], Reject) == ("key: 'a'" in expected["a"] or "5000" in expected["a"])


@pytest.mark.parametrize("number", ["3.0", "0.10", "1e2", "-0.0", "1E+05", "1e999", "1e-05"])
def test_numbers_keep_the_way_they_are_written(number):
    for value in (
        line_value(f'{{"a": {number}}}'.encode(), Decoder())["a"],
        items(f'[{{"a": {number}}}]'.encode())[0][1]["a"],
    ):
        assert isinstance(value, Number) and value == number


def plain(value):
    """A value as Python's own decoder has it."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return float(value) if isinstance(value, Number) else value


@given(VALUE)
def test_every_line_is_itself(value):
    read = line_value(b"\t " + json.dumps(value).encode() + b"\r\n", Decoder())
    assert plain(read) == value


@given(st.lists(ROW, max_size=4), st.sampled_from([None, 1]), st.integers(1, 40), st.booleans())
def test_list_in_chunks_of_any_size(rows, indent, chunk, ascii_only):
    data = json.dumps(rows, indent=indent, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "_CHUNK", chunk)
        found = items(data)
    if all(not isinstance(value, str) for _, value in found):  # else a raw surrogate was refused
        assert [plain(value) for _, value in found] == rows
        lines = data.decode().split("\n") if indent else []
        assert all(lines[number - 1][:2] == " {" for number, _ in found if indent)


@given(st.lists(ROW, min_size=1, max_size=3), st.sampled_from([None, 2]), st.data())
def test_cut_off_anywhere(rows, indent, data):
    whole = json.dumps(rows, indent=indent).encode()
    length = data.draw(st.integers(1, len(whole) - 1))
    found = items(whole[:length])
    kept = [plain(value) for _, value in found[:-1]]
    assert kept == rows[: len(kept)]
    if found:  # a row that is not all there is never one of them
        assert found[-1][1].startswith("cut off: the file ends inside this ")
        assert found[-1][1].endswith(f"character {length}")
    ends = [len(json.dumps(rows[: n + 1], indent=indent)) for n in range(len(rows))]
    closing = 2 if indent else 1
    assert len(kept) == sum(end - closing <= length for end in ends)


def test_where_a_cut_off_list_stops():
    data = b'\n[\n {"a": 1},\n {"a":\n  "b'
    assert items(data) == [
        (3, {"a": 1}),
        (4, "cut off: the file ends inside this item, line 5, character 25"),
    ]
    data = b'[{"a": 1}'
    assert items(data)[-1] == (1, "cut off: the file ends inside this list, line 1, character 9")


def test_bad_items_do_not_end_the_list():
    rows = [
        (b'{"a": 1}', {"a": 1}),
        (b'{"a": "\xff"}', "invalid UTF-8: in this item"),
        (b"3", 3),
        ('{"é": "\U0001f600"}'.encode(), {"é": "\U0001f600"}),
    ]
    data = b"\xef\xbb\xbf[" + b",\n".join(row for row, _ in rows) + b"]\n"
    assert items(data) == [(n, expected) for n, (_, expected) in enumerate(rows, 1)]


@pytest.mark.parametrize(
    "data, expected",
    [
        (b'[{"a": 1},\n{"a": x}]', r"a.json:2: invalid JSON: Expecting value, at character 18 of"),
        (b'[{"a": 1}\n{"a": 2}]', r"a.json:2: invalid JSON: expected ',' or '\]' after an item"),
        (b"[1, 2]\n[3]", r"a.json:2: invalid JSON: more text after the end of the list"),
        (b"[1, 2,\n]", r"a.json:2: invalid JSON: Expecting value"),
        (b'["\n"]', r"a.json:1: invalid JSON: Invalid control character"),
        (b"[" * 100_000, r"a.json:1: nested too deeply"),
    ],
)
def test_after_a_syntax_error_nothing_is_guessed(data, expected):
    with pytest.raises(UserError, match=f"^{expected}") as error:
        items(data)
    assert "\n" not in str(error.value)


def test_an_enormous_item(monkeypatch):
    monkeypatch.setattr(json_rows, "MAX_LINE", 100)
    monkeypatch.setattr(json_rows, "_CHUNK", 10)
    with pytest.raises(UserError, match=r"a\.json:2: too long: an item of over 100 characters"):
        items(b'[1,\n{"a": "' + b"a" * 1000 + b'"}]')


def test_time_grows_with_the_file_only(monkeypatch):
    """An item many times as long as a chunk is not scanned once per chunk."""
    monkeypatch.setattr(json_rows, "_CHUNK", 64)
    scans = []
    scan = Decoder.at
    monkeypatch.setattr(Decoder, "at", lambda *a: scans.append(1) or scan(*a))
    rows = [{"a": "x" * 100_000}] * 3
    assert [row for _, row in items(json.dumps(rows).encode())] == rows
    assert len(scans) < 40


@pytest.mark.parametrize("chunk", [1, 2, 3, 5])
def test_numbers_and_words_across_chunks(monkeypatch, chunk):
    monkeypatch.setattr(json_rows, "_CHUNK", chunk)
    values = [123, -4.5e10, 6789, True, None, 0.25]
    assert [plain(value) for _, value in items(json.dumps(values).encode())] == values
