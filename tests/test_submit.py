"""``python -m tpu.submit`` with stand-ins for sky, gcloud, xpk and kubectl on PATH."""

import json
import shutil
import subprocess
import sys

import pytest
import yaml
from submitting import BASE, V6E, launches, run, stand_ins

from tpu import done, skypilot
from tpu.job import ROOT, Job


@pytest.fixture
def calls(tmp_path, monkeypatch):
    return stand_ins(tmp_path, monkeypatch)


def test_without_go_everything_is_printed_and_nothing_run(calls, capsys, tmp_path):
    assert run("launch", *V6E, "--region=us-east5") == 0
    said = capsys.readouterr().out
    (file,) = (tmp_path / "submitted").iterdir()
    assert calls() == []
    assert file.read_text() in said
    assert f"sky jobs launch --yes --detach-run --name={file.stem} " in said
    assert "8 chip(s) v6e, $21.60/h (on demand, list)" in said
    assert "at most 24 h a start: $518.40" in said
    assert "Nothing was run: --go does it." in said


def test_with_go_the_command_is_run_as_a_list(calls, tmp_path):
    assert run("launch", *V6E, '--config.data.reading.instruction=it\'s "a", b', "--go") == 0
    (call,) = launches(calls)
    file = tmp_path / "submitted" / call[-1].rpartition("/")[2]
    assert call == [
        *("sky", "jobs", "launch", "--yes", "--detach-run", f"--name={file.stem}", call[-1]),
    ]
    assert (ROOT / call[-1]).resolve() == file
    task = yaml.safe_load(file.read_text())
    assert task["name"] == file.stem and task["setup"].endswith("host.sh install")
    assert "demo" in task["setup"]  # the weights of this configuration are a package


def test_names_follow_the_configuration_alone(calls, capsys):
    def name(*words):
        assert run("launch", *V6E, *words) == 0
        return capsys.readouterr().out.split("# ")[1].partition(":")[0]

    first = name()
    assert first == name("--hours=3", "--no-spot", "--region=us-east5")
    assert first != name("--config.lora.rank=4")
    assert name("--name=try").startswith("try-")


def test_the_recipe_of_gcloud(calls, capsys):
    assert run("launch", *V6E, "--on=gcloud", "--zone=us-east5-b", "--name=r", "--go") == 0
    create, describe = calls()  # the others need the machine
    assert describe[5:] == [create[5], "--zone=us-east5-b", "--format=value(state)"]
    name = create[5]
    assert create[:5] == ["gcloud", "compute", "tpus", "queued-resources", "create"]
    assert create[6:9] == [
        *(f"--node-id={name}", "--accelerator-type=v6e-8", "--runtime-version=v2-alpha-tpuv6e"),
    ]
    assert create[9] == "--zone=us-east5-b"
    assert create[10].startswith(f"--labels=gemma-sft={name},gemma-sft-by=gcloud,gemma-sft-from=")
    assert create[11:] == ["--spot", "--valid-until-duration=24h", "--async"]
    said = capsys.readouterr().out
    for part in ("git archive", "tpu-vm scp", "--worker=all", "queued-resources delete"):
        assert part in said


def test_the_workload_of_xpk(calls):
    words = ["--on=xpk", "--cluster=pods", "--slice=2xtpu7x-8", "--name=r", "--no-spot", "--go"]
    assert run("launch", *BASE, *words) == 0
    ((*call, command),) = calls()
    assert call[:4] == ["xpk", "workload", "create", call[3]]
    assert call[4:] == [
        *("--cluster=pods", "--tpu-type=tpu7x-8", "--num-slices=2", "--max-restarts=50"),
        *("--on-demand", "--termination-grace-period-seconds=120"),
        *("--base-docker-image=python:3.12", "--script-dir=."),
    ]
    assert command.startswith("--command=exec timeout")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["launch", *BASE], "--slice is missing"),
        (["launch", *V6E, "--slise=v6e-8"], "no flag --slise. Did you mean 'slice'?"),
        (["launch", *V6E, "--config.lora.rnak=3"], "Did you mean 'lora.rank'?"),
        (["launch", *V6E, "--config.lora.rank=-1"], "lora.rank"),
        (["launch", *V6E, "--on=azure"], "--on=azure: expected one of sky, gcloud, xpk"),
        (["launch", *V6E, "--on=gcloud"], "--zone=ZONE is missing"),
        (["launch", *V6E, "--on=xpk"], "--cluster=NAME is missing"),
        (["launch", *BASE, "--slice=tpu7x-8"], "--on=xpk"),
        (["launch", *BASE, "--slice=v6e-7"], "no such TPU slice"),
        (["launch", *V6E, "--hours=0"], "--hours=0"),
        (["launch", *V6E, "--zone=us-east5-b", "--region=us-west1"], "is not in --region"),
        (["launch", *V6E, "--config.mesh.platform=cpu"], "mesh.platform = cpu"),
        (["launch", *V6E, "--config.data.train=data/x.jsonl"], "data.train = data/x.jsonl"),
        (["sweep", *V6E, "--sweep.lora.rank=4,x"], "'x' is no int"),
        (["sweep", *V6E], "no points() in it"),
        (["sweep", *V6E, "--sweep.lora.rank=4", "--most=0"], "--most=0"),
        (["stop"], "--name=NAME is missing"),
        (["gc", "--zone=z"], "--project is missing"),
        (["lunch"], "Did you mean 'launch'?"),
    ],
)
def test_bad_input_starts_nothing_and_says_what_to_do(calls, capsys, words, said):
    assert run(*words, "--go") == 2
    assert said in capsys.readouterr().err
    assert calls() == []


def test_a_configuration_that_is_not_sent_is_refused(calls, capsys, tmp_path):
    shutil.copy(ROOT / "configs" / "quickstart.py", tmp_path / "mine.py")
    assert run("launch", *V6E[1:], f"--config={tmp_path / 'mine.py'}") == 2
    assert "Put it into configs/." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (["status"], "sky jobs queue --all"),
        (["logs", "--name=a"], "sky jobs logs --name=a"),
        (["stop", "a", "--go"], "sky jobs cancel --yes --name=a"),
        (
            ["status", "--name=a", "--on=gcloud", "--zone=z"],
            "gcloud compute tpus queued-resources describe a --zone=z --format=value(state)",
        ),
        (
            ["stop", "--name=a", "--on=gcloud", "--zone=z", "--project=p", "--go"],
            "gcloud compute tpus queued-resources delete a --zone=z --project=p --force --quiet",
        ),
        (["status", "--on=xpk", "--cluster=c"], "xpk workload list --cluster=c"),
        (
            ["logs", "a", "--on=xpk", "--cluster=c"],
            "kubectl logs --follow --prefix --max-log-requests=64 "
            "--selector=jobset.sigs.k8s.io/jobset-name=a",
        ),
        (
            ["stop", "a", "--on=xpk", "--cluster=c", "--go"],
            "xpk workload delete --workload=a --cluster=c --quiet",
        ),
    ],
)
def test_the_rest_is_delegated(calls, words, call):
    assert run(*words) == 0
    assert [" ".join(each) for each in calls()] == [call]


def test_stop_without_go_stops_nothing(calls, capsys):
    assert run("stop", "--name=a") == 0
    assert calls() == []
    assert "sky jobs cancel --yes --name=a" in capsys.readouterr().out


def test_a_tool_that_fails_ends_it(calls, capsys, monkeypatch):
    monkeypatch.setenv("STUB_EXIT", "7")
    assert run("sweep", *V6E, "--sweep.lora.rank=2,4", "--go") == 2
    assert "ended with 7" in capsys.readouterr().err
    assert len(launches(calls)) == 1


@pytest.mark.parametrize(
    ("answer", "code", "names", "why"),
    [
        ('[{"job_name": "a", "task_name": "t"}, {"job_name": "b"}]', 0, {"a", "t", "b"}, ""),
        ('Starting a local server.\n[\n{"job_name": "a"}\n]', 0, {"a"}, ""),
        ("[]", 0, set(), ""),
        ("No in-progress managed jobs.", 1, None, "sleeps or is unknown"),
        ("boom", 1, None, "ended with 1: boom"),
        ("hello", 0, None, "no list of jobs"),
    ],
)
def test_what_sky_says_of_its_jobs(calls, monkeypatch, answer, code, names, why):
    monkeypatch.setenv("QUEUE", answer)
    monkeypatch.setenv("QUEUE_EXIT", str(code))
    found, reason = skypilot.unfinished()
    assert found == names
    assert why in reason if why else reason == ""


def test_marks_on_disk(tmp_path):
    from sft.mesh import slices

    assert done.there(str(tmp_path / "none"), ["1"]) == ({}, "")
    for name in ("trained-1", "scored-2", "new-3", "another-4"):
        (tmp_path / name).mkdir()
    for name in ("trained-1", "scored-2", "another-4"):
        (tmp_path / name / "DONE").touch()
    done.main([str(tmp_path / "scored-2")])
    marks = {"trained-1": ["DONE"], "scored-2": ["DONE", "SCORED"], "new-3": []}
    assert done.there(str(tmp_path), ["1", "2", "3"]) == (marks, "")

    def over(name, has_test):
        job = Job(name, slices.get("v6e-8"), (), str(tmp_path / name), has_test)
        return done.is_over(job, marks[name])

    assert [over(name, True) for name in marks] == [False, True, False]
    assert [over(name, False) for name in marks] == [True, True, False]


def test_a_bucket_is_asked_by_a_process_of_its_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "run-1").mkdir()
    (tmp_path / "run-1" / "DONE").touch()
    done.main(["--json", str(tmp_path), "1"])
    assert json.loads(capsys.readouterr().out) == {"run-1": ["DONE"]}
    for tool, answer in (
        ('echo \'{"run-1": ["DONE"]}\'', ({"run-1": ["DONE"]}, "")),
        ("echo no credentials >&2; exit 1", ({}, "no credentials")),
        ("exit 3", ({}, "it ended with 3")),
        ("exec sleep 60", ({}, "no answer in 1 s")),
    ):
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\n{tool}\n")
        script.chmod(0o755)
        monkeypatch.setattr(done.sys, "executable", str(script))
        assert done.there("gs://b", ["1"], seconds=1) == answer


def test_help_needs_nothing(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "tpu.submit", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path)},
    )
    assert run.returncode == 0 and "python -m tpu.submit launch" in run.stdout
    probe = "import sys, tpu.submit; print([m for m in sys.modules if m in ('jax', 'sky', 'grpc')])"
    run = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
