"""The life of a run on spot machines: hosts are taken away, a launcher starts them again.

Every host runs ``tpu/host.sh`` with the real command. The launcher is a stand-in for managed jobs
of SkyPilot: it starts all hosts again when they end with 42 (``recover_on_exit_codes``) or when a
machine is lost, and after no other end.
"""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import hosts_run
import pytest
import test_hosts
import tiny_run
from test_loop import TOTAL, lines
from test_scripts import program

from sft.errors import BAD_INPUT, DONE, PREEMPTED
from sft.run.directory import read_json

shared, registered, two = tiny_run.shared, tiny_run.registered, test_hosts.two
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
LOST = -signal.SIGKILL
UV = """
case "$1" in --version) echo "uv 0.9.1"; exit ;; esac
if [[ -e $UV_PROJECT_ENVIRONMENT ]]; then exit 3; fi
mkdir -p "$UV_PROJECT_ENVIRONMENT/bin"
printf '#!/bin/bash\\nexec "{python}" "$@"\\n' >"$UV_PROJECT_ENVIRONMENT/bin/python"
chmod +x "$UV_PROJECT_ENVIRONMENT/bin/python"
"""


@pytest.fixture(scope="module", autouse=True)
def login():
    """JAX sets this in a process that has libtpu and no TPU, which a launcher is not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
        yield


@pytest.fixture(scope="module")
def job(login, tmp_path_factory):
    """Starts hosts on a checkout where the installation is this environment."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("tpu", "scripts"):  # not as links, which would lead to the real environment
        shutil.copytree(tiny_run.ROOT / name, root / name)
    for name in ("sft", "uv.lock", "pyproject.toml"):
        (root / name).symlink_to(tiny_run.ROOT / name)
    program(root / "bin/uv", UV.format(python=sys.executable))
    environment = {"PATH": f"{root}/bin:{os.environ['PATH']}", "SFT_EXTRAS": ""}
    script = ("bash", f"{root}/tpu/host.sh")
    subprocess.run([*script, "install"], env=os.environ | environment, check=True)
    words = ("--config.mesh.platform=cpu", "--config.train.save_every=3")
    return functools.partial(launched, words=words, script=script, SLOW_BATCHES="1", **environment)


def launched(
    project: tiny_run.Project,
    run: Path,
    folder: Path,
    happens: Sequence[Callable[[hosts_run.Hosts], None]] = (),
    *,
    words: Sequence[str],
    most: int = 4,
    **options,
) -> list[list[int]]:
    """Starts both hosts up to ``most`` times; something ``happens`` to each of the first starts.

    Returns:
      The exit codes of the hosts, for each start.
    """
    ends: list[list[int]] = []
    while not ends or (len(ends) < most and (LOST in ends[-1] or set(ends[-1]) == {PREEMPTED})):
        place = folder / str(len(ends))
        with hosts_run.started(project, "train", run, *words, folder=place, **options) as hosts:
            if len(ends) < len(happens):
                happens[len(ends)](hosts)
            ends.append(codes(hosts))
    return ends


def codes(hosts: hosts_run.Hosts) -> list[int]:
    """Waits for the end of all; where a machine is lost, the launcher takes the others down."""
    while any(process.poll() is None for process in hosts.processes):
        if any(process.poll() == LOST for process in hosts.processes):
            for process in hosts.processes:
                process.kill()
        time.sleep(0.05)
    return hosts.codes()


def saved(run: Path) -> list[int]:
    """The steps of whole checkpoints."""
    folder = run / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    return sorted(int(name) for name in names if name.isdigit())


def at_work(run: Path, hosts: hosts_run.Hosts) -> None:
    """Waits until the hosts have a checkpoint to go back to, and are beyond it."""
    begun = lines(run / "metrics.jsonl")
    hosts.wait_until(lambda: bool(saved(run)) and lines(run / "metrics.jsonl") >= begun + 5)


def send(run: Path, number: int, host: int, hosts: hosts_run.Hosts) -> None:
    at_work(run, hosts)
    hosts.processes[host].send_signal(number)


@pytest.mark.parametrize("host", [0, 1])
def test_notice_of_preemption(shared, two, job, tmp_path, host):
    run = tmp_path / "run"
    happens = [functools.partial(send, run, signal.SIGTERM, host)] * 2
    assert job(shared, run, tmp_path, happens) == [[PREEMPTED] * 2] * 2 + [[DONE] * 2]
    stops = []
    for start in "01":
        told = [(tmp_path / start / f"{i}.err").read_text() for i in (0, 1)]
        steps = {int(re.search(r"at step (\d+) of", text)[1]) for text in told}
        assert len(steps) == 1  # both have saved the same
        stops += steps
    assert 0 < stops[0] < stops[1] < TOTAL
    assert read_json(run / "environment.json")["first_step"]["step"] == stops[1] + 1
    test_hosts.check_same_run(shared, run, two)


@pytest.mark.parametrize("host", [0, 1])
def test_a_machine_that_is_gone_without_notice(shared, two, job, tmp_path, host):
    run = tmp_path / "run"
    first, second = job(shared, run, tmp_path, [functools.partial(send, run, signal.SIGKILL, host)])
    assert first[host] == LOST and first[1 - host] not in (DONE, PREEMPTED)
    assert second == [DONE, DONE]
    assert read_json(run / "environment.json")["first_step"]["step"] > 1
    test_hosts.check_same_run(shared, run, two)


class Disk:
    """A file system of its own, large until it is said to be full."""

    def __init__(self, path: Path):
        self.path = path

    def mount(self, *options: str) -> bool:
        line = ["mount", "-t", "tmpfs", *options, "tmpfs", str(self.path)]
        return subprocess.run(line, capture_output=True).returncode == 0

    def fill(self) -> None:
        """Leaves 8 KiB; asked again where more has been written in between."""
        end = time.monotonic() + 60
        while not self.mount("-o", f"remount,size={shutil.disk_usage(self.path).used + 8192}"):
            assert time.monotonic() < end

    def free(self) -> None:
        assert self.mount("-o", "remount,size=8g")


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    found = Disk(path)
    if not found.mount("-o", "size=8g"):
        pytest.skip("may not mount a file system")
    yield found
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk(shared, two, job, tmp_path, disk):
    """It is for a person to free some: the launcher does not start the run again and again."""
    run = disk.path / "run"

    def fill(hosts: hosts_run.Hosts) -> None:
        at_work(run, hosts)
        disk.fill()

    assert job(shared, run, tmp_path / "full", [fill]) == [[BAD_INPUT, BAD_INPUT]]
    told = "".join((tmp_path / "full" / "0" / f"{i}.err").read_text() for i in (0, 1))
    assert re.search("disk is full|[Nn]o space left", told) and "this is a bug" not in told
    kept = saved(run)
    disk.free()
    assert job(shared, run, tmp_path / "freed") == [[DONE, DONE]]
    assert read_json(run / "environment.json")["first_step"]["step"] == kept[-1] + 1 > 1
    test_hosts.check_same_run(shared, run, two)


def test_a_failure_is_not_started_again(shared, job, tmp_path):
    """A mistake in the configuration would cost the TPU again and again."""
    wrong = functools.partial(job, words=["--config.mesh.platform=cpu", "--config.lora.rank=-1"])
    assert wrong(shared, tmp_path / "run", tmp_path) == [[BAD_INPUT, BAD_INPUT]]
