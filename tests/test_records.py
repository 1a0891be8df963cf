import gzip
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.data.characters import is_blank
from sft.data.read import records as records_lib
from sft.data.read.records import Conversation, Reading, Source, Turn, gemini_row
from sft.errors import UserError

PAIR = {"input_text": "2 + 2 = ?", "output_text": "4"}
MISSING = (
    "missing field: output_text; the row has 'input_text': set config.data.reading.response to the "
    "column of the answer"
)
CHAT = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}


def write(path, *rows) -> str:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return str(path)


def read(paths: str, *args, **reading):
    return records_lib.read([Source("", paths, Reading(**reading))], *args)


def test_reads_several_files_plain_and_gzip_in_order(tmp_path):
    first = write(tmp_path / "a.jsonl", PAIR, b"", b"  \r", {**PAIR, "output_text": "5"})
    zipped = tmp_path / "b.jsonl.gz"
    zipped.write_bytes(gzip.compress(json.dumps({**PAIR, "output_text": "6"}).encode()))
    records = read(f"{first}, {zipped}")
    answers = [(c.turns[1].text, c.source) for c in records.conversations]
    assert answers == [("4", f"{first}:1"), ("5", f"{first}:4"), ("6", f"{zipped}:1")]
    assert (records.rejected, records.counts) == ([], {})


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    line = json.dumps(PAIR).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\r\n" + line + b"\r\n")
    assert len(read(str(tmp_path / "a.jsonl")).conversations) == 2


def test_every_source_is_read_in_its_own_way_and_counted(tmp_path):
    (tmp_path / "t.csv").write_text("q,a,note,kind\nx,y,n,5\n,y,n,6\n")
    write(tmp_path / "a-1.jsonl", CHAT | {"id": "d_0"}, CHAT | {"id": "e_0"})
    write(tmp_path / "a-2.jsonl", CHAT | {"id": "d_1"}, PAIR, {"conversations": []})
    chats = Reading(group="id", group_regex=r"^(.*)_\d+$")
    table = Reading(prompt="q", response="a", category="kind", instruction="S")
    sources = [
        Source("chats", f"{tmp_path}/a-*.jsonl", chats),
        Source("", f"{tmp_path}/t.csv", table),
    ]
    records = records_lib.read(sources, max_rejected=0.5)
    assert records.conversations[:3] == [
        Conversation((Turn("user", "a"), Turn("model", "b")), None, place, "chats", group)
        for place, group in [
            *((f"{tmp_path}/a-1.jsonl:1", "d"), (f"{tmp_path}/a-1.jsonl:2", "e")),
            (f"{tmp_path}/a-2.jsonl:1", "d"),
        ]
    ]
    last = records.conversations[3]
    assert (last.origin, last.category, last.system) == (f"{tmp_path}/t.csv", "5", "S")
    assert records.rejected == [
        (
            f"{tmp_path}/a-2.jsonl:2",
            "missing field: id; the row has 'input_text', 'output_text': correct "
            "config.data.reading.group",
        ),
        (
            f"{tmp_path}/a-2.jsonl:3",
            "no turns: conversations has no turns, expected at least a question and an answer",
        ),
        (f"{tmp_path}/t.csv:3", "empty text: q has no visible text"),
    ]
    assert records.counts == {"missing field": 1, "no turns": 1, "empty text": 1}
    assert records.unread == {"note": 1}  # of the rows that are used
    assert records.rows == {
        "chats": {"read": 5, "rejected": 2},
        f"{tmp_path}/t.csv": {"read": 2, "rejected": 1},
    }


def test_repaired_rows_are_counted(tmp_path):
    turns = CHAT["conversations"]
    rows = [CHAT, {"conversations": turns[1:] + turns}, {"conversations": turns + turns[:1]}]
    path = write(tmp_path / "a.jsonl", *rows, {"conversations": turns[1:]})
    assert len(read(path, 1.0).conversations) == 1
    records = read(path, 1.0, repair="leading_model,trailing_user")
    assert [len(c.turns) for c in records.conversations] == [2, 2, 2]
    assert records.repaired == {"leading_model": 1, "trailing_user": 1}
    assert len(records.rejected) == 1  # nothing was left of it


def test_production_prompts(tmp_path):
    path = write(tmp_path / "a.jsonl", {"input_text": "a"}, PAIR)
    found = records_lib.read([Source("", path)], answers=False).conversations
    assert [len(c.turns) for c in found] == [1, 2]


def test_rejected_rows_are_listed_and_counted(tmp_path):
    bad = [{"input_text": "a"}, b"{", {"input_text": "b"}]
    path = write(tmp_path / "a.jsonl", *[PAIR] * 297, *bad)
    records = read(path)
    assert len(records.conversations) == 297
    assert records.counts == {"missing field": 2, "invalid JSON": 1}
    assert [source for source, _ in records.rejected] == [f"{path}:{n}" for n in (298, 299, 300)]
    assert records.rejected[0][1] == MISSING


def test_a_list_that_is_cut_off(tmp_path):
    whole = json.dumps([PAIR] * 3, indent=1)
    (tmp_path / "a.json").write_text(whole[: whole.rindex("4")])
    records = read(str(tmp_path / "a.json"), 0.5)
    assert len(records.conversations) == 2
    source, reason = records.rejected[0]
    assert source == f"{tmp_path}/a.json:10"
    assert reason.startswith("cut off: the file ends inside this item, line 12, character ")


def test_too_many_rejected_rows(tmp_path):
    path = write(tmp_path / "a.jsonl", PAIR, {"input_text": "a"}, b"{", *[PAIR] * 97)
    expected = (
        f"{path}:2: {MISSING}. 2 of 100 rows rejected "
        "(missing field 1, invalid JSON 1); the limit is 1.0%. Correct them, or raise "
        "config.data.max_rejected."
    )
    with pytest.raises(UserError, match=f"^{re.escape(expected)}$"):
        read(path)
    assert len(read(path, 0.02).conversations) == 98


def test_no_usable_row(tmp_path):
    path = write(tmp_path / "a.jsonl", b"{")
    with pytest.raises(UserError, match=r"1 of 1 rows rejected .*none is usable. Correct them.$"):
        read(path, 1.0)
    with pytest.raises(UserError, match="no sources"):
        records_lib.read([])


def test_a_system_column_that_no_row_has(tmp_path):
    path = write(tmp_path / "a.jsonl", PAIR, PAIR | {"rules": "S"})
    assert [c.system for c in read(path, system="rules").conversations] == [None, "S"]
    expected = (
        f"{path}: no row has the column 'role' of config.data.reading.system = 'role'; the rows "
        "have 'input_text', 'output_text', 'rules'. Correct the name, or set it to \"\"."
    )
    with pytest.raises(UserError, match=f"^{re.escape(expected)}$"):
        read(path, system="role")


def test_rows_without_columns_have_other_faults(tmp_path):
    path = write(tmp_path / "a.jsonl", ["q", "a"], ["r", "b"])
    with pytest.raises(UserError, match=r"a\.jsonl:1: not an object: found a list"):
        read(path, template="{x} {prompt}", system="s")


def test_parquet_with_nulls(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").Table.from_pylist(
        [
            {"q": "a", "a": "b", "s": None, "messages": None, "m": 1},
            {"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]},
            {"q": "a", "a": None},
        ],
        schema=None,
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    found = read(f"{tmp_path}/a.parquet", 0.5, prompt="q", response="a", system="s")
    assert [[t.text for t in c.turns] for c in found.conversations] == [["a", "b"], ["c", "d"]]
    assert found.rejected == [(f"{tmp_path}/a.parquet:2", "missing field: a is null")]


def test_an_unusable_file_among_good_ones(tmp_path):
    good = write(tmp_path / "a.jsonl", PAIR)
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"b\.jsonl: text in UTF-16, and UTF-8 is expected"):
        read(f"{good},{tmp_path}/b.jsonl")


TEXT = st.text(min_size=1, max_size=20).filter(lambda t: not is_blank(t) and "\0" not in t)
NAME = st.text(max_size=5).filter(lambda t: not is_blank(t) and "\0" not in t and t[-1] != "0")


@given(
    st.lists(st.tuples(TEXT, TEXT, st.booleans()), min_size=1, max_size=3),
    st.none() | TEXT,
    st.just("") | NAME,
    NAME,
)
def test_gemini_row_is_read_back(tmp_path_factory, exchanges, system, group, category):
    turns = [
        turn for q, a, trained in exchanges for turn in (Turn("user", q), Turn("model", a, trained))
    ]
    turns += [Turn("user", "q"), Turn("model", "a")]
    path = tmp_path_factory.getbasetemp() / "back.jsonl"
    given = Conversation(tuple(turns), system, f"{path}:1", str(path), group, category)
    row = gemini_row(given)
    assert ("group" in row) == bool(group)
    write(path, row)
    found = read(str(path), group="group" if group else "", category="category")
    assert found.conversations == [given] and found.unread == {}
