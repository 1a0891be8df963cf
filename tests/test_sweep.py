"""The driver of a sweep: what it starts, and what becomes of it when things go wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sft import cli
from sft.tune import process

FAKE = (sys.executable, str(Path(__file__).with_name("fake_sft.py")))
RANKS = "--sweep.lora.rank=1,2,4,8"


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """``sweep(behaviour, *words)`` runs one with stand-ins for the runs; its exit code."""
    monkeypatch.setattr(process, "PROGRAM", FAKE)
    monkeypatch.setattr("sft.tune.sweep.POLL", 0.02)
    config = tmp_path / "config.py"
    config.write_text(
        "from sft.config import default\n\ndef get_config():\n    config = default()\n"
        "    config.data.test = 'test.jsonl'\n    return config\n"
    )

    def run(behaviour, *words):
        monkeypatch.setenv("BEHAVIOUR", json.dumps(behaviour))
        monkeypatch.setenv("EVENTS", str(tmp_path / "events"))
        line = ["sft", "sweep", f"--config={config}", f"--workdir={tmp_path / 'sweep'}"]
        return cli.main([*line, *words])

    return run


def calls(tmp_path, name):
    path = tmp_path / "sweep" / name / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def most_at_once(tmp_path):
    running = most = 0
    for line in (tmp_path / "events").read_text().splitlines():
        running += 1 if line.startswith("begin") else -1
        most = max(most, running)
    return most


def test_each_point_is_trained_and_scored_once(sweep, tmp_path, capsys):
    assert sweep({}, RANKS, "--config.optim.learning_rate=0.5", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "done": 4,
        "failed": {},
        "points": {f"rank={n}": {"lora.rank": n} for n in (1, 2, 4, 8)},
    }
    train, score = calls(tmp_path, "rank=4")
    common = [
        f"--config={tmp_path / 'config.py'}",
        "--config.optim.learning_rate=0.5",
        "--config.lora.rank=4",
        f"--workdir={tmp_path / 'sweep' / 'rank=4'}",
    ]
    assert train == ["train", *common] and score == ["eval", *common]
    config = json.loads((tmp_path / "sweep/rank=4/config.json").read_text())["config"]
    assert (config["lora.rank"], config["optim.learning_rate"]) == (4, 0.5)
    assert "[4/4] rank=8, done" in err and most_at_once(tmp_path) == 1
    assert sweep({}, RANKS, "--config.optim.learning_rate=0.5") == 0
    assert len(calls(tmp_path, "rank=4")) == 2


def test_preempted_runs_go_on_and_a_failed_one_holds_up_no_other(sweep, tmp_path, capsys):
    behaviour = {"rank=1": [42, 42, 0], "rank=2": [1], "rank=4": [0, 2]}
    assert sweep(behaviour, RANKS, "--jobs=2") == 2
    error = capsys.readouterr().err
    assert "2 of 4 points failed, the others are done." in error
    assert "rank=2: sft train ended with 1: it went wrong" in error
    assert "rank=4: sft eval ended with 2: it went wrong" in error
    assert [c[0] for c in calls(tmp_path, "rank=1")] == ["train", "train", "train", "eval"]
    assert [c[0] for c in calls(tmp_path, "rank=8")] == ["train", "eval"]
    assert most_at_once(tmp_path) == 2
    assert sweep({}, RANKS) == 0
    assert [c[0] for c in calls(tmp_path, "rank=2")] == ["train", "train", "eval"]
    assert [c[0] for c in calls(tmp_path, "rank=4")] == ["train", "eval", "eval"]


def test_a_run_that_never_gets_on_is_given_up(sweep, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(process, "PREEMPTIONS", 3)
    monkeypatch.setattr(process.Job, "_checkpoints", lambda _: [])
    assert sweep({"rank=1": [42]}, "--sweep.lora.rank=1,2") == 2
    assert "rank=1: stopped 3 times without getting on" in capsys.readouterr().err
    assert len(calls(tmp_path, "rank=1")) == 3 and len(calls(tmp_path, "rank=2")) == 2


def test_nothing_starts_if_one_point_is_unsound(sweep, tmp_path, capsys):
    assert sweep({}, "--sweep.lora.rank=4,-1") == 2
    assert "nothing was started. point 2 (lora.rank = -1)" in capsys.readouterr().err
    assert not (tmp_path / "events").exists() and not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no points() in it, which returns dictionaries of overrides. Write one, or give"),
        ((RANKS, "--points=p.py"), "give either"),
        ((RANKS, "--jobs=0"), "--jobs=0: expected 1 or more"),
        (("--sweep.lora.rank",), "expected --sweep.KEY=A,B"),
        ((RANKS, RANKS), "once for each key"),
        (("--points=nothere.py",), "no such file"),
    ],
)
def test_what_is_no_sweep(sweep, capsys, words, said):
    assert sweep({}, *words) == 2
    assert said in capsys.readouterr().err


def test_points_can_be_added_but_the_rest_must_be_the_same(sweep, tmp_path, capsys):
    assert sweep({}, "--sweep.lora.rank=1,2") == 0
    assert sweep({}, "--sweep.lora.rank=2,4") == 0
    assert len(calls(tmp_path, "rank=2")) == 2
    stored = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert list(stored["points"]) == ["rank=1", "rank=2", "rank=4"]
    capsys.readouterr()
    assert sweep({}, "--sweep.lora.rank=2,4", "--config.train.epochs=9") == 2
    assert "of another configuration (train.epochs: 3 there, 9 here)" in capsys.readouterr().err


def test_what_ran_before_there_were_seeds_is_seed_0(sweep, tmp_path, capsys):
    assert sweep({}, "--sweep.lora.rank=1,2") == 0
    for _ in range(2):
        assert sweep({}, "--sweep.lora.rank=1,2", "--sweep.seed=0,1", "--jobs=2") == 0
        children = (tmp_path / "sweep").iterdir()
        folders = sorted(child.name for child in children if child.is_dir())
        assert folders == ["rank=1", "rank=1,seed=1", "rank=2", "rank=2,seed=1"]
    assert all(len(calls(tmp_path, name)) == 2 for name in folders)
    capsys.readouterr()
    assert sweep({}, "--sweep.lora.rank=2", "--sweep.seed=0,2", "--dry_run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["commands"]["rank=2"] == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"config": {}, "points": {"a": 3}}'])
@pytest.mark.parametrize("more", [[], ["--dry_run"]])
def test_a_damaged_record_of_the_sweep_is_named_and_left_alone(sweep, tmp_path, capsys, text, more):
    record = tmp_path / "sweep" / "sweep.json"
    record.parent.mkdir()
    record.write_text(text)
    assert sweep({}, RANKS, *more) == 2
    assert f"{record}: " in capsys.readouterr().err.splitlines()[-1]
    assert record.read_text() == text and list(record.parent.iterdir()) == [record]


def driver(tmp_path, behaviour):
    """A sweep as a process of its own, with two runs that hang."""
    code = (
        "import sys; from sft import cli; from sft.tune import process, sweep; "
        f"process.PROGRAM = {FAKE!r}; sweep.POLL = 0.02; sys.exit(cli.main(sys.argv))"
    )
    line = [f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'sweep'}", RANKS]
    environment = {"BEHAVIOUR": json.dumps(behaviour), "EVENTS": str(tmp_path / "events")}
    started = subprocess.Popen(
        [sys.executable, "-c", code, "sweep", *line, "--jobs=2"],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: len(begun(tmp_path)) == 2)
    return started


def begun(tmp_path):
    path = tmp_path / "events"
    lines = path.read_text().splitlines() if path.exists() else []
    return [int(line.split()[2]) for line in lines if line.startswith("begin")]


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_signal_to_the_driver_stops_all_and_says_go_on(sweep, tmp_path):
    started = driver(tmp_path, {"rank": ["hang"]})
    started.send_signal(signal.SIGTERM)
    _, error = started.communicate(timeout=60)
    assert started.returncode == 42
    assert "SIGTERM: 0 of 4 points done. Run the same command again" in error
    assert not any(map(is_alive, begun(tmp_path))) and len(begun(tmp_path)) == 2
    assert sweep({}, RANKS) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for a signal at the parent's end")
def test_runs_end_with_a_driver_that_is_killed(sweep, tmp_path):
    started = driver(tmp_path, {"rank": ["hang"]})
    started.kill()
    started.communicate(timeout=60)
    wait_for(lambda: not any(map(is_alive, begun(tmp_path))))
    assert sweep({}, RANKS) == 0
    assert [c[0] for c in calls(tmp_path, "rank=1")] == ["train", "train", "eval"]


POINTS = "\n\ndef points():\n    yield {'lora.rank': 2}\n    yield {'lora.rank': 4}\n"


def test_points_of_the_configuration_itself_and_a_dry_run(sweep, tmp_path, capsys):
    config = tmp_path / "config.py"
    config.write_text(config.read_text() + POINTS)
    assert sweep({}, "--dry_run", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["points"] == {"rank=2": {"lora.rank": 2}, "rank=4": {"lora.rank": 4}}
    words = f"--config={config} --config.lora.rank=4 --workdir={tmp_path / 'sweep' / 'rank=4'}"
    assert found["commands"]["rank=4"] == [f"sft train {words}", f"sft eval {words}"]
    assert not (tmp_path / "sweep").exists() and not (tmp_path / "events").exists()
    assert sweep({"rank=4": [0, 1]}) == 2
    assert sweep({}, "--dry_run") == 0
    assert capsys.readouterr().out.endswith(f"rank=2\n  done\nrank=4\n  sft eval {words}\n")
    assert len(calls(tmp_path, "rank=4")) == 2
