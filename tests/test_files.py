import bz2
import csv
import gzip
import io
import json
import lzma
import re
from pathlib import Path

import pyarrow
import pytest
from array_record.python import array_record_module  # ty: ignore[missing-module-member]
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from sft.data.conversation import Reject
from sft.data.read import files, opening, paths, tables
from sft.data.read.files import Wanted
from sft.errors import UserError

PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
ROWS = [{"prompt": "a, b", "answer": "c"}, {"prompt": 'é "q"\n\n\r\n d', "answer": " \tx"}]


def array_record(path, records) -> None:
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def write(path, rows=ROWS) -> str:
    """``rows`` in the container that the ending of ``path`` names."""
    kind = re.sub(r"\.(gz|bz2|xz)$", "", path.name).rsplit(".", 1)[-1]
    if kind in ("parquet", "arrow"):
        table = pyarrow.Table.from_pylist(rows)
        if kind == "parquet":
            parquet.write_table(table, path)
        else:
            with ipc.new_stream(str(path), table.schema) as writer:
                writer.write(table)
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
        path.write_bytes(PACKERS.get(path.suffix, bytes)(data))
    return str(path)


def read(path, container="", reads=bool, **wanted) -> list:
    return [
        (number, str(row) if isinstance(row, Reject) else row)
        for number, row in files.rows(str(path), Wanted(container, reads, **wanted))
    ]


PLACES = {  # of the two rows
    **dict.fromkeys(["a.jsonl", "a.ndjson", "a.JSONL", "a.jsonl.gz", "a.jsonl.bz2"], (1, 2)),
    **dict.fromkeys(["a.json", "a.json.gz", "a.json.xz"], (2, 6)),
    **dict.fromkeys(["a.csv", "a.tsv", "a.csv.gz", "a.tsv.xz"], (2, 3)),
    **dict.fromkeys(["a.parquet", "a.arrow", "a.array_record"], (0, 1)),
}


@pytest.mark.parametrize("name", PLACES)
def test_every_container_gives_the_same_rows(tmp_path, name):
    path = write(tmp_path / name.replace("JSONL", "jsonl"))
    if name == "a.JSONL":
        path = Path(path).rename(tmp_path / name)
    found = read(path, "", lambda column: True)
    assert found == list(zip(PLACES[name], ROWS, strict=True))


def test_container_by_name_and_sharded_names(tmp_path):
    (tmp_path / "a.txt").write_text('{"a": 1}\n\n {"a": 2}')
    assert read(tmp_path / "a.txt", "jsonl") == [(1, {"a": 1}), (3, {"a": 2})]
    (tmp_path / "b.json").write_text('\n{"a": 1}\n{"a": }\n')  # one object per line
    assert [number for number, _ in read(tmp_path / "b.json")] == [2, 3]
    shard = tmp_path / "c.array_record-00000-of-00002"
    array_record(shard, [b'{"a": 1}', b"\xff"])
    assert read(shard) == [(0, {"a": 1}), (1, "invalid UTF-8: byte 1")]


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
    monkeypatch.setattr(tables, "MAX_LINE", 100)
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
        "cut.jsonl.gz": zipped[:-12],
        "flipped.jsonl.gz": zipped[:12] + bytes([zipped[12] ^ 255]) + zipped[13:],
        "plain.json.gz": b"[]",
        **{"twice.csv": b"a,b,a\n1,2,3\n", "unnamed.csv": b"a,,b\n1,2,3\n"},
        **{"utf16.csv": "a,b\n1,2\n".encode("utf-16"), "nul.csv": b"a\0,b\n1,2\n"},
        "latin.csv": "é,b\n1,2\n".encode("latin-1"),
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
        ("cut.jsonl.gz", ": damaged gzip"),
        ("flipped.jsonl.gz", ": damaged gzip"),
        ("plain.json.gz", ": damaged gzip"),
        ("twice.csv", ":1: two columns are called 'a'. Rename one."),
        ("unnamed.csv", ":1: column 2 has no name in the header. Give it one."),
        (
            "utf16.csv",
            ": text in UTF-16, and UTF-8 is expected. Convert it: iconv -f UTF-16 -t UTF",
        ),
        ("latin.csv", ":1: not UTF-8 in line 1. Save the file as UTF-8: iconv -f WINDOWS"),
        ("nul.csv", ":1: zero bytes; is it UTF-16?. Save the file as UTF-8: iconv"),
        ("open.csv", ":3: the row that starts here has a wrong or unclosed quote, seen in line 4"),
        ("quote.csv", ":2: the row that starts here has a wrong or unclosed quote"),
        ("mac.csv", ": lines end with CR alone, expected LF or CRLF: tr '\\r' '\\n' < "),
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
        [read(path) for path in paths.expand(f"gs://b/{name}")]
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
