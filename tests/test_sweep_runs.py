"""A sweep of runs that are really trained: the driver killed on the way, and not."""

import json
import os
import subprocess
import sys
import time

import pytest
import tiny_run

shared, registered = tiny_run.shared, tiny_run.registered
SWEPT = ("--sweep.lora.rank=2,4", "--sweep.seed=0,1", "--jobs=2")


def start(project, workdir, **environment):
    words = project.words("sweep", workdir, *SWEPT)
    return subprocess.Popen(
        [sys.executable, "-m", "sft", *words],
        cwd=tiny_run.ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def steps(workdir):
    return [len(path.read_text().splitlines()) for path in workdir.glob("*/metrics.jsonl")]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_killed_sweep_goes_on_to_the_same_table(shared, tmp_path, capsys):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = start(shared, whole)
    assert done.communicate()[0] is not None and done.returncode == 0
    cut = start(shared, killed, SLOW_BATCHES="1")
    until = time.monotonic() + 600
    while not any(count > 4 for count in steps(killed)):
        assert time.monotonic() < until and cut.poll() is None
        time.sleep(0.1)
    cut.kill()
    cut.communicate()
    assert not list(killed.glob("*/DONE"))
    again = start(shared, killed)
    out, _ = again.communicate()
    assert again.returncode == 0, out
    for workdir in (whole, killed):
        assert shared.main("report", workdir) == 0
    tables = [(path / "sweep.csv").read_text().replace(str(path), "") for path in (whole, killed)]
    numbers = [[line.rpartition(",")[0] for line in table.splitlines()] for table in tables]
    assert numbers[0] == numbers[1] and len(numbers[0]) > 2
    points = json.loads((killed / "sweep.json").read_text())["points"]
    assert list(points) == [f"rank={r},seed={s}" for r in (2, 4) for s in (0, 1)]
