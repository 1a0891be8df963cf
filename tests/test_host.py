"""``tpu/host.sh`` as a launcher or a start-up script calls it: real bash, almost no environment."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_gcs
import fake_metadata
import pytest
from test_preflight import MEMINFO, facts, holding
from test_scripts import program

from sft.commands import COMMANDS

ROOT = Path(__file__).parents[1]
BARE = {"PATH": "/usr/bin:/bin"}
TPU = "--config.mesh.platform=tpu"
UV = """
case "$1" in --version) echo "uv 0.9.1"; exit ;; esac
echo "$@" >>"{log}"
if [[ -e "{root}/uv_fails" ]]; then echo "no such package: xyz" >&2; exit 2; fi
mkdir -p "$UV_PROJECT_ENVIRONMENT/bin"
cp "{root}/python" "$UV_PROJECT_ENVIRONMENT/bin/python"
"""
# Runs what is asked for before training; of training it takes down how it was called.
PYTHON = """
if [[ $1 == tpu/preflight.py ]]; then shift; {preflight}; fi
if [[ $1 == -c ]]; then exit 0; fi  # env.sh asks whether this is a good Python
exec "{python}" "{record}" "{told}" "$@"
"""
RECORD = """
import json, os, signal, sys, time
told, *words = sys.argv[1:]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))
with open(told + ".part", "w") as file:
    call = {"words": words, "environment": dict(os.environ), "pid": os.getpid(), "cwd": os.getcwd()}
    json.dump(call, file)
os.rename(told + ".part", told)
[time.sleep(60) for word in words if word == "--wait"]
sys.exit(next((int(w.removeprefix("--exit=")) for w in words if w.startswith("--exit=")), 0))
"""


class Host:
    """A checkout on a host whose uv and Python are stand-ins."""

    def __init__(self, root: Path, preflight: str = "exit 0"):
        self.root, self.repo, self.told = root, root / "repo", root / "told.json"
        (self.repo / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "env.sh", self.repo / "scripts")
        shutil.copytree(ROOT / "tpu", self.repo / "tpu")
        for name in ("uv.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, self.repo)
        self.log, record = root / "uv.log", root / "record.py"
        record.write_text(RECORD)
        names = {"python": sys.executable, "record": record, "told": self.told}
        program(root / "python", PYTHON.format(preflight=preflight, **names))
        program(self.repo / ".venv-uv/bin/uv", UV.format(log=self.log, root=root))
        program(root / "bin/python3.12", "exit 0")
        # What is on the PATH comes first, so that none of this machine's is used.
        shutil.copy(self.repo / ".venv-uv/bin/uv", root / "bin/uv")
        self.bare = BARE | {"PATH": f"{root / 'bin'}:{BARE['PATH']}"}

    def line(self, *words: str) -> list[str]:
        return ["bash", str(self.repo / "tpu/host.sh"), *words]

    def run(self, *words: str, cwd: Path = Path("/"), **more: str) -> subprocess.CompletedProcess:
        """``env -i PATH=… bash host.sh WORDS``."""
        return subprocess.run(
            self.line(*words), env=self.bare | more, cwd=cwd, capture_output=True, text=True
        )

    @property
    def call(self) -> dict | None:
        """How training was called, if it was."""
        return json.loads(self.told.read_text()) if self.told.exists() else None

    @property
    def calls_of_uv(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.mark.parametrize(
    "more, extras",
    [
        ({}, "--extra tpu"),
        ({"SFT_EXTRAS": ""}, ""),
        ({"SFT_EXTRAS": "plan demo"}, "--extra plan --extra demo"),
    ],
)
def test_install_takes_what_the_lock_says_once(host, more, extras):
    run = host.run("install", **more)
    assert run.returncode == 0, run.stderr
    (call,) = host.calls_of_uv
    assert call.startswith(f"sync --offline --quiet --project {host.repo} --frozen --python ")
    assert call.partition("--python ")[2].partition(" ")[2] == extras
    assert "upgrade" not in call and host.call is None
    again = host.run("install", **more)
    assert (again.returncode, again.stderr, len(host.calls_of_uv)) == (0, "", 1)
    assert host.run("train", **more).returncode == 0
    assert len(host.calls_of_uv) == 1 and host.call is not None


def test_a_failed_installation_starts_nothing(host):
    (host.root / "uv_fails").touch()
    run = host.run("train")
    assert run.returncode == 1 and "no such package: xyz" in run.stderr
    assert host.call is None


def test_words_arrive_as_they_were_given(host):
    words = [
        "--config=configs/my file.py",
        "--config.data.train=a.jsonl,b c.jsonl",
        """--config.lora.targets='q' "v" $HOME `ls` \\n *""",
        "--workdir=gs://bucket/run one",
        "",
        "two\nlines",
        "ü",
    ]
    assert host.run("train", *words).returncode == 0
    assert host.call["words"] == ["-m", "sft", "train", *words, TPU]


DEVICES = ("train", "sweep", "eval", "eval suite", "eval lm", "eval judge", "data mine")


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_that_run_a_model_ask_for_a_tpu(host, command):
    assert set(DEVICES) < set(COMMANDS)
    words = [*command.split(), "--config=c.py"]
    assert host.run(*words).returncode == 0
    asked = command in DEVICES
    assert host.call["words"] == ["-m", "sft", *words, *[TPU] * asked]
    assert host.call["environment"]["JAX_PLATFORMS"] == ("tpu,cpu" if asked else "cpu")


@pytest.mark.parametrize(
    "given, platforms",
    [
        (["--config.mesh.platform=cpu"], "cpu"),
        (["--config.mesh.platform", "cpu"], "cpu"),
        (["-config.mesh.platform=cpu", "--config.seed=1"], "cpu"),
        (["--config.mesh.platform=cpu", "--config.mesh.platform=tpu"], "tpu,cpu"),
    ],
)
def test_the_last_word_on_the_platform_is_the_callers(host, given, platforms):
    assert host.run("train", *given).returncode == 0
    words = host.call["words"][3:]
    assert words == given or (platforms == "tpu,cpu" and words == [*given, TPU])
    assert host.call["environment"]["JAX_PLATFORMS"] == platforms
    assert host.run("train", *given, JAX_PLATFORMS="mine").returncode == 0
    assert host.call["environment"]["JAX_PLATFORMS"] == "mine"


def test_the_environment_is_what_is_needed_and_no_more(host):
    assert host.run("train", SFT_COORDINATOR="auto").returncode == 0
    found = host.call["environment"]
    of_bash = {"PWD", "OLDPWD", "SHLVL", "_"}
    of_python = {"LC_CTYPE"}  # it chooses UTF-8 where there is no locale
    assert found.keys() - of_bash - of_python == {
        *("HOME", "PATH", "SFT_COORDINATOR"),
        *("UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV", "JAX_PLATFORMS", "PYTHONUNBUFFERED"),
    }
    assert found["HOME"] == pwd.getpwuid(os.getuid()).pw_dir
    assert found["PATH"].startswith(f"{host.repo}/.venv/bin:")
    assert host.run("train", GLIBC_TUNABLES="glibc.malloc.arena_max=2").returncode == 0
    assert host.call["environment"]["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=2"


def test_what_hides_the_hosts_from_one_another_is_refused(host):
    run = host.run("train", TPU_SKIP_MDS_QUERY="1")
    assert run.returncode == 2 and "Unset it" in run.stderr and host.call is None


def test_it_runs_in_the_checkout_wherever_it_is_started(host, tmp_path):
    host.run("install")
    places = [
        (Path("/"), host.line("train")),
        (host.repo / "tpu", ["bash", "host.sh", "train"]),
        (tmp_path, ["repo/tpu/host.sh", "train"]),
    ]
    for cwd, line in places:
        host.told.unlink(missing_ok=True)
        subprocess.run(line, cwd=cwd, env=BARE | {"CDPATH": "/:/usr"}, check=True)
        assert host.call["cwd"] == str(host.repo)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 42, 137])
def test_exit_codes_are_those_of_sft(host, code):
    assert host.run("train", f"--exit={code}").returncode == code


def test_a_signal_reaches_training(host):
    process = subprocess.Popen(host.line("train", "--wait"), env=host.bare)
    try:
        end = time.monotonic() + 60
        while host.call is None:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        assert host.call["pid"] == process.pid  # bash has become Python
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 42
    finally:
        process.kill()


def test_without_words_it_says_how_it_is_called(host):
    line = ["bash", "repo/tpu/host.sh"]
    run = subprocess.run(line, env=BARE, cwd=host.root, capture_output=True, text=True)
    assert run.returncode == 2 and "bash tpu/host.sh install" in run.stderr
    assert host.calls_of_uv == []


def test_a_failed_preflight_starts_nothing(tmp_path):
    host = Host(tmp_path, preflight="echo $* >&2; exit 2")
    run = host.run("train", "--workdir=a b")
    assert run.returncode == 2 and run.stderr.endswith(f"train --workdir=a b {TPU}\n")
    assert host.call is None


@pytest.fixture
def checked(tmp_path):
    """A host that runs the real preflight, on a machine with a TPU made of files."""
    for name in ("dev", "proc", "cgroup"):
        (tmp_path / name).mkdir()
    (tmp_path / "dev/accel0").touch()
    (tmp_path / "proc/meminfo").write_text(MEMINFO)
    code = f"""
import sys, tomllib
from pathlib import Path
root = Path({str(tmp_path)!r})
sys.path.insert(0, str(root / "repo/tpu"))
import preflight
locked = {{p["name"]: p["version"] for p in tomllib.load(open("uv.lock", "rb"))["package"]}}
options = dict(dev=root / "dev", cgroup=root / "cgroup", lockfile=root / "libtpu_lockfile",
    version=lambda name: "0.1" if (root / "old").exists() else locked[name],
    disk=2**60 if (root / "full").exists() else 1,
    proc=Path("/proc") if (root / "living").exists() else root / "proc",
    memory=2**60 if (root / "small").exists() else 1)
sys.exit(preflight.main(sys.argv[1:], preflight.Machine(**options)))
"""
    (tmp_path / "preflight.py").write_text(code)
    return Host(tmp_path, f'exec "{sys.executable}" "{tmp_path}/preflight.py" "$@"')


def test_a_preflight_without_findings_starts_training(checked):
    run = checked.run("train")
    assert run.returncode == 0, run.stderr
    assert "preflight: " not in run.stderr and checked.call is not None


def test_no_tpu_as_it_is(tmp_path):
    """Nothing is a stand-in here but training itself."""
    if [*Path("/dev").glob("accel*"), *Path("/dev").glob("vfio/[0-9]*")]:
        pytest.skip("this machine has a TPU, or what looks like one")
    host = Host(tmp_path, f'exec "{sys.executable}" tpu/preflight.py "$@"')
    run = host.run("train")
    assert run.returncode == 2 and "preflight: no-tpu: " in run.stderr and host.call is None


def check_stops(host, code, *parts, workdir="runs/a", **environment):
    run = host.run("train", f"--workdir={workdir}", **environment)
    assert run.returncode == 2, run.stderr
    (line,) = [text for text in run.stderr.splitlines() if text.startswith("preflight: ")]
    assert line.startswith(f"preflight: {code}: ") and all(str(part) in line for part in parts)
    assert host.call is None


@pytest.mark.parametrize(
    "sign, code", [("old", "versions"), ("full", "disk"), ("small", "memory"), ("", "no-tpu")]
)
def test_failures_of_the_machine(checked, sign, code):
    if sign == "old":  # one of the three would do
        run = checked.run("train", "--config.mesh.platform=cpu")
        assert run.returncode == 0
        checked.told.unlink()
    if sign:
        (checked.root / sign).touch()
    else:
        (checked.root / "dev/accel0").unlink()
    run = checked.run("train")
    assert run.returncode == 2 and checked.call is None
    lines = [text for text in run.stderr.splitlines() if text.startswith("preflight: ")]
    assert lines and all(line.startswith(f"preflight: {code}: ") for line in lines)


def test_a_busy_device(checked):
    (checked.root / "living").touch()
    with holding(checked.root / "dev/accel0") as pid:
        check_stops(checked, "device-busy", f"kill {pid}", "accel0")


def test_a_held_lockfile(checked):
    (checked.root / "living").touch()
    with holding(checked.root / "libtpu_lockfile") as pid:
        check_stops(checked, "lockfile", f"kill {pid}", "libtpu_lockfile")
    assert checked.run("train").returncode == 0
    assert not (checked.root / "libtpu_lockfile").exists()


@pytest.mark.parametrize(
    "name, options, code, part",
    [
        (
            "bucket",
            {"refused": ["POST"]},
            "bucket",
            f"may not be written by {fake_metadata.ACCOUNT}",
        ),
        ("bucket", {"refused": ["DELETE"]}, "bucket", "may not be deleted by"),
        ("other", {}, "bucket", "there is no bucket gs://other."),
        ("bucket", {"facts": facts("EUROPE-WEST4")}, "region", "EUROPE-WEST4"),
    ],
)
def test_failures_of_the_bucket(checked, name, options, code, part):
    with fake_gcs.serve({}, **options) as storage, fake_metadata.serve() as metadata:
        where = {"STORAGE_EMULATOR_HOST": storage, "GCE_METADATA_HOST": metadata}
        bare = {"NO_GCE_CHECK": "true", **where}
        check_stops(checked, code, part, workdir=f"gs://{name}/run", **bare)
        if code == "region":
            run = checked.run("train", "--workdir=gs://bucket/run", SFT_ANY_REGION="1", **bare)
            assert run.returncode == 0 and "preflight: note: " in run.stderr
