"""``python -m tpu.submit`` with stand-ins for sky, gcloud, xpk and kubectl on PATH."""

import json
import os
import shutil
import subprocess
import sys
import types

import pytest
import yaml

from sft import config as configs
from sft.errors import DOES_NOT_FIT
from tpu import done, planning, skypilot, submit
from tpu.job import ROOT, Job

SETS = [f"--config.data.{name}=gs://b/{name}.jsonl" for name in ("train", "validation", "test")]
BASE = ["--config=configs/quickstart.py", *SETS, "--bucket=gs://b/runs", "--no-plan"]
V6E = [*BASE, "--slice=v6e-8"]
STUB = """#!{python}
import json, os, sys
with open({log!r}, "a") as log:
    log.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
if "queue" in sys.argv and "--output=json" in sys.argv:
    print(os.environ.get("QUEUE", "[]"))
    sys.exit(int(os.environ.get("QUEUE_EXIT", "0")))
sys.exit(int(os.environ.get("STUB_EXIT", "0")))
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """What was called, as a function."""
    folder, log = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    for name in ("sky", "gcloud", "xpk", "kubectl"):
        (folder / name).write_text(STUB.format(python=sys.executable, log=str(log)))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(skypilot, "FOLDER", tmp_path / "submitted")
    # Buckets are not there; what they would say is given.
    monkeypatch.setattr(done, "of", lambda jobs: (set(), ""))
    return lambda: (
        [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    )


def run(*words: str) -> int:
    return submit.main(["submit", *words])


def launches(calls) -> list[list[str]]:
    return [call for call in calls() if call[1:3] == ["jobs", "launch"]]


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
    monkeypatch.setattr(done, "of", lambda jobs: ({names[0]}, ""))
    monkeypatch.setenv("QUEUE", json.dumps([{"job_name": names[1], "task_name": names[1]}]))
    assert run(*words, "--most=2", "--go") == 0
    assert [call[5] for call in launches(calls)] == [f"--name={names[2]}"]
    said = capsys.readouterr().out
    assert "4 points: 1 done, 3 to submit, at most 2 now." in said
    assert "under way already" in said


def test_a_sweep_with_an_unsound_point_starts_none(calls, capsys):
    assert run("sweep", *V6E, "--sweep.lora.rank=4,-1", "--go") == 2
    assert "nothing was started" in capsys.readouterr().err
    assert launches(calls) == []


def test_a_sweep_does_not_start_what_may_be_done(calls, capsys, monkeypatch):
    monkeypatch.setattr(done, "of", lambda jobs: (set(), "no answer"))
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


def test_marks_on_disk(tmp_path, monkeypatch):
    from sft import topology

    def at(name, has_test=True):
        return Job(name, topology.get("v6e-8"), (), str(tmp_path / name), has_test)

    jobs = [at("new"), at("trained"), at("scored"), at("no-test", has_test=False)]
    for name in ("trained", "scored", "no-test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "DONE").touch()
    done.main([str(tmp_path / "scored")])
    assert done.of(jobs) == ({"scored", "no-test"}, "")


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
