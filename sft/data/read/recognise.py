"""What a file is by its first bytes, whatever its name: other formats are named, with the way out.

A table of Parquet, Arrow or ArrayRecord under another name can be read all the same, and so can
text that is compressed with gzip, bzip2 or xz.
"""

import codecs
import shlex

from sft.errors import UserError

HEAD = 4096  # bytes that are looked at

_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")  # of bzip2: of data, and the end
_TABLES = {
    b"PAR1\x15": "parquet",
    b"ARROW1\0\0": "arrow",
    b"\xff\xff\xff\xff": "arrow",  # a stream of record batches, as datasets saves it
    bytes.fromhex("83af70d10d884a3f"): "arrayrecord",
}
_PACKED = {b"\x1f\x8b\x08": "gzip", b"\xfd7zXZ\0": "xz"}
_PACKED |= {b"BZh%d%b" % (level, block): "bzip2" for level in range(1, 10) for block in _BLOCKS}
_CSV = "Save its sheet as “CSV UTF-8”."
_PANDAS = "Load it, and save its rows as Parquet: pandas.read_{}(…).to_parquet(…)."
_FOREIGN = {  # first bytes → what it is, what to do
    b"\x28\xb5\x2f\xfd": ("compressed with Zstandard", "Unpack it with zstd -d."),
    b"\x04\x22\x4d\x18": ("compressed with LZ4", "Unpack it with lz4 -d."),
    b"\x1f\x9d": ("compressed with compress", "Unpack it with gunzip."),
    b"PK\x03\x04": ("a ZIP archive", "Unpack it with unzip, and give the files inside."),
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", "Unpack it, and give the files inside."),
    b"Rar!\x1a\x07": ("a RAR archive", "Unpack it, and give the files inside."),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an Excel workbook", _CSV),
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file", _PANDAS.format("hdf")),
    b"SQLite format 3\0": ("an SQLite database", "Save its table as CSV: sqlite3 -header -csv."),
    b"Obj\x01": ("an Avro file", "Save its rows as Parquet or JSONL."),
    b"\x93NUMPY": ("a NumPy array", "Save its rows as Parquet or JSONL."),
    b"%PDF-": ("a PDF document", "Save its rows as JSONL or CSV."),
    b"version https://git-lfs": (
        "a Git LFS pointer, not the file itself",
        "Fetch it with git lfs pull.",
    ),
}
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body", b"<table", b"<div", b"<?xml", b"<error>")
_WIDE = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32"}
_WIDE |= {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_TEXT_CONTROLS = b"\t\n\v\f\r\x1b"
_CONTROLS = bytes(set(range(32)) - set(_TEXT_CONTROLS))


def packed(head: bytes) -> str:
    """gzip, bzip2, xz, or ``""``: how a file that begins so is compressed."""
    return _first(_PACKED, head) or ""


def table(head: bytes) -> str:
    """parquet, arrow, arrayrecord, or ``""``: the container of a file that begins so."""
    return _first(_TABLES, head) or ""


def refuse(path: str, head: bytes, is_text: bool = True) -> None:
    """Raises a ``UserError`` that says what the file is, if it is not one of rows."""
    what, remedy = _first(_FOREIGN, head) or ("", "")
    if what == "a ZIP archive" and (b"[Content_Types]" in head or path.lower().endswith(".xlsx")):
        what, remedy = "an Excel workbook", _CSV
    if head[257:262] == b"ustar":
        what, remedy = "a tar archive", "Unpack it with tar -xf, and give the files inside."
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        what, remedy = "a Python pickle", _PANDAS.format("pickle")
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGES):
        what = "a page of HTML or XML, perhaps an error saved in place of the data"
        remedy = "Download the file again."
    if wide := _wide(head):
        name = shlex.quote(path)
        what = f"text in {wide}, and UTF-8 is expected"
        remedy = f"Convert it: iconv -f {wide} -t UTF-8 {name} > NEW, with the same ending."
    if is_text and not what and _is_binary(head):
        what, remedy = "neither text nor a known table", "Save its rows as JSONL, CSV or Parquet."
    if what:
        raise UserError(f"{path}: {what}. {remedy}")


def _first(known: dict, head: bytes):
    return next((found for start, found in known.items() if head.startswith(start)), None)


def _wide(head: bytes) -> str:
    """UTF-16 or UTF-32, as iconv calls it, or ``""``."""
    if marked := _first(_WIDE, head):
        return marked
    start = head[:32]
    if len(start) < 8:
        return ""
    odd, even = start[1::2], start[::2]
    if not any(odd) and all(even):
        return "UTF-16LE"
    return "UTF-16BE" if not any(even) and all(odd) else ""


def _is_binary(head: bytes) -> bool:
    """Whether it is not UTF-8 and full of control characters: text may have either by itself."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
        return False
    except UnicodeDecodeError:
        pass
    controls = len(head) - len(head.translate(None, _CONTROLS))
    return controls >= 8 and controls * 10 >= len(head)
