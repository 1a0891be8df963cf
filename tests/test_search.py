"""A search by Optuna: what it finds, what it stops, and what is left when it is killed."""

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

FAKE = (sys.executable, str(Path(__file__).with_name("fake_search.py")))
CONFIG = """
from sft.config import default

def get_config():
    return default()

def suggest(trial):
    return {"optim.learning_rate": trial.suggest_float("rate", 1e-3, 1.0)}
"""
DRIVER = """
import sys
from sft import cli
from sft.tune import process, sweep
process.PROGRAM, sweep.POLL = tuple(sys.argv[1:3]), 0.02
sys.exit(cli.main(["sft", *sys.argv[3:]]))
"""


@pytest.fixture
def search(tmp_path, monkeypatch):
    """``search(trials, *words)`` runs one with stand-ins for the runs; its exit code."""
    monkeypatch.setattr(process, "PROGRAM", FAKE)
    monkeypatch.setattr("sft.tune.sweep.POLL", 0.02)
    (tmp_path / "config.py").write_text(CONFIG)

    def run(trials, *words, pause=0.0):
        monkeypatch.setenv("PAUSE", str(pause))
        return cli.main(["sft", *line(tmp_path, trials), *words])

    return run


def line(tmp_path, trials):
    where = f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'search'}"
    return ["sweep", *where, f"--trials={trials}"]


def rates(tmp_path):
    points = json.loads((tmp_path / "search" / "sweep.json").read_text())["points"]
    return [point["optim.learning_rate"] for point in points.values()]


def test_the_best_validation_is_found_and_more_trials_go_on(search, tmp_path, capsys):
    assert search(3, "--json") == 0
    three = json.loads(capsys.readouterr().out)
    assert three["done"] == 3 and len(rates(tmp_path)) == 3
    assert search(12, "--json", "--jobs=2") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(rates(tmp_path)) == 12 and rates(tmp_path)[:3] == [
        point["optim.learning_rate"] for point in three["points"].values()
    ]
    best = min(rates(tmp_path), key=lambda rate: abs(rate - 0.3))
    assert found["best"]["overrides"] == {"optim.learning_rate": best}
    assert found["best"]["value"] == pytest.approx(abs(best - 0.3) + 0.2)
    assert abs(best - 0.3) < 0.1
    assert search(12, "--json") == 0  # there are enough
    assert json.loads(capsys.readouterr().out)["best"] == found["best"]
    assert len(rates(tmp_path)) == 12


def test_what_is_worse_than_the_median_is_stopped_and_stays_so(search, tmp_path, capsys):
    assert search(14, "--json", pause=0.1) == 0
    out, err = capsys.readouterr()
    stopped = json.loads(out)["stopped"]
    assert stopped and all("worse than half of the others at step" in w for w in stopped.values())
    assert json.loads(out)["done"] == 14 - len(stopped)
    name = next(iter(stopped))
    run = tmp_path / "search" / name
    assert (run / "STOPPED").read_text() == stopped[name] and not (run / "DONE").exists()
    assert f"{name}, stopped: worse" in err
    calls = (run / "calls").read_text()
    assert search(14, pause=0.1) == 0 and (run / "calls").read_text() == calls


@pytest.mark.parametrize("killing", [signal.SIGKILL, signal.SIGINT])
def test_a_search_that_was_ended_goes_on_with_the_same_trials(search, tmp_path, capsys, killing):
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *FAKE, *line(tmp_path, 8), "--jobs=2"],
        env=os.environ | {"PAUSE": "0.2"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    runs, until = tmp_path / "search", time.monotonic() + 120
    while len(list(runs.glob("*/DONE"))) < 2 or not list(runs.glob("*/metrics.jsonl"))[2:]:
        assert time.monotonic() < until and driver.poll() is None
        time.sleep(0.02)
    driver.send_signal(killing)
    assert driver.wait() == (42 if killing == signal.SIGINT else -signal.SIGKILL)
    before = rates(tmp_path)
    until = time.monotonic() + 60
    while time.monotonic() < until and _alive(runs):
        time.sleep(0.05)
    assert search(8, "--json", "--jobs=2") == 0
    found = json.loads(capsys.readouterr().out)
    assert rates(tmp_path)[: len(before)] == before and len(rates(tmp_path)) == 8
    for run in runs.glob("*/metrics.jsonl"):
        steps = [json.loads(row)["step"] for row in run.read_text().splitlines()]
        assert steps == list(range(1, len(steps) + 1))
    assert found["done"] + len(found.get("stopped", {})) >= 8 - len(before)


def _alive(runs):
    return subprocess.run(["pgrep", "-f", str(runs)], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("suggest", "said"),
    [
        ("return {'optim.learning_rate': -1.0}", "trial 0: nothing was started."),
        ("return 1 / 0", "config.py:8: ZeroDivisionError"),
        ("return {'lora.rang': 1}", "Did you mean 'lora.rank'"),
    ],
)
def test_an_unsound_suggestion_ends_the_search(search, tmp_path, capsys, suggest, said):
    text = CONFIG[: CONFIG.index("    return {")] + f"    {suggest}\n"
    assert search is not None
    (tmp_path / "config.py").write_text(text)
    assert search(4) == 2
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "search").glob("*/calls"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sweep.lora.rank=1,2"], "--trials is of a search by suggest()"),
        (["--dry_run"], "leave out --trials"),
        (["--trials=-1"], "expected 1 or more"),
    ],
)
def test_what_is_no_search(search, capsys, words, said):
    assert search(4, *words) == 2
    assert said in capsys.readouterr().err


def test_without_optuna_it_says_how_to_get_it(search, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert search(4) == 2
    assert "uv sync --extra search" in capsys.readouterr().err
