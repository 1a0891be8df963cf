"""Files of other formats, and under other names: what they are is said, and what to do works."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import ipc
from test_files import write

from sft.data.read import records
from sft.data.read.records import Reading, Source
from sft.errors import UserError

ROWS = [{"input_text": f"q {n}", "output_text": f"a {n}"} for n in range(5)]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS)
TABLE = "input_text,output_text\n" + "".join(f"q {n},a {n}\n" for n in range(5))


def answers(path, **reading) -> list[str]:
    found = records.read([Source("", str(path), Reading(**reading))]).conversations
    return [conversation.turns[1].text for conversation in found]


def refused(path, **reading) -> str:
    with pytest.raises(UserError) as error:
        answers(path, **reading)
    text = str(error.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and text.isprintable()
    return text.removeprefix(f"{path}: ")


RIGHT = [row["output_text"] for row in ROWS]
PACKERS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.jsonl.gz", "a.jsonl.xz"]
)
def test_compressed_text_is_read_whatever_its_name(tmp_path, packer, name):
    text = {"a.csv": TABLE, "a.tsv": TABLE.replace(",", "\t")}.get(name, TEXT)
    (tmp_path / name).write_bytes(PACKERS[packer](text.encode()))
    assert answers(tmp_path / name) == RIGHT


@pytest.mark.parametrize("packer", PACKERS)
def test_damaged_compression_is_one_line(tmp_path, packer):
    whole = PACKERS[packer](TEXT.encode() * 200)
    for damaged in (whole[:-20], whole[: len(whole) // 2], whole[:40] + b"\0" * 200 + whole[240:]):
        (tmp_path / "a.jsonl").write_bytes(damaged)
        assert refused(tmp_path / "a.jsonl").startswith(f"damaged {packer} file: ")


def stream(path) -> bytes:
    table = pyarrow.Table.from_pylist(ROWS)
    with ipc.new_file(str(path), table.schema) as writer:
        writer.write(table)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["parquet", "arrow", "array_record", "arrow file"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.dat", "noending", "a.parquet"])
def test_tables_are_read_whatever_their_name(tmp_path, kind, name):
    good = tmp_path / f"good.{kind.partition(' ')[0]}"
    data = stream(good) if kind == "arrow file" else Path(write(good, ROWS)).read_bytes()
    (tmp_path / name).write_bytes(data)
    assert answers(tmp_path / name) == RIGHT
    container = "arrayrecord" if kind == "array_record" else kind.partition(" ")[0]
    for wrong in {"jsonl", "parquet", "csv"} - {container}:
        text = refused(tmp_path / name, container=wrong)
        assert text == (
            f"config.data.reading.container = {wrong!r}, but the file is {container}. "
            f"Set it to {container!r}."
        )
    assert answers(tmp_path / name, container=container) == RIGHT


def archive() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("a.jsonl")
        info.size = len(TEXT)
        tar.addfile(info, io.BytesIO(TEXT.encode()))
    return file.getvalue()


def zipped(*names) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as found:
        for name in names:
            found.writestr(name, TEXT)
    return file.getvalue()


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(9))
    return file.getvalue()


FOREIGN = {
    "zstd": (b"\x28\xb5\x2f\xfd" + TEXT.encode(), "compressed with Zstandard. Unpack it with zstd"),
    "lz4": (b"\x04\x22\x4d\x18" + TEXT.encode(), "compressed with LZ4. Unpack it with lz4 -d"),
    "zip": (zipped("a.jsonl"), "a ZIP archive. Unpack it with unzip"),
    "xlsx": (
        zipped("[Content_Types].xml", "xl/a.xml"),
        "an Excel workbook. Save its sheet as “CSV",
    ),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, "an Excel workbook. Save its sheet"),
    "tar": (archive(), "a tar archive. Unpack it with tar -xf"),
    "tar.gz": (gzip.compress(archive()), "a tar archive. Unpack it with tar -xf"),
    "pickle": (
        pickle.dumps(ROWS),
        "a Python pickle. Load it, and save its rows as Parquet: pandas.",
    ),
    "old": (pickle.dumps(ROWS, protocol=2), "a Python pickle. Load it"),
    "npy": (array(), "a NumPy array. Save its rows as Parquet or JSONL."),
    "sqlite": (b"SQLite format 3\0" + b"\0" * 99, "an SQLite database. Save its table as CSV"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "an HDF5 file. Load it"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "a Git LFS pointer, not the file itself. Fetch it with git lfs pull.",
    ),
    "html": (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "a page of HTML or XML, perhaps"),
    "table": (b'<table border="1">\n<tr><td>a</td></tr></table>', "a page of HTML or XML, perhaps"),
    "xml": (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "a page of HTML or XML, perhaps"),
    "utf16": (
        TABLE.encode("utf-16"),
        "text in UTF-16, and UTF-8 is expected. Convert it: iconv -f",
    ),
    "utf16be": (b"\xfe\xff" + TABLE.encode("utf-16-be"), "text in UTF-16, and UTF-8 is expected"),
    "unmarked": (TEXT.encode("utf-16-le"), "text in UTF-16LE, and UTF-8 is expected"),
    "unmarked be": (TEXT.encode("utf-16-be"), "text in UTF-16BE, and UTF-8 is expected"),
    "utf32": (TEXT.encode("utf-32"), "text in UTF-32, and UTF-8 is expected"),
    "png": (
        b"\x89PNG\r\n\x1a\n" + bytes(range(32)) * 9,
        "neither text nor a known table. Save its",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "b.json.gz", "a.xyz", "a", "a.tsv"])
def test_other_formats_are_called_what_they_are(tmp_path, kind, name):
    data, expected = FOREIGN[kind]
    packs = name.endswith(".gz") and kind != "tar.gz"
    (tmp_path / name).write_bytes(gzip.compress(data) if packs else data)
    assert refused(tmp_path / name).startswith(expected)
    assert refused(tmp_path / name, container="jsonl").startswith(expected)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.array_record"])
@pytest.mark.parametrize("kind", ["lfs", "html", "zip", "xlsx", "zstd", "utf16"])
def test_in_the_place_of_a_table_too(tmp_path, name, kind):
    data, expected = FOREIGN[kind]
    (tmp_path / name).write_bytes(data)
    assert refused(tmp_path / name).startswith(expected)


@pytest.mark.parametrize("packer", PACKERS)
def test_a_table_compressed_as_a_whole(tmp_path, packer):
    data = Path(write(tmp_path / "good.parquet", ROWS)).read_bytes()
    unpacker = {"gzip": "gunzip", "bzip2": "bunzip2", "xz": "unxz"}[packer]
    ending = {"gzip": "gz", "bzip2": "bz2", "xz": "xz"}[packer]
    for name in ("a.parquet", "a.jsonl", f"a.parquet.{ending}"):
        (tmp_path / name).write_bytes(PACKERS[packer](data))
        assert refused(tmp_path / name).endswith(f"Unpack it with {unpacker}.")


@pytest.mark.parametrize("kind", ["utf16", "utf16be", "unmarked", "unmarked be", "utf32"])
def test_the_command_that_converts_works(tmp_path, kind):
    name = "the rows.csv" if "TABLE" in kind or kind in ("utf16", "utf16be") else "the rows.jsonl"
    (tmp_path / name).write_bytes(FOREIGN[kind][0])
    command = refused(tmp_path / name).partition("Convert it: ")[2].partition(", with")[0]
    new = tmp_path / f"new.{name.partition('.')[2]}"
    subprocess.run(command.replace("NEW", f"'{new}'"), shell=True, check=True)
    assert answers(new) == RIGHT


def test_ordinary_text_is_not_taken_for_anything_else(tmp_path):
    for header in ("PAR1", "BZh", "ORCID", "Rar", "PK", "sep", "<prompt>", "Obj"):
        (tmp_path / "a.csv").write_text(f"{header},output_text\nq,a\n")
        assert answers(tmp_path / "a.csv", prompt=header) == ["a"]
    (tmp_path / "a.jsonl").write_text(
        '{"input_text": "\\u0000\\u0001", "output_text": "b"}\n' + TEXT
    )
    with pytest.raises(UserError, match=r"a.jsonl:1: NUL character: input_text, character 1"):
        answers(tmp_path / "a.jsonl")


def test_a_file_that_is_not_there(tmp_path):
    for name in ("a.jsonl", "a.xyz", "a", "a.parquet"):
        text = refused(tmp_path / name)
        assert text.startswith("cannot read: No such file or directory")
