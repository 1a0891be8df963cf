"""Whole runs whose directory is in a bucket: the same as on a disk, whatever comes between."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import fake_bucket
import pytest
import tiny_run

from sft import cli
from sft.run import holder

pytestmark = pytest.mark.slow
shared, registered = tiny_run.shared, tiny_run.registered
server, bucket = fake_bucket.server, fake_bucket.bucket
RUN = "gs://bucket/run"
TOTAL = 24


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(holder, "PATIENCE", 6.0)  # over a BEAT of the processes below


def words(project, command, *more):
    config = [] if command == "report" else [f"--config={project.config}"]
    return ["sft", command, *config, f"--workdir={RUN}", *more]


def sft(project, command, *more):
    return cli.main(words(project, command, *more))


def process(project, *more):
    """``sft train`` on its own, slow enough to be met at work."""
    return subprocess.Popen(
        [sys.executable, "-m", *words(project, "train", *more)],
        cwd=tiny_run.ROOT,
        env=os.environ | {"SLOW_BATCHES": "8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition, process, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)


def is_at_work(bucket):
    name = "run/environment.json"
    return name in bucket.names() and "first_step" in bucket.text(name)


def rows(bucket):
    found = map(json.loads, bucket.text("run/metrics.jsonl").splitlines())
    return [{k: v for k, v in row.items() if "second" not in k} for row in found]


def steps(bucket):
    """Of the checkpoints that are whole."""
    names = "\n".join(bucket.names("run/checkpoints/"))
    found = re.findall(r"^run/checkpoints/(\d+)/commit_success.txt$", names, re.MULTILINE)
    return sorted(map(int, found))


def check_equals_uninterrupted(project, bucket):
    done = project.path / "done"
    assert rows(bucket) == project.rows("done")
    for name in ("selection.json", "config.json"):
        assert json.loads(bucket.text(f"run/{name}")) == json.loads((done / name).read_text())
    here = sorted(int(path.name) for path in (done / "checkpoints").iterdir())
    assert steps(bucket) == here
    names = bucket.names()
    assert "run/DONE" in names and "run/lock" not in names


def test_a_run_its_scores_and_its_report(shared, bucket, tmp_path, capsys):
    assert sft(shared, "train") == 0
    check_equals_uninterrupted(shared, bucket)
    assert sft(shared, "train") == 0
    assert f"{RUN}: already trained." in capsys.readouterr().out
    assert sft(shared, "eval") == 0
    run = shared.copy("done", tmp_path / "run")
    assert shared.main("eval", run) == 0
    for name in ("best.test.json", "best.test.predictions.jsonl"):
        ours, theirs = bucket.text(f"run/eval/{name}"), (run / "eval" / name).read_text()
        unlike = r'"(seconds|peak_rss_bytes)": [^,\n]*'
        assert re.sub(unlike, "", ours) == re.sub(unlike, "", theirs)
    assert sft(shared, "report") == 0
    assert f"wrote {RUN}/report.html" in capsys.readouterr().out
    assert "<html" in bucket.text("run/report.html")


def test_the_audit_and_its_plan(shared, bucket):
    more = "--config.data.dedup.exact=True"
    assert sft(shared, "data", more) == 0
    assert {"run/data/plan.npz", "run/data/plan.json", "run/data/report.html"} <= set(
        bucket.names()
    )
    assert sft(shared, "train", more, "--config.train.epochs=1") == 0


def test_preempted_then_resumed(shared, bucket, capsys):
    running = process(shared)
    wait_until(lambda: is_at_work(bucket), running)
    assert sft(shared, "train") == 2
    assert f"lock: process {running.pid} on" in capsys.readouterr().err
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 42, err
    stopped = int(re.search(rf"SIGTERM at step (\d+) of {TOTAL}; saved in {RUN}", err)[1])
    assert stopped < TOTAL and steps(bucket)[-1] == stopped
    assert rows(bucket)[-1]["step"] == stopped and "run/lock" not in bucket.names()
    assert sft(shared, "train") == 0
    check_equals_uninterrupted(shared, bucket)


def test_killed_while_it_saves(shared, bucket):
    """It goes on from the last checkpoint that is whole."""
    running = process(shared, "--config.train.save_every=3")

    written = []

    def kill(method, address):
        if method == "POST" and "checkpoints/6/" in address:
            written.append(address)
            if len(written) == 4:
                running.kill()

    bucket.refuses = kill
    running.communicate(timeout=240)
    bucket.refuses = lambda method, address: None
    assert running.returncode == -signal.SIGKILL
    names = bucket.names()
    assert steps(bucket) == [3] and any("checkpoints/6" in name for name in names)
    assert "run/lock" in names and {row["step"] for row in rows(bucket)} >= {0, 1, 2, 3}
    assert sft(shared, "train", "--config.train.save_every=3") == 0
    assert rows(bucket) == shared.rows("done") and "run/DONE" in bucket.names()


@pytest.mark.parametrize(
    ("code", "said"), [(403, "roles/storage.objectUser"), (404, "the bucket refuses")]
)
def test_a_bucket_that_stops_taking_checkpoints(shared, bucket, capsys, code, said):
    def refuse(method, address):
        return code if method == "POST" and "checkpoints/16/" in address else None

    bucket.refuses = refuse
    assert sft(shared, "train") == 2
    err = capsys.readouterr().err
    assert "the bucket refuses" in err and said in err
    assert steps(bucket) == [8] and "this is a bug" not in err
    bucket.refuses = lambda method, address: None
    assert sft(shared, "train") == 0
    check_equals_uninterrupted(shared, bucket)


def test_a_bucket_that_is_too_busy_now_and_then(shared, bucket):
    """What it refuses for a moment is asked again, by all three clients."""
    refused = {}

    def refuse(method, address):
        address = re.sub(r"/session/\d+", "/session", address)
        count = refused[method, address] = refused.get((method, address), 0) + 1
        busy = len(refused) % 10 == 0 and count == 1
        return (429, 503)[len(refused) % 20 == 0] if busy else None

    bucket.refuses = refuse
    assert sft(shared, "train") == 0
    check_equals_uninterrupted(shared, bucket)


def test_no_such_bucket(shared, bucket, capsys):
    assert cli.main(["sft", "train", f"--config={shared.config}", "--workdir=gs://none/run"]) == 2
    err = capsys.readouterr().err
    assert "--workdir=gs://none/run: " in err and "does not exist" in err
    assert cli.main(["sft", "eval", f"--config={shared.config}", "--workdir=gs://none/run"]) == 2
    assert "gs://none/run/config.json: cannot be written" in capsys.readouterr().err


def test_the_compilation_cache_and_the_trace(shared, bucket):
    """A cache in the bucket is filled by one process and read by the next."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    hits = []
    for run in ("gs://bucket/one", "gs://bucket/two"):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "sft", "train", f"--config={shared.config}", "--profile"),
                *(f"--workdir={run}", "--config.train.compilation_cache=gs://bucket/compiled"),
            ],
            cwd=tiny_run.ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        name = f"{run.rpartition('/')[2]}/environment.json"
        hits.append(json.loads(bucket.text(name))["first_step"]["cache_hits"])
    assert hits[0] == 0 < hits[1] and bucket.names("compiled/")
    assert any(name.endswith(".xplane.pb") for name in bucket.names("one/profile/"))
