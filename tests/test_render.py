"""A job as SkyPilot, gcloud and xpk get it, and what its script does with real processes."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from sft.errors import UserError
from sft.mesh import slices
from tpu import gcloud, job, skypilot, xpk
from tpu.job import NAME, ROOT, RUNTIMES, Job

ON_API = [s for s in slices.SLICES.values() if s.generation.name in RUNTIMES]
ODD = (  # each must arrive as it is
    '--config.data.reading.instruction=it\'s "quoted", $HOME `id` \\ and ünïcode',
    "--config.lora.targets=q|k|v|o",
    "--config.eval.metrics=exact_match,bleu",
)


def made(slice_name: str = "v6e-8", **values) -> Job:
    common = {
        "name": "mine-1a2b3c4d",
        "words": ("--config=configs/mine.py", *ODD),
        "workdir": "gs://b/runs/mine-1a2b3c4d",
        "has_test": True,
        "zone": "us-east5-b",
        "cluster": "pods",
    }
    return Job(slice=slices.get(slice_name), **(common | values))


@pytest.mark.parametrize("slice_", ON_API, ids=lambda s: s.name)
def test_every_slice_of_the_api_renders_with_its_own_runtime(slice_):
    found = yaml.safe_load(skypilot.text(made(slice_.name)))
    resources = found["resources"]
    assert resources["accelerators"] == f"tpu-{slice_.cloud}"
    assert resources["accelerator_args"] == {
        "runtime_version": RUNTIMES[slice_.generation.name],
        "gcp_queued_resource": True,
    }
    assert resources["job_recovery"]["recover_on_exit_codes"] == [42]
    assert resources["infra"] == "gcp/us-east5/us-east5-b"
    assert found["run"] == made(slice_.name).script
    create = gcloud.steps(made(slice_.name))[0].argv
    assert f"--accelerator-type={slice_.cloud}" in create
    assert f"--runtime-version={RUNTIMES[slice_.generation.name]}" in create


@pytest.mark.parametrize("name", ["tpu7x-8", "2xv6e-8"])
@pytest.mark.parametrize("launcher", [skypilot, gcloud])
def test_what_the_api_lacks_is_sent_to_xpk(launcher, name):
    with pytest.raises(UserError, match="--on=xpk"):
        (launcher.text if launcher is skypilot else launcher.steps)(made(name))


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [("tpu7x-8", "tpu7x-8", 1), ("2xtpu7x-8", "tpu7x-8", 2), ("3xv5e-16", "v5litepod-16", 3)],
)
def test_xpk_gets_one_slice_and_how_many(name, kind, count):
    argv = xpk.steps(made(name))[0].argv
    assert f"--tpu-type={kind}" in argv and f"--num-slices={count}" in argv
    assert argv[-1] == f"--command={made(name).one_line}"


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("job_recovery", "max_restart_on_errors"), 3, "job_recovery.max_restart_on_errors"),
        (("job_recovery", "strategy"), "NOPE", "job_recovery.strategy: 'NOPE'"),
        (("job_recovery", "recover_on_exit_codes"), [1, 42], "recover_on_exit_codes"),
        (("accelerators",), "tpu-v7x-8", "accelerators: 'tpu-v7x-8'"),
        (("accelerators",), "tpu-tpu7x-8", "accelerators: 'tpu-tpu7x-8'"),
        (("accelerators",), "tpu-v6e-7", "accelerators: 'tpu-v6e-7'"),
        (("accelerator_args", "runtime_version"), "v2-alpha-tpuv5", "needs v2-alpha-tpuv5-lite"),
        (("labels",), {}, "labels: no gemma-sft"),
    ],
)
def test_what_skypilot_does_not_catch_is_caught(path, value, named):
    task = skypilot.task(made("v5e-8"))
    skypilot.check(task)
    inner = task["resources"]
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(UserError, match=re.escape(named)):
        skypilot.check(task)


@pytest.mark.parametrize("prefix", ["mine", "3 Ünder_scores!", "", "-", "x" * 80, "a=1,b=" * 9])
def test_names_suit_all_three_tools(prefix):
    found = job.name(prefix, "1a2b3c4d5e6f")
    assert NAME.fullmatch(found) and len(found) < 40 and found.endswith("-1a2b3c4d")
    assert job.name(prefix, "1a2b3c4d5e6f") == found != job.name(prefix, "0a2b3c4d5e6f")


def test_labels_are_what_google_cloud_allows():
    for key, value in made().labels(skypilot.BY).items():
        assert re.fullmatch(r"[a-z][-_a-z0-9]{0,62}", key)
        assert re.fullmatch(r"[-_a-z0-9]{1,63}", value)


# The script, with a stand-in for host.sh that records its words.
HOST = """
printf '%s\\0' "$@" >>words; printf '\\n' >>words
if [[ $1 == train && -e slow ]]; then
  trap 'kill $!; sleep 0.3; echo saved >saved; exit 42' TERM
  sleep 60 & touch started; wait
fi
if [[ $1 == train && -e fails ]]; then exit "$(cat fails)"; fi
"""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    (tmp_path / "tpu").mkdir()
    (tmp_path / "tpu" / "host.sh").write_text(HOST)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\necho "$@" >marked\n')
    python.chmod(0o755)
    return tmp_path


def start(host: Path, script: str) -> subprocess.Popen:
    return subprocess.Popen(["bash", "-c", script], cwd=host)


def lines(host: Path) -> list[list[str]]:
    text = (host / "words").read_text()
    return [line.split("\0")[:-1] for line in text.split("\n") if line]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_words_arrive_unchanged_through_yaml_and_shells(host):
    script = yaml.safe_load(skypilot.text(made()))["run"]
    assert start(host, script).wait(20) == 0
    last = ["--config=configs/mine.py", *ODD, "--workdir=gs://b/runs/mine-1a2b3c4d"]
    assert lines(host) == [["train", *last], ["eval", *last]]
    assert (host / "marked").read_text() == "-m tpu.done gs://b/runs/mine-1a2b3c4d\n"


def test_words_arrive_unchanged_through_ssh(host):
    """``gcloud … ssh --command`` hands its text to the shell of the host, in the background."""
    (command,) = [s.argv[-1] for s in gcloud.steps(made()) if s.title.startswith("run")]
    (host / "gemma-sft").symlink_to(host)
    assert start(host, command.removeprefix("--command=")).wait(20) == 0
    wait_for(host / "marked")
    assert lines(host)[1][2:-1] == list(ODD)


@pytest.mark.parametrize("code", [1, 2, 42])
def test_exit_codes_pass_and_nothing_is_scored_after_a_failure(host, code):
    (host / "fails").write_text(str(code))
    assert start(host, made().script).wait(20) == code
    assert [line[0] for line in lines(host)] == ["train"]
    assert not (host / "marked").exists()


@pytest.mark.parametrize("wrapper", ["{}", "({}) & PID=$!; trap 'kill $PID' TERM; wait; wait $PID"])
def test_sigterm_reaches_the_trainer_and_its_42_comes_back(host, wrapper):
    """Alone, and as xpk runs it: in a subshell, to which alone it passes the signal on."""
    (host / "slow").touch()
    run = start(host, wrapper.format(made().one_line))
    wait_for(host / "started")
    run.send_signal(signal.SIGTERM)
    assert run.wait(20) == 42
    assert (host / "saved").exists()
    assert [line[0] for line in lines(host)] == ["train"]


def test_the_cap_of_hours_saves_and_is_no_code_that_restarts(host):
    (host / "slow").touch()
    assert start(host, made(hours=1 / 3600).script).wait(20) == 124
    assert (host / "saved").exists()


# With the real tools.


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    os.environ["SKYPILOT_DISABLE_USAGE_COLLECTION"] = "1"
    os.environ["HOME"], before = str(home), os.environ.get("HOME", "")
    yield pytest.importorskip("sky")
    os.environ["HOME"] = before


@pytest.mark.cloud
@pytest.mark.parametrize("slice_", ON_API, ids=lambda s: s.name)
def test_skypilot_reads_every_slice(sky, slice_, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    file = tmp_path / "task.yaml"
    file.write_text(skypilot.text(made(slice_.name)))
    task = sky.Task.from_yaml(str(file))
    (resources,) = task.resources
    assert resources.accelerators == {f"tpu-{slice_.cloud}": 1}
    assert resources.accelerator_args["runtime_version"] == RUNTIMES[slice_.generation.name]
    assert resources.use_spot and resources.zone == "us-east5-b"
    assert resources.job_recovery["recover_on_exit_codes"] == [42]
    assert task.run == made(slice_.name).script


@pytest.mark.cloud
@pytest.mark.parametrize("key", ["use_spott", "acceleratorss"])
def test_skypilot_names_a_wrong_key(sky, key, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    task = skypilot.task(made())
    task["resources"][key] = True
    file = tmp_path / "task.yaml"
    file.write_text(yaml.safe_dump(task))
    with pytest.raises(ValueError, match=key):
        sky.Task.from_yaml(str(file))


@pytest.mark.cloud
def test_skypilot_has_our_strategies_and_keys(sky):
    from sky.jobs import recovery_strategy  # noqa: F401 - registers them
    from sky.utils import registry, schemas

    known = registry.JOBS_RECOVERY_STRATEGY_REGISTRY
    assert set(skypilot.STRATEGIES) <= {str(key).upper() for key in known}
    text = json.dumps(schemas.get_resources_schema())
    assert all(f'"{key}"' in text for key in skypilot.RECOVERY)


def dry_run(tmp_path: Path, argv: list[str]) -> subprocess.CompletedProcess:
    program = shutil.which("xpk") or str(ROOT / ".venv-xpk" / "bin" / "xpk")
    if not Path(program).exists():
        pytest.skip("no xpk: SFT_ENVIRONMENT=.venv-xpk source scripts/env.sh xpk")
    manifest = [f"--output-manifest-file={tmp_path / 'm.yaml'}", "--dry-run"]
    return subprocess.run(
        [program, *argv[1:], *manifest],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"HOME": str(tmp_path)},
    )


@pytest.mark.cloud
@pytest.mark.parametrize("name", ["v4-8", "v5e-8", "v5p-8", "v6e-1", "v6e-256", "2xtpu7x-8"])
def test_xpk_accepts_the_workload(name, tmp_path):
    wanted = made(name, project="p")
    run = dry_run(tmp_path, list(xpk.steps(wanted)[0].argv))
    assert run.returncode == 0, run.stdout + run.stderr
    jobset = yaml.safe_load((tmp_path / "m.yaml").read_text())
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == wanted.restarts
    assert jobset["spec"]["replicatedJobs"][0]["replicas"] == wanted.slice.count
    assert ODD[1] in (tmp_path / "m.yaml").read_text()


@pytest.mark.cloud
@pytest.mark.parametrize("name", ["v5e-1", "v5e-4"])
def test_what_xpk_lacks_is_refused_before(name, tmp_path):
    with pytest.raises(UserError, match="xpk has no v5litepod"):
        xpk.steps(made(name))
    argv = [*xpk.steps(made("v5e-8"))[0].argv]
    argv = [a.replace("v5litepod-8", dataclasses.replace(made(name).slice).cloud) for a in argv]
    assert "invalid choice" in dry_run(tmp_path, argv).stderr
