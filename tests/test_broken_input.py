"""Damaged files of every container: an error of one line or a counted row, never a wrong text."""

import contextlib
import functools
import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_files import write

from sft.data.read import records
from sft.data.read.records import Reading, Source
from sft.errors import UserError

PAIRS = [{"q": f'question {n}, "é\U0001f600"\n?', "a": f"answer {n} \\"} for n in range(5)]
CHATS = [
    {
        "messages": [
            {"role": "system", "content": f"system {n}"},
            {"role": "user", "content": [{"type": "text", "text": f'q {n} "é"'}]},
            {"role": "assistant", "content": f"a {n}\n", "weight": 1},
        ],
    }
    for n in range(4)
]
TURNS = [
    {"conversations": [{"from": "human", "value": f"q {n}"}, {"from": "gpt", "value": f"\\{n}"}]}
    for n in range(4)
]
PARTS = [
    {
        "contents": [
            {"role": "user", "parts": [{"text": f"q {n}"}, {"text": '"'}]},
            {"role": "model", "parts": [{"text": f"é {n}"}]},
        ]
    }
    for n in range(4)
]
ROWS = {"pairs": PAIRS, "chats": CHATS, "turns": TURNS, "parts": PARTS, "two": CHATS[:2]}
TEXT_FILES = [
    *(("a.jsonl", kind) for kind in ROWS),
    *(("b.json", kind) for kind in ("pairs", "chats", "turns")),
    *(("c.csv", "pairs"), ("d.tsv", "pairs")),
]
READING = Reading(prompt="q", response="a", repair="leading_model,trailing_user")


@functools.cache
def whole(path: Path, kind: str) -> bytes:
    """A good file, written once."""
    return Path(write(path, ROWS[kind])).read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("broken")


def damage(draw, data: bytes) -> bytes:
    """``data`` cut off, or with bytes changed, put in, taken out or exchanged."""
    pieces = st.sampled_from(b'"\\{}[],:\n\r\t\0\xff\xc3\xef 0-N') | st.integers(0, 255)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(["cut", "flip", "change", "insert", "remove", "repeat"]))
        byte = bytes([draw(pieces)])
        length = draw(st.integers(1, 40))
        if kind == "cut":
            data = data[:place]
        elif kind == "flip" and data:
            byte = bytes([data[place] ^ 1 << draw(st.integers(0, 7))])
            data = data[:place] + byte + data[place + 1 :]
        elif kind == "change":
            data = data[:place] + byte + data[place + 1 :]
        elif kind == "insert":
            data = data[:place] + byte + data[place:]
        elif kind == "remove":
            data = data[:place] + data[place + length :]
        else:
            data = data[: place + length] + data[place:]
    return data


def read(path) -> records.Records | None:
    """What is read, having checked that it adds up; ``None`` after an error of one line."""
    try:
        found = records.read([Source("x", str(path), READING)], max_rejected=1.0)
    except UserError as error:
        assert "\n" not in str(error) and str(error).startswith(str(path))
        return None
    assert sum(found.counts.values()) == len(found.rejected) == found.rows["x"]["rejected"]
    assert found.rows["x"]["read"] == len(found.rejected) + len(found.conversations)
    assert all(
        reason.isprintable() and place.startswith(str(path)) for place, reason in found.rejected
    )
    return found


def texts(found: records.Records) -> list[str]:
    systems = [c.system for c in found.conversations if c.system]
    return systems + [turn.text for c in found.conversations for turn in c.turns]


def literals(data: bytes) -> set[str]:
    """What every stretch between two quotes of a JSON text stands for."""
    found = set()
    for match in re.finditer(r'(?s)(?=("(?:[^"\\]|\\.)*"))', data.decode(errors="surrogateescape")):
        with contextlib.suppress(ValueError):
            found.add(json.loads(match[1]))
    return found


def stands_in(text: str, name: str, data: bytes) -> bool:
    """Whether ``text`` is in the file as it is, or in several parts."""
    if name.endswith("sv"):
        return text.replace('"', "") in data.decode(errors="surrogateescape").replace('"', "")
    known = literals(data) - {""}

    def spelt(rest: str) -> bool:
        return not rest or any(rest.startswith(k) and spelt(rest[len(k) :]) for k in known)

    return spelt(text)


OPTIONS = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)


@pytest.mark.parametrize("name, kind", TEXT_FILES)
@OPTIONS
@given(data=st.data())
def test_text_containers(folder, name, kind, data):
    broken = damage(data.draw, whole(folder / f"{kind}-{name}", kind))
    path = folder / name
    path.write_bytes(broken)
    found = read(path)
    assert all(stands_in(text, name, broken) for text in texts(found)) if found else True


@pytest.mark.parametrize("name", ["e.parquet", "f.array_record", "g.jsonl.gz"])
@OPTIONS
@given(data=st.data())
def test_binary_containers(folder, name, data):
    content = whole(folder / f"turns-{name}", "turns")
    occupied = len(content.rstrip(b"\0"))  # ArrayRecord pads its blocks with zeros
    path = folder / name
    path.write_bytes(damage(data.draw, content[:occupied]) + content[occupied:])
    found = read(path)
    if found and name != "e.parquet":  # the others have checksums
        known = {turn["value"] for row in TURNS for turn in row["conversations"]}
        assert known.issuperset(texts(found))


@given(st.binary(max_size=60), st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet"]))
@example(b"[" * 100_000, "json")
@example(b'{"q":' * 50_000, "json")
@example(b'[{"q": "' + b"\xf0\x9f" * 20, "json")
@example(b"q,a\n" + b'"' * 31, "csv")
@example(b"\xef\xbb\xbf", "json")
@example(b"\xef\xbb\xbf\xef\xbb\xbf[]", "json")
@example(b"PAR1" * 10, "parquet")
@OPTIONS
def test_any_bytes(folder, content, ending):
    path = folder / f"any.{ending}"
    path.write_bytes(content)
    read(path)
    zipped = folder / f"any.{ending}.gz"
    zipped.write_bytes(gzip.compress(content) if len(content) % 2 else content)
    read(zipped)


@pytest.mark.parametrize("name, kind", TEXT_FILES)
def test_undamaged_files_are_read_whole(folder, name, kind):
    rows = ROWS[kind]
    path = write(folder / f"good-{name}", rows)
    found = read(path)
    assert found is not None and len(found.conversations) == len(rows) and not found.rejected


@pytest.mark.parametrize("name", ["a.jsonl", "b.json"])
def test_cut_at_every_byte(folder, name):
    """A row is kept if and only if all of it is there; the rest is one reject, never an error."""
    data = whole(folder / f"two-{name}", "two")
    good = read(write(folder / f"good-{name}", CHATS[:2]))
    assert good is not None
    path = folder / name
    for length in range(1, len(data)):
        path.write_bytes(data[:length])
        found = read(path)
        if found:
            kept = [c.turns for c in found.conversations]
            assert kept == [c.turns for c in good.conversations[: len(kept)]]
            ends_in_row = data[:length].split(b"\n")[-1] not in (b"", *data.split(b"\n"))
            assert len(found.rejected) == (ends_in_row or name == "b.json")
            kinds = [reason.split(":")[0] for _, reason in found.rejected]
            assert set(kinds) <= {"cut off", "invalid UTF-8"}
