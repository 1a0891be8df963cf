from pathlib import Path

import fake_gcs
import gcsfs
import pytest
import test_files
from etils.epath import backend

from sft.data.read import records
from sft.errors import UserError

ROW = {"input_text": "a", "output_text": "b"}


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """``gs://bucket`` with the rows of each name in every container."""
    names = ("a-1.jsonl", "a-2.jsonl.gz", "t.csv", "p.parquet", "s.arrow", "r.array_record")
    objects = {
        f"d/{name}": Path(test_files.write(tmp_path / name, [ROW] * 3)).read_bytes()
        for name in names
    }
    with fake_gcs.serve(objects) as host:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
        forget()
        yield "gs://bucket/d"
    forget()


def forget():
    """Both keep the connection of their first use."""
    backend.fsspec_backend._get_filesystem.cache_clear()
    gcsfs.GCSFileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    "name, rows",
    [
        *(("a-1.jsonl", 3), ("a-2.jsonl.gz", 3), ("t.csv", 3)),
        *(("p.parquet", 3), ("s.arrow", 3), ("r.array_record", 3), ("a-*", 6)),
    ],
)
def test_a_bucket_is_read_like_a_disk(bucket, name, rows):
    found = records.read([records.Source("", f"{bucket}/{name}")])
    assert [c.turns[1].text for c in found.conversations] == ["b"] * rows
    assert found.conversations[0].source.startswith(f"{bucket}/")


@pytest.mark.parametrize("name", ["none.jsonl", "none.parquet", "none-*.jsonl"])
def test_what_is_not_there_is_one_line(bucket, name):
    with pytest.raises(UserError, match=name.replace("*", r"\*")) as caught:
        records.read([records.Source("", f"{bucket}/{name}")])
    assert "\n" not in str(caught.value)
