import csv
import gzip
import io
import json
import re
from pathlib import Path

import pyarrow
import pytest
from array_record.python import array_record_module  # ty: ignore[missing-module-member]
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from sft.data import files, opening
from sft.data.conversation import Reject
from sft.errors import UserError

ROWS = [{"prompt": "a, b", "answer": "c"}, {"prompt": 'é "q"\n\n\r\n d', "answer": " \tx"}]


def array_record(path, records) -> None:
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def write(path, rows=ROWS) -> str:
    """``rows`` in the container that the ending of ``path`` names."""
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    if kind == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return str(path)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = io.StringIO(newline="")
    if kind == "array_record":
        array_record(path, [line.encode() for line in lines])
    else:
        if kind in ("csv", "tsv"):
            table = csv.writer(text, delimiter="," if kind == "csv" else "\t")
            table.writerows([list(rows[0]), *(list(row.values()) for row in rows)])
        else:
            text.write(json.dumps(rows, indent=1) if kind == "json" else "\n".join(lines))
        data = text.getvalue().encode()
        path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return str(path)


def read(path, *args) -> list:
    return [
        (number, str(row) if isinstance(row, Reject) else row)
        for number, row in files.rows(str(path), *args)
    ]


PLACES = {  # of the two rows
    **dict.fromkeys(["a.jsonl", "a.ndjson", "a.JSONL", "a.jsonl.gz"], (1, 2)),
    **dict.fromkeys(["a.json", "a.json.gz"], (2, 6)),
    **dict.fromkeys(["a.csv", "a.tsv", "a.csv.gz", "a.tsv.gz"], (2, 3)),
    **dict.fromkeys(["a.parquet", "a.array_record"], (0, 1)),
}


@pytest.mark.parametrize("name", PLACES)
def test_every_container_gives_the_same_rows(tmp_path, name):
    path = write(tmp_path / name) if name != "a.JSONL" else write(tmp_path / "a.jsonl")
    found = read(path, "jsonl" if name == "a.JSONL" else "", lambda column: True)
    assert found == list(zip(PLACES[name], ROWS, strict=True))


def test_container_by_name_and_sharded_names(tmp_path):
    (tmp_path / "a.txt").write_text('{"a": 1}\n\n {"a": 2}')
    assert read(tmp_path / "a.txt", "jsonl") == [(1, {"a": 1}), (3, {"a": 2})]
    (tmp_path / "b.json").write_text('\n{"a": 1}\n{"a": }\n')  # one object per line
    assert [number for number, _ in read(tmp_path / "b.json")] == [2, 3]
    shard = tmp_path / "c.array_record-00000-of-00002"
    array_record(shard, [b'{"a": 1}', b"\xff"])
    assert read(shard) == [(0, {"a": 1}), (1, "invalid UTF-8: byte 1")]


def test_globs_are_sorted_and_brackets_may_be_in_a_name(tmp_path, monkeypatch):
    for name in ("b-2.jsonl", "b-10.jsonl", "b-1.jsonl", "c[1].jsonl", "c1.jsonl"):
        (tmp_path / name).write_text("{}")
    found = files.expand(f"{tmp_path}/c1.jsonl, {tmp_path}/b-*.jsonl")
    names = [path.removeprefix(f"{tmp_path}/") for path in found]
    assert names == ["c1.jsonl", "b-1.jsonl", "b-10.jsonl", "b-2.jsonl"]
    assert files.expand(f"{tmp_path}/c[1].jsonl") == [f"{tmp_path}/c[1].jsonl"]
    monkeypatch.chdir(tmp_path)
    assert files.expand("c[0-9].jsonl") == ["c1.jsonl"]
    assert files.expand(f"{tmp_path}/../*[0-9]/c1.jsonl")[-1].endswith("0/c1.jsonl")
    for paths, message in [
        (f"{tmp_path}/x*.jsonl", rf"x\*\.jsonl: no file matches. Looked in {tmp_path}/"),
        (f"{tmp_path}/no/*.jsonl", "no file matches"),
        (f"{tmp_path}/**/a.jsonl", "one \\* per folder"),
        ("a.jsonl,,b.jsonl", "an empty path in 'a.jsonl,,b.jsonl'"),
        ("", "an empty path"),
    ]:
        with pytest.raises(UserError, match=message):
            files.expand(paths)


TABLE = [
    ("a,b\n1,2\n", [(2, {"a": "1", "b": "2"})]),
    ("\ufeffa,b\r\n1,\r\n\r\n", [(2, {"a": "1", "b": ""})]),
    ('a,b\n\n"x\n\n""y""",2\n3,4', [(3, {"a": 'x\n\n"y"', "b": "2"}), (6, {"a": "3", "b": "4"})]),
    ("a,b\n1\n1,2,3\n", [(2, "wrong number of fields: 1 fields, the header has 2")]),
    ("a,b\n1,2,3\n4,5\n", [(2, "wrong number of fields: 3 fields, the header has 2")]),
    ('a,b\n5" tall,2\n', [(2, {"a": '5" tall', "b": "2"})]),
    (b'a,b\n"x\n\xff",2\n3,4\n', [(2, "invalid UTF-8: not UTF-8 in line 3"), (4, {"a": "3"})]),
    (b"a,b\n1,\xed\xa0\x80\n", [(2, "invalid UTF-8: not UTF-8 in line 2")]),
]


@pytest.mark.parametrize("text, expected", TABLE, ids=range(len(TABLE)))
def test_tables(tmp_path, text, expected):
    (tmp_path / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    for (number, found), (place, want) in zip(read(tmp_path / "a.csv"), expected, strict=False):
        assert number == place
        assert found == want if isinstance(want, str) else found.items() >= want.items()


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=6)


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=4), st.sampled_from(",\t"))
def test_tables_keep_every_character(tmp_path_factory, cells, delimiter):
    path = tmp_path_factory.getbasetemp() / ("any.csv" if delimiter == "," else "any.tsv")
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([("a", "b"), *cells])
    assert [tuple(row.values()) for _, row in read(path)] == cells


def test_parquet_columns_nulls_and_nested_values(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": "x", "name": None}], "big": b"1", "n": None},
        {"messages": [{"role": "user", "content": None, "name": "y"}], "big": b"2", "n": 3},
    ]
    path = write(tmp_path / "a.parquet", rows)
    assert read(path, "", lambda name: name != "big") == [
        (0, {"messages": [{"role": "user", "content": "x"}], "big": None, "n": None}),
        (1, {"messages": [{"role": "user", "name": "y"}], "big": None, "n": 3}),
    ]
    assert read(path, "", lambda name: False)[1] == (1, {"messages": None, "big": None, "n": None})


def test_parquet_row_that_is_not_utf8(tmp_path):
    texts = pyarrow.array([b"a", b"\xff", b"c"]).cast(pyarrow.string(), safe=False)
    moments = pyarrow.array([0, 2**62, 0], pyarrow.timestamp("us"))  # the year 148109
    parquet.write_table(pyarrow.table({"t": texts, "m": moments}), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet", "", lambda name: name == "t")
    assert [value if isinstance(value, str) else value["t"] for _, value in found] == [
        *("a", "invalid UTF-8: byte 1 of a text", "c")
    ]
    found = read(tmp_path / "a.parquet", "", lambda name: name == "m")
    assert [isinstance(value, str) for _, value in found] == [False, True, False]
    assert found[1][1].startswith("wrong type: ")


def test_an_enormous_line_does_not_hide_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_LINE", 100)
    monkeypatch.setattr(files.json_rows, "MAX_LINE", 100)
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": "' + "x" * 1000 + '"}\n{"a": 3}')
    assert read(tmp_path / "a.jsonl") == [
        *[(1, {"a": 1}), (2, "line too long: over 100 bytes"), (3, {"a": 3})]
    ]
    (tmp_path / "a.csv").write_text("a\n" + "x" * 1000)
    with pytest.raises(UserError, match=r"a\.csv:2: a line of over 100 bytes"):
        read(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text('a\n"' + "x\n" * 1000)
    with pytest.raises(UserError, match=r"a\.csv:2: the row .*field larger than field limit"):
        read(tmp_path / "a.csv")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged")
    zipped = gzip.compress(json.dumps(ROWS * 50).encode())
    whole = Path(write(path / "whole.parquet")).read_bytes()
    record = Path(write(path / "whole.array_record")).read_bytes()
    for name, content in {
        **{"empty.jsonl": b"\n \n", "empty.json": b"", "list.json": b"[ ]", "head.csv": b"a,b\n"},
        "cut.jsonl.gz": zipped[:-12],
        "flipped.jsonl.gz": zipped[:12] + bytes([zipped[12] ^ 255]) + zipped[13:],
        "plain.json.gz": b"[]",
        **{"twice.csv": b"a,b,a\n1,2,3\n", "unnamed.csv": b"a,,b\n1,2,3\n"},
        **{"utf16.csv": "a,b\n1,2\n".encode("utf-16"), "nul.csv": b"a\0,b\n1,2\n"},
        **{"open.csv": b'a,b\n1,2\n"3,4\n5,6\n', "quote.csv": b'a,b\n"1"x,2\n', "mac.csv": b"a\rb"},
        **{"cut.parquet": whole[:-30], "text.parquet": b"{}", "cut.array_record": record[:900]},
        **{"a.parquet.gz": b"", "a.txt": b"{}", "noending": b"{}"},
    }.items():
        (path / name).write_bytes(content)
    (path / "folder.jsonl").mkdir()
    (path / "folder.parquet").mkdir()
    return path


@pytest.mark.parametrize(
    "name, message",
    [
        ("none.jsonl", ": cannot read: No such file"),
        ("none.csv", ": cannot read: No such file"),
        ("none.parquet", ": cannot read: No such file"),
        ("none.array_record", ": cannot read: No such file"),
        ("folder.jsonl", ": cannot read: Is a directory"),
        ("folder.parquet", ": cannot read: Is a directory"),
        ("empty.jsonl", ": no rows. Expected JSONL, one example per line."),
        ("empty.json", ": no rows. Expected a JSON list"),
        ("list.json", ": no rows. Expected a JSON list"),
        ("head.csv", ": no rows. Expected a header and one example per row."),
        ("cut.jsonl.gz", ": damaged gzip"),
        ("flipped.jsonl.gz", ": damaged gzip"),
        ("plain.json.gz", ": damaged gzip"),
        ("twice.csv", ":1: two columns are called 'a'. Rename one."),
        ("unnamed.csv", ":1: column 2 has no name in the header. Give it one."),
        ("utf16.csv", ":1: not UTF-8 in line 1. Save the file as UTF-8."),
        ("nul.csv", ":1: zero bytes; is it UTF-16?. Save the file as UTF-8."),
        ("open.csv", ":3: the row that starts here has a wrong or unclosed quote, seen in line 4"),
        ("quote.csv", ":2: the row that starts here has a wrong or unclosed quote"),
        ("mac.csv", ":1: the row that starts here"),
        ("cut.parquet", ": damaged Parquet file"),
        ("text.parquet", ": damaged Parquet file"),
        ("cut.array_record", ": damaged ArrayRecord file: no index at its end; is it cut off?"),
        ("a.parquet.gz", ": a .parquet file is compressed inside. Unpack it with gunzip."),
        ("a.txt", ": unknown ending. Expected .jsonl, .ndjson"),
        ("noending", ": unknown ending"),
    ],
)
def test_files_that_cannot_be_used(damaged, name, message):
    with pytest.raises(UserError, match=f"^{re.escape(f'{damaged}/{name}{message}')}") as error:
        read(damaged / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "*.jsonl"])
def test_bucket_without_a_backend(monkeypatch, name):
    class Unreachable:
        def __init__(self, path):
            raise ImportError("Please install gcsfs\nto access it.")

    monkeypatch.setattr(opening.epath, "Path", Unreachable)
    expected = f"gs://b/{name}: cannot read: Please install gcsfs to access it. Install tensorflow"
    with pytest.raises(UserError, match=re.escape(expected)) as error:
        [read(path) for path in files.expand(f"gs://b/{name}")]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz", "a.parquet", "a.array_record"]
)
def test_bucket_with_a_file_that_can_only_read(tmp_path, monkeypatch, name):
    content = Path(write(tmp_path / name)).read_bytes()

    class Remote:
        def __init__(self, path):
            assert path == f"gs://b/{name}"
            self._bytes = io.BytesIO(content)

        def open(self, mode):
            assert mode == "rb"
            return self

        def read(self, size):
            return self._bytes.read(size)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(opening.epath, "Path", Remote)
    assert [row for _, row in read(f"gs://b/{name}", "", lambda column: True)] == ROWS


@given(st.binary(max_size=30), st.integers(1, 9))
def test_lines_in_chunks_of_any_size(content, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "_CHUNK", chunk)
        found = list(opening.lines(io.BytesIO(content), 100))
        short = list(opening.lines(io.BytesIO(content), 5))
    assert b"".join(line for _, line in found) == content.removeprefix(b"\xef\xbb\xbf")
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    assert all(line.find(b"\n") in (-1, len(line) - 1) for _, line in found)
    for (number, line), (same, piece) in zip(found, short, strict=True):
        assert number == same and (piece == line if len(line) <= 5 else len(piece) > 5)
