"""The benchmark of repeated windows: its arithmetic, and how it drives the reference tool."""

import argparse
import importlib.util
import json
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from sft.data.dedup import windows
from sft.errors import BAD_INPUT, UserError

BENCH = Path(__file__).parents[1] / "scripts" / "bench"
sys.path.append(str(BENCH / "peers"))
SPEC = importlib.util.spec_from_file_location("bench_dedup", BENCH / "dedup.py")
assert SPEC and SPEC.loader
bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bench)

import dedup_programs  # noqa: E402
import dedup_reference  # noqa: E402

TEXT = b"aaaaaaaaaaaabbbcccccaaaaaaaaaaaaccccc"

# Does the reference's three commands by definition, for texts of a few bytes, and notes its words.
FAKE = """#!{python} -S
import os, sys
name, flags = sys.argv[1], dict(zip(sys.argv[2::2], sys.argv[3::2]))
file = flags["--data-file"]
with open({log!r}, "a") as log:
    print(*[os.path.basename(word) for word in sys.argv[1:]], file=log)
{special}
text = open(file, "rb").read()
if name == "make":
    open(file + ".table.bin", "w").close()
if name == "self-similar":
    assert os.path.exists(file + ".table.bin")
    length = int(flags["--length-threshold"])
    parts = [text[i : i + length] for i in range(len(text) - length + 1)]
    found = [i for i, part in enumerate(parts) if parts.count(part) > 1]
    os.mkdir(flags["--cache-dir"])
    print(*found, file=open(flags["--cache-dir"] + "/dups", "w"))
    print("Start load!", f"Duplicates found: {{len(found)}}", "Total time taken: 0ms", sep="\\n")
if name == "collect":
    length, ranges = int(flags["--length-threshold"]), []
    for i in map(int, open(flags["--cache-dir"] + "/dups").read().split()):
        if ranges and i <= ranges[-1][1]:
            ranges[-1][1] = i + length
        else:
            ranges.append([i, i + length])
    print("Merging.")
    if ranges:
        print("out", *(f"{{a}} {{b}}" for a, b in ranges), sep="\\n")
    else:
        print("No duplicates found! Either the dataset is duplicate-free or something went wrong.")
"""


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text"
    path.write_bytes(TEXT)
    return path


def executable(path: Path, content: str) -> Path:
    path.write_text(content)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def fake(folder: Path, special: str = "") -> Path:
    """A stand-in for the binary; ``special`` goes before what it does."""
    words = {"python": sys.executable, "log": str(folder / "log"), "special": special}
    return executable(folder / "fake", FAKE.format(**words))


def test_the_reference_gets_its_commands_in_order_and_one_thread(tmp_path, text):
    found = dedup_reference.run(fake(tmp_path), text, 3)
    assert (tmp_path / "log").read_text().splitlines() == [
        "make --data-file text",
        "self-similar --data-file text --length-threshold 3 --cache-dir cache --num-threads 1",
        "collect --data-file text --cache-dir cache --length-threshold 3",
    ]
    assert found["found"] == {"windows": 26, "spans": 2, "bytes": 34}
    assert found["seconds"] > 0 and found["peak_bytes"] > 2**20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fake", "log", "text"]


@pytest.mark.parametrize("length", [1, 3, 5, 12, 13, 30, 40])
def test_our_suffix_array_finds_what_the_reference_finds(tmp_path, text, length):
    ours = dedup_programs.spans(np.frombuffer(TEXT, np.uint8), length)
    assert ours["found"] == dedup_reference.run(fake(tmp_path), text, length)["found"]


@pytest.mark.parametrize(
    "special, message",
    [
        ("sys.exit('thread panicked:\\nno such file')", "make: exit 1: thread panicked: no such"),
        ("if name == 'collect': sys.exit(101)", "collect: exit 101: no message"),
        ("os.kill(os.getpid(), 9)", "make: killed by signal 9"),
        ("if name != 'make': sys.exit()", "self-similar: no line 'Duplicates found'"),
        ("if name == 'collect': sys.exit(print('out\\n1 2 3'))", "collect: no spans"),
        ("if name == 'collect': sys.exit(print('Merging.'))", "collect: no spans"),
    ],
)
def test_a_reference_that_fails_is_one_line(tmp_path, text, special, message):
    with pytest.raises(UserError, match=message) as error:
        dedup_reference.run(fake(tmp_path, special), text, 3)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_program_is_one_line(tmp_path, text):
    with pytest.raises(UserError, match=r"make: cannot run .*none: No such file"):
        dedup_reference.run(tmp_path / "none", text, 3)
    with pytest.raises(UserError, match=r"make: cannot run .*odd: Exec format error"):
        dedup_reference.run(executable(tmp_path / "odd", "\x7fELF"), text, 3)


def settings(work: Path, **more) -> argparse.Namespace:
    """Options as ``dedup.py`` has them, with a corpus of two equal spans and their text."""
    tokens = np.tile(np.arange(40, dtype=np.int32), 2)
    np.save(work / "tokens.npy", tokens)
    np.save(work / "starts.npy", np.array([0, 40, 80]))
    (work / "text").write_bytes(TEXT)
    usual = {"spans": "answers", "length": 4, "text_length": 3, "memory": 1e6, "reference": None}
    return argparse.Namespace(**usual | more)


def test_every_program_runs_in_a_process_of_its_own(tmp_path):
    args = settings(tmp_path, reference=fake(tmp_path))
    runs = {name: dedup_programs.call(name, args, tmp_path) for name in bench.names(args.reference)}
    bench.check(runs)
    assert runs["hash"]["found"]["windows"] == 2 * 37
    assert runs["suffix_array_text"]["found"] == runs["reference"]["found"]
    assert all(run["seconds"] >= 0 and run["foreign_cores"] >= 0 for run in runs.values())
    broken = settings(tmp_path, reference=fake(tmp_path, "sys.exit('no memory')"))
    with pytest.raises(UserError, match=r"^dedup: reference: make: exit 1: no memory$"):
        dedup_programs.call("reference", broken, tmp_path)


def round_of(seconds: dict[str, float], **found) -> dict[str, dict]:
    """Runs of one round; ``found`` by name of program."""
    memory = {"configured": 400, "allowed": 500, "peak": 450}
    return {
        name: {"seconds": spent, "peak_bytes": 400, "foreign_cores": 0.0, "memory": memory}
        | {"found": found.get(name, {"windows": 7})}
        for name, spent in seconds.items()
    }


ALONE = {"suffix_array": 2.0, "hash": 1.0, "pydivsufsort": 4.0, "pydivsufsort_text": 6.0}
WITH = ALONE | {"suffix_array_text": 5.0, "reference": 20.0}
CORPUS = {"tokens": 100, "text_bytes": 40_000_000}


def test_the_reference_is_in_the_result_only_if_it_ran(tmp_path):
    result = bench.summary(settings(tmp_path), CORPUS, [round_of(ALONE)])
    assert set(result["peers"]) == {"pydivsufsort", "pydivsufsort_text"}
    assert set(result["ratio"]) == {"suffix_array", "hash"} and "text" not in result["detail"]
    assert "reference" not in bench.table(result)
    result = bench.summary(settings(tmp_path), CORPUS, [round_of(WITH)])
    assert result["peers"] == {"pydivsufsort": 10.0, "pydivsufsort_text": 6.67, "reference": 2.0}
    assert result["ratio"]["suffix_array_text"] == {"reference": 4.0}
    assert result["ratio"]["hash"]["reference"] == 20.0
    assert "\nreference " in bench.table(result) and "WARNING" not in bench.table(result)
    assert result["detail"]["programs"]["reference"]["bytes_per_token"] == 4.0
    assert json.loads(json.dumps(result)) == result


def test_no_ratio_where_the_reference_counts_otherwise(tmp_path):
    runs = round_of(WITH, reference={"windows": 6})
    result = bench.summary(settings(tmp_path), CORPUS, [runs])
    assert "suffix_array_text" not in result["ratio"]
    shown = bench.table(result)
    assert "suffix_array_text found 7 windows" in shown and "reference found 6 windows" in shown
    assert "WARNING: these are not equal" in shown


def test_engines_that_differ_and_a_memory_that_is_not_kept_are_errors():
    with pytest.raises(UserError, match="the engines differ"):
        bench.check(round_of(ALONE, hash={"windows": 8}))
    runs = round_of(ALONE)
    runs["hash"]["memory"]["peak"] = 501
    with pytest.raises(UserError, match=r"held 501 bytes .* 500 or fewer with 400 configured"):
        bench.check(runs)


def test_the_digest_tells_the_largest_batch():
    batches = [(np.arange(4), [0, 2, 4]), (np.arange(6), [0, 6])]
    found = dedup_programs.digest(windows.Classes(p, np.array(starts)) for p, starts in batches)
    assert found["largest_batch"] == 6
    assert (found["found"]["classes"], found["found"]["windows"]) == (3, 10)


@pytest.mark.parametrize(
    "name, message", [("none", "none: no such executable"), ("rows", "rows: no such executable")]
)
def test_a_missing_binary_is_one_line_before_any_work(monkeypatch, capsys, tmp_path, name, message):
    rows = tmp_path / "rows"
    rows.write_text("[]")
    words = ["dedup.py", "--data", str(rows), "--reference", str(tmp_path / name)]
    monkeypatch.setattr(sys, "argv", words)
    assert bench.main() == BAD_INPUT
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_windows_of_the_text_are_as_long_as_those_of_tokens(monkeypatch, tmp_path):
    rows = tmp_path / "rows"
    rows.write_text("[]")
    for words, expected in [([], 200), (["--length", "25"], 100), (["--text-length", "9"], 9)]:
        monkeypatch.setattr(sys, "argv", ["dedup.py", "--data", str(rows), *words])
        assert bench.arguments().text_length == expected
