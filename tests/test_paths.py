"""How files are named: globs, folders, addresses of other services, ``~``."""

import re
from pathlib import Path

import pytest
from test_files import write

from sft.data.read import paths, records
from sft.data.sets.augment import load_templates
from sft.errors import UserError

PAIR = {"input_text": "a", "output_text": "b"}


def test_globs_are_sorted_and_brackets_may_be_in_a_name(tmp_path, monkeypatch):
    for name in ("b-2.jsonl", "b-10.jsonl", "b-1.jsonl", "c[1].jsonl", "c1.jsonl"):
        (tmp_path / name).write_text("{}")
    found = paths.expand(f"{tmp_path}/c1.jsonl, {tmp_path}/b-*.jsonl")
    names = [path.removeprefix(f"{tmp_path}/") for path in found]
    assert names == ["c1.jsonl", "b-1.jsonl", "b-10.jsonl", "b-2.jsonl"]
    assert paths.expand(f"{tmp_path}/c[1].jsonl") == [f"{tmp_path}/c[1].jsonl"]
    monkeypatch.chdir(tmp_path)
    assert paths.expand("c[0-9].jsonl") == ["c1.jsonl"]
    assert paths.expand(f"{tmp_path}/../*[0-9]/c1.jsonl")[-1].endswith("0/c1.jsonl")
    for listed, message in [
        (f"{tmp_path}/x*.jsonl", rf"x\*\.jsonl: no file matches. Looked in {tmp_path}/"),
        (f"{tmp_path}/no/*.jsonl", "no file matches"),
        (f"{tmp_path}/**/a.jsonl", "one \\* per folder"),
        ("gs://bucket/**/a.jsonl", "one \\* per folder"),
        ("a\0b.jsonl", "a zero character"),
        ("a.jsonl,,b.jsonl", "an empty path in 'a.jsonl,,b.jsonl'"),
        ("", "an empty path"),
    ]:
        with pytest.raises(UserError, match=message):
            paths.expand(listed)


ADDRESSES = {
    "hf://datasets/org/name/train.jsonl": "hf download --repo-type dataset org/name --local-dir",
    "hf://org/name": "hf download --repo-type dataset org/name --local-dir",
    "https://x.org/a b.jsonl": "Download it first: curl -LO 'https://x.org/a b.jsonl'",
    "HTTP://x.org/a.jsonl": "Download it first: curl -LO HTTP://x.org/a.jsonl",
    "s3://b/a.jsonl": "Copy it to this machine or to gs:// first",
    "s3://b/*.jsonl": "Copy it to this machine or to gs:// first",
    "az://b/a.jsonl": "Copy it to this machine or to gs:// first",
    "file:///tmp/a.jsonl": "Write the path alone: /tmp/a.jsonl.",
    "gs://": "expected a local path, or gs://BUCKET/NAME",
    "gs://bucket": "expected a local path, or gs://BUCKET/NAME",
    "gs:///a.jsonl": "expected a local path, or gs://BUCKET/NAME",
    "org/name": "hf download --repo-type dataset org/name --local-dir DIR",
}


@pytest.mark.parametrize("path", ADDRESSES)
def test_addresses_that_cannot_be_read(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def templates():
        return load_templates(path)

    for use in (lambda: records.read([records.Source("", path)]), templates):
        if path == "org/name" and use is templates:
            continue
        with pytest.raises(UserError, match=f"^{re.escape(path)}: .*cannot (be )?read") as error:
            use()
        assert ADDRESSES[path].lower() in str(error.value).lower()
        assert "\n" not in str(error.value)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.jsonl", [PAIR])
    (tmp_path / "t.txt").write_text("Say {prompt}")
    for path in ("~/a.jsonl", "~/*.jsonl"):
        assert paths.expand(path) == [f"{tmp_path}/a.jsonl"]
        found = records.read([records.Source("", path)]).conversations
        assert [c.source for c in found] == [f"{tmp_path}/a.jsonl:1"]
    assert load_templates("~/t.txt") == ("Say {prompt}",)


@pytest.mark.parametrize(
    "names, globs",
    [
        (["a.jsonl", "b.jsonl", "README.md"], ["*.jsonl"]),
        (["a.jsonl.gz", "b.csv"], ["*.jsonl.gz", "*.csv"]),
        (["train/data-00000-of-00001.arrow", "train/state.json"], ["train/*.arrow"]),
        (["x-00000-of-00002.parquet", "x-00001-of-00002.parquet"], ["*.parquet"]),
        (["a/b/c.array_record-00000-of-00002"], ["a/b/*.array_record-*-of-*"]),
        (["test/a.parquet", "train/a.parquet"], ["test/*.parquet", "train/*.parquet"]),
    ],
)
def test_a_folder_is_called_one_and_its_globs_match(tmp_path, names, globs):
    folder = tmp_path / "saved"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    for path in (str(folder), f"{folder}/"):
        with pytest.raises(UserError, match=f"^{folder}: a folder. Name the files in it") as error:
            paths.expand(path)
        named = str(error.value).partition("as in ")[2]
        assert named.split(",") == [f"{folder}/{glob}" for glob in globs]
    rows = [f"{folder}/{name}" for name in names if not name.endswith((".md", ".json"))]
    assert sorted(paths.expand(named)) == sorted(rows)


def test_a_folder_without_rows(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match=f"^{tmp_path}: a folder, and no file in it has an ending"):
        paths.expand(str(tmp_path))
    Path(tmp_path / "sub.jsonl").mkdir()
    with pytest.raises(UserError, match=r"sub\.jsonl: a folder"):
        paths.expand(f"{tmp_path}/*.jsonl")
