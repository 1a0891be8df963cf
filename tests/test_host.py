"""``tpu/host.sh`` as a launcher or a start-up script calls it: real bash, almost no environment."""

import os
import pwd
import signal
import subprocess
import time
from pathlib import Path

import pytest
from hosting import BARE, TPU, Host

from sft.commands.table import COMMANDS


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


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_that_run_a_model_ask_for_a_tpu(host, command):
    words = [*command.split(), "--config=c.py"]
    assert host.run(*words).returncode == 0
    asked = COMMANDS[command].needs_devices
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
