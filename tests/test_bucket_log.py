"""Rows of a run in a bucket, and the paths of its directory."""

import json
import time

import fake_bucket
import pytest
from tensorboardX.proto.event_pb2 import Event

from sft import cli
from sft.errors import UserError
from sft.run import bucket as buckets
from sft.run import directory, log, mirror

server, bucket = fake_bucket.server, fake_bucket.bucket
RUN = "gs://bucket/run"


def rows(bucket):
    return [json.loads(line)["step"] for line in bucket.text("run/metrics.jsonl").splitlines()]


def test_rows_are_sent_at_sync_and_at_the_end(bucket):
    writer = log.MetricsLog(RUN, 0)
    writer.write("train", 1, 0.5, loss=2.0)
    writer.sync()
    assert rows(bucket) == [1]
    writer.sync()
    assert bucket.log.count(("put", "run/metrics.jsonl")) == 1  # nothing new, nothing sent
    writer.write("train", 2, 1.0, loss=1.0)
    assert rows(bucket) == [1]
    writer.close()
    assert rows(bucket) == [1, 2] == [row["step"] for row in log.read(RUN)]
    (board,) = bucket.names("run/events.out.tfevents")
    assert [e.step for e in events(bucket.objects[board][0]) if e.summary.value] == [1, 2]
    assert not writer._mirror.folder.exists()


def events(content):
    """Of a TensorBoard file: length, checksum, event, checksum."""
    while content:
        size = int.from_bytes(content[:8], "little")
        yield Event.FromString(content[12 : 12 + size])
        content = content[16 + size :]


def test_rows_after_the_step_that_a_run_goes_on_from_are_forgotten(bucket):
    lines = [json.dumps({"split": "train", "step": step}) + "\n" for step in (1, 2, 3)]
    bucket.put("run/metrics.jsonl", "".join([*lines, '{"split"']).encode(), {})
    writer = log.MetricsLog(RUN, 2)
    writer.write("train", 3, 1.5, loss=1.0)
    writer.close()
    assert rows(bucket) == [1, 2, 3]
    log.MetricsLog(RUN, 0).close()
    assert rows(bucket) == []


def test_without_a_checkpoint_rows_are_sent_now_and_then(bucket, monkeypatch):
    monkeypatch.setattr(mirror, "EVERY", 0.0)
    writer = log.MetricsLog(RUN, 0)
    writer.write("train", 1, 0.5, loss=2.0)
    end = time.monotonic() + 60
    while "run/metrics.jsonl" not in bucket.names():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert rows(bucket) == [1]
    writer.close()


def test_a_bucket_that_refuses_loses_no_row(bucket):
    bucket.refuses = lambda method, address: 403 if method == "POST" else None
    writer = log.MetricsLog(RUN, 0)
    writer.write("train", 1, 0.5, loss=2.0)
    with pytest.raises(UserError, match=r"cannot be written \(.*no permission"):
        writer.sync()
    with pytest.raises(UserError, match=r"The log is in (.*)\.") as caught:
        writer.close()
    folder = str(caught.value).rpartition("The log is in ")[2].rstrip(".")
    with open(f"{folder}/metrics.jsonl") as file:
        assert json.loads(file.read())["step"] == 1


@pytest.mark.parametrize("code", [429, 503])
def test_a_bucket_that_is_slow_for_a_moment_is_asked_again(bucket, code):
    refused = iter([code])
    bucket.refuses = lambda method, address: next(refused, None)
    directory.write_text(directory.path_of(RUN) / "a.json", "é")
    assert bucket.text("run/a.json") == "é"


def test_paths():
    assert directory.path_of("runs/a").__class__.__module__ == "pathlib"
    path = directory.path_of("gs://bucket/a/b/")
    assert (str(path), str(path / "c"), f"{path}") == ("gs://bucket/a/b", "gs://bucket/a/b/c",
                                                       "gs://bucket/a/b")  # fmt: skip
    assert directory.path_of(path) == path and buckets.holds(path / "c")
    for wrong in ("gs://bucket", "gs://bucket/", "gs:///a", "s3://bucket/a"):
        with pytest.raises(UserError, match="expected a local path, or gs://BUCKET/NAME"):
            directory.path_of(wrong)


@pytest.mark.parametrize(
    "command", ["sweep", "data mine", "eval suite", "eval judge", "eval lm --tasks=a", "eval rate"]
)
def test_commands_that_need_a_disk_say_so(command, capsys):
    words = command.split()
    assert cli.main(["sft", *words, f"--workdir={RUN}"]) == 2
    err = capsys.readouterr().err
    assert "works on a local directory alone; in a bucket do data, train, eval, plan" in err
    assert f"gcloud storage cp -r {RUN} runs" in err


def test_errors_that_are_none_of_a_bucket():
    assert buckets.said(AssertionError("a")) is None
    assert buckets.said(OSError(28, "No space left on device")) is None
    assert buckets.said(KeyError("step")) is None
