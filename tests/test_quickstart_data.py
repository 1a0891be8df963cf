"""The quickstart's dates: what they may contain, and what may not leak between splits."""

import datetime
import importlib.util
import json
import unicodedata
from itertools import combinations
from pathlib import Path

import pytest
from babel import Locale
from babel.dates import format_date, parse_pattern
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.errors import BAD_INPUT

_PATH = Path(__file__).parents[1] / "scripts" / "quickstart_data.py"
_SPEC = importlib.util.spec_from_file_location("quickstart_data", _PATH)
quickstart_data = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(quickstart_data)

SMALL = {"train": 600, "validation": 80, "test": 160, "test_held_out": 80}
FLAGS = ["--train=600", "--validation=80", "--test=160", "--test-held-out=80"]


@pytest.fixture(scope="module")
def splits():
    return quickstart_data.build(SMALL, seed=0)


@pytest.fixture(scope="module")
def formats():
    return {tag: quickstart_data.formats_of(tag) for tag in quickstart_data.LOCALES}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    path = tmp_path_factory.mktemp("dates")
    assert quickstart_data.main([*FLAGS, f"--out={path}"]) == 0
    return path


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_same_arguments_same_bytes(out, tmp_path):
    assert quickstart_data.main([*FLAGS, f"--out={tmp_path}"]) == 0
    assert contents(tmp_path) == contents(out)
    assert quickstart_data.main([*FLAGS, f"--out={tmp_path}", "--seed=1"]) == 0
    assert contents(tmp_path)["train.jsonl"] != contents(out)["train.jsonl"]


def test_second_call_writes_nothing_unless_a_file_was_changed(out, capsys, monkeypatch):
    before = contents(out)
    with monkeypatch.context() as patch:
        patch.setattr(quickstart_data, "build", lambda *_: pytest.fail("built again"))
        assert quickstart_data.main([*FLAGS, f"--out={out}"]) == 0
    assert "already there" in capsys.readouterr().out
    (out / "test.jsonl").write_text("damaged\n")
    assert quickstart_data.main([*FLAGS, f"--out={out}"]) == 0
    assert contents(out) == before


def test_files_are_gemini_lines_and_match_the_manifest(out, splits):
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["recipe"]["sizes"] == SMALL
    for name, rows in splits.items():
        text = (out / f"{name}.jsonl").read_text(encoding="utf-8")
        assert "\\u" not in text
        lines = text.splitlines()
        assert len(lines) == SMALL[name] == sum(manifest["counts"][name]["locale"].values())
        for line, row in zip(lines, rows, strict=True):
            record = json.loads(line)
            user, model = record["contents"]
            assert record["systemInstruction"]["parts"] == [{"text": quickstart_data.INSTRUCTION}]
            assert user == {"role": "user", "parts": [{"text": row["text"]}]}
            assert model == {"role": "model", "parts": [{"text": row["day"]}]}


def test_nothing_leaks_between_splits(splits):
    for (_, a), (_, b) in combinations(splits.items(), 2):
        assert not {row["text"] for row in a} & {row["text"] for row in b}
        assert not {row["day"] for row in a} & {row["day"] for row in b}
    rows = [row for rows in splits.values() for row in rows]
    assert len({(row["day"], row["locale"], row["format"]) for row in rows}) == len(rows)


def test_evaluation_splits_do_not_depend_on_the_size_of_train(splits):
    larger = quickstart_data.build({**SMALL, "train": 700}, seed=0)
    assert all(larger[name] == splits[name] for name in splits if name != "train")


def test_held_out_formats_occur_nowhere_else(splits, formats):
    held_out = set(quickstart_data.HELD_OUT)
    for name, rows in splits.items():
        used = {row["format"] for row in rows}
        assert used == held_out if name == "test_held_out" else not used & held_out
    for row in splits["test_held_out"]:
        day, seen = datetime.date.fromisoformat(row["day"]), formats[row["locale"]][0]
        assert all(
            row["text"] != quickstart_data.render(day, row["locale"], pattern)
            for pattern in seen.values()
        )


def test_answers_are_the_days_that_babel_renders(splits, formats):
    for name, rows in splits.items():
        for row in rows:
            tag, day = row["locale"], datetime.date.fromisoformat(row["day"])
            pattern = formats[tag][name == "test_held_out"][row["format"]].pattern
            expected = format_date(day, pattern, Locale.parse(tag, sep="-"))
            ascii_digits = [str(unicodedata.digit(c)) if c.isdecimal() else c for c in row["text"]]
            assert "".join(ascii_digits) == f"{tag}: {expected}"


@settings(max_examples=60, deadline=None)
@given(st.dates(quickstart_data.FIRST, quickstart_data.LAST), st.sampled_from(["en-GB", "de-DE"]))
def test_numbers_read_back_in_the_order_of_the_locale(day, tag):
    seen, _ = quickstart_data.formats_of(tag)
    text = quickstart_data.render(day, tag, seen["short"]).split(": ")[1]
    parts = [int(part) for part in text.replace("/", ".").split(".")]
    year = parts[2] if parts[2] > 99 else parts[2] + (1900 if parts[2] >= 50 else 2000)
    assert datetime.date(year, parts[1], parts[0]) == day


def test_many_locales_and_scripts_and_all_in_any_first_rows(splits):
    tags = quickstart_data.LOCALES
    assert len(tags) == len(set(tags)) >= 52
    assert len({quickstart_data.script_of(tag) for tag in tags}) >= 20
    assert quickstart_data.script_of("sr-RS") == "Cyrl"
    assert quickstart_data.script_of("zh-TW") == "Hant"
    train = splits["train"]
    for start in range(0, len(train) - len(tags), len(tags)):
        assert {row["locale"] for row in train[start : start + len(tags)]} == set(tags)


def test_formats_of_a_locale_take_turns(splits, formats):
    for tag, (seen, _) in formats.items():
        names = [row["format"] for row in splits["train"] if row["locale"] == tag]
        assert set(names[: len(seen)]) == set(names) == set(seen)


def test_digits_are_those_of_the_default_numbering_system():
    for system, zero in quickstart_data.ZERO.items():
        digits = [unicodedata.digit(chr(ord(zero) + value)) for value in range(10)]
        assert digits == list(range(10)), system
    day = datetime.date(2024, 3, 5)
    native = {"ar-EG": "ARABIC-INDIC", "fa-IR": "EXTENDED ARABIC-INDIC", "mr-IN": "DEVANAGARI"}
    native |= {"bn-BD": "BENGALI", "my-MM": "MYANMAR", "ar-MA": "", "hi-IN": ""}
    for tag, name in native.items():
        for pattern in quickstart_data.formats_of(tag)[0].values():
            text = quickstart_data.render(day, tag, pattern)
            names = {unicodedata.name(c).split("DIGIT")[0].strip() for c in text if c.isdecimal()}
            assert names == {name}, text


def test_every_pattern_tells_day_month_and_year(formats):
    for tag, pair in formats.items():
        for pattern in [*pair[0].values(), *pair[1].values()]:
            assert quickstart_data.complete(pattern.pattern)
            first = [datetime.date(2001, month, 9) for month in range(1, 13)]
            assert len({quickstart_data.render(day, tag, pattern) for day in first}) == 12
    assert not quickstart_data.complete("MMM y")
    assert not quickstart_data.complete("E d/M")
    assert not quickstart_data.complete("d MMMMM y")
    assert not quickstart_data.complete("'d' MMM y")


def test_contradictory_and_misleading_patterns_are_left_out(formats):
    assert "GyMd" not in formats["fi-FI"][0]  # M.d.y G beside d.M.y
    assert "GyMd" not in formats["ml-IN"][0]  # the order of y, M and d turns round
    assert "short" not in formats["th-TH"][0]  # two digits of a year: which era?
    assert not any("G" in pattern.pattern for pattern in formats["am-ET"][0].values())
    patterns = {
        n: parse_pattern(p) for n, p in {"a": "dd/MM/y", "b": "M/d/y G", "c": "y-d-M"}.items()
    }
    assert list(quickstart_data.consistent(patterns, short="d/M/yy")) == ["a"]
    assert list(quickstart_data.consistent(patterns, short="M/d/yy")) == ["b"]
    assert list(quickstart_data.consistent(patterns, short="y-MM-dd")) == []


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--train=0"], "argument --train: '0': expected 1 or more rows"),
        (["--test-held-out=-3"], "--test-held-out: '-3'"),
        (["--train=many"], "--train: 'many': expected"),
        (["--seed=x"], "--seed: invalid int value: 'x'"),
        (["--trian=5"], "unrecognized arguments: --trian=5"),
        (["--test=36526"], "1950-2049 has 36525 days; ask for fewer"),
    ],
)
def test_bad_arguments_are_one_line(flags, says, tmp_path, capsys):
    assert quickstart_data.main([*flags, f"--out={tmp_path}"]) == BAD_INPUT
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_unwritable_directory_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert quickstart_data.main([*FLAGS, f"--out={tmp_path / 'file'}"]) == BAD_INPUT
    error = capsys.readouterr().err
    assert "name a writable place" in error
    assert error.count("\n") == 1
