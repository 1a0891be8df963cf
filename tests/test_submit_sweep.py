"""Sweeps on TPUs: which points become jobs, and what is planned."""

import json
import subprocess
import types

import pytest
import yaml
from submitting import V6E, launches, run, stand_ins

from sft import config as configs
from sft.errors import DOES_NOT_FIT
from tpu import done, planning


@pytest.fixture
def calls(tmp_path, monkeypatch):
    return stand_ins(tmp_path, monkeypatch)


def test_a_sweep_is_a_job_for_every_point_with_its_own_directory(calls, tmp_path):
    sweep = ["--sweep.lora.rank=4,8", "--sweep.optim.learning_rate=0.001,0.002"]
    assert run("sweep", *V6E, "--name=s", *sweep, "--go") == 0
    names = [call[5].removeprefix("--name=") for call in launches(calls)]
    assert len(set(names)) == 4
    for name, rank, rate in zip(names, "4488", ["0.001", "0.002"] * 2, strict=True):
        text = yaml.safe_load((tmp_path / "submitted" / f"{name}.yaml").read_text())["run"]
        assert f"--config.lora.rank={rank} --config.optim.learning_rate={rate}" in text
        assert f"--workdir=gs://b/runs/{name} " in text


def test_a_sweep_leaves_out_what_is_done_and_what_is_under_way(calls, capsys, monkeypatch):
    words = ["sweep", *V6E, "--name=s", "--sweep.lora.rank=2,4,8,16"]
    assert run(*words) == 0
    names = [n.partition(":")[0] for n in capsys.readouterr().out.split("\n# s-")[1:]]
    names = [f"s-{name}" for name in names]
    monkeypatch.setattr(done, "there", lambda *_: ({names[0]: done.MARKS}, ""))
    monkeypatch.setenv("QUEUE", json.dumps([{"job_name": names[1], "task_name": names[1]}]))
    assert run(*words, "--most=2", "--go") == 0
    assert [call[5] for call in launches(calls)] == [f"--name={names[2]}"]
    said = capsys.readouterr().out
    assert "4 points: 1 done, 3 to submit, at most 2 now." in said
    assert "under way already" in said


def test_seeds_added_later_leave_the_run_without_one_its_name(calls, capsys, monkeypatch):
    """It is that of seed 0: done, under way or begun, it is not run again beside itself."""
    config = [*V6E, "--name=s"]
    assert run("sweep", *config, "--sweep.lora.rank=4", "--go") == 0
    old = launches(calls)[0][5].removeprefix("--name=")
    other = old.replace("s-", "another-")  # the same values, of another sweep
    words = ["sweep", *config, "--sweep.lora.rank=4", "--sweep.seed=0,1", "--go"]

    def again(marks, queue=()):
        before = len(launches(calls))
        monkeypatch.setattr(done, "there", lambda *_: (marks, ""))
        monkeypatch.setenv("QUEUE", json.dumps([{"job_name": n, "task_name": n} for n in queue]))
        assert run(*words) == 0
        return [call[5].removeprefix("--name=") for call in launches(calls)[before:]]

    fresh = again({other: done.MARKS})
    assert [name[: name.rindex("-")] for name in fresh] == ["s-rank-4-seed-0", "s-rank-4-seed-1"]
    assert again({old: done.MARKS}) == fresh[1:]
    assert again({old: []}) == [old, fresh[1]]
    assert again({}, queue=[old]) == fresh[1:]
    assert again({old: [], fresh[0]: done.MARKS}) == fresh[1:]


def test_a_sweep_with_an_unsound_point_starts_none(calls, capsys):
    assert run("sweep", *V6E, "--sweep.lora.rank=4,-1", "--go") == 2
    assert "nothing was started" in capsys.readouterr().err
    assert launches(calls) == []


def test_a_sweep_does_not_start_what_may_be_done(calls, capsys, monkeypatch):
    monkeypatch.setattr(done, "there", lambda *_: ({}, "no answer"))
    assert run("sweep", *V6E, "--sweep.lora.rank=4", "--go") == 2
    assert run("sweep", *V6E, "--sweep.lora.rank=4") == 0
    assert launches(calls) == []


def test_every_shape_is_planned_once(calls, monkeypatch):
    planned = []
    monkeypatch.setattr(planning, "_plan", lambda words, name: planned.append(words) or {})
    words = [word for word in V6E if word != "--no-plan"]
    sweep = ["--sweep.lora.rank=4,8", "--sweep.seed=0,1,2", "--sweep.optim.learning_rate=0.1,0.2"]
    assert run("sweep", *words, *sweep) == 0
    assert len(planned) == 2


@pytest.mark.parametrize("key", ["train.batch_size", "data.max_length", "lora.dropout", "optim.b1"])
def test_what_may_change_memory_is_another_shape(key):
    config = configs.default()
    other = configs.default()
    value = dict(configs.flatten(config))[key]
    other.update_from_flattened_dict({key: value * 2 + 1 if isinstance(value, int) else 0.5})
    assert planning.shape(config) != planning.shape(other)


@pytest.mark.parametrize(("code", "exits"), [(3, DOES_NOT_FIT), (2, 2), (0, 0)])
def test_the_answer_of_plan_is_heeded(calls, monkeypatch, code, exits):
    asked = []

    def plan(command, **_):
        asked.append(command)
        return subprocess.CompletedProcess(command, code, stdout='{"fits": false}\n')

    with monkeypatch.context() as patch:
        patch.setattr(planning.importlib.util, "find_spec", lambda name: name)
        patch.setattr(planning, "subprocess", types.SimpleNamespace(run=plan, PIPE=-1))
        assert run("launch", *[word for word in V6E if word != "--no-plan"]) == exits
    (command,) = asked
    assert command[1:5] == ["-m", "sft", "plan", "--config=configs/quickstart.py"]
    assert command[-2:] == ["--slice=v6e-8", "--json"]
    assert launches(calls) == []


def test_without_the_compiler_no_plan_is_named(calls, monkeypatch, capsys):
    monkeypatch.setattr(planning.importlib.util, "find_spec", lambda name: None)
    assert run("launch", *[word for word in V6E if word != "--no-plan"], "--go") == 2
    assert "--no-plan submits without" in capsys.readouterr().err
    assert launches(calls) == []
