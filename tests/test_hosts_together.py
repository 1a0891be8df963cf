"""Hosts that must not start together, and what one of them says to the others."""

import dataclasses
import os
import signal

import hosts_run
import pytest
import tiny_run

from sft.errors import UserError
from sft.run import hosts as hosts_lib
from sft.run import lease

registered = tiny_run.registered


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return tiny_run.build(tmp_path_factory.mktemp("project"))


def test_another_configuration_on_one_host(project, tmp_path):
    hosts = hosts_run.run(
        project,
        "train",
        tmp_path / "run",
        folder=tmp_path,
        each=lambda host: [f"--config.optim.learning_rate={0.5 if host else 0.25}"],
    )
    assert hosts.codes() == [2, 2]
    for text in hosts.errors():
        assert "config.optim.learning_rate: 0.25 on host 0, 0.5 on host 1" in text
        assert "Traceback" not in text and "Fatal" not in text
    assert not (tmp_path / "run" / "config.json").exists()


OTHER_VERSION = """
import importlib.metadata as metadata
import os
version = metadata.version
changed = {"optax": "0.0.1"} if os.environ["SFT_PROCESS"] == "1" else {}
metadata.version = lambda name: changed.get(name) or version(name)
from sft import cli
cli.run()
"""


def test_another_version_on_one_host(project, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(OTHER_VERSION)
    hosts = hosts_run.run(
        project, "train", tmp_path / "run", folder=tmp_path, program=(str(program),)
    )
    assert hosts.codes() == [2, 2]
    for text in hosts.errors():
        assert 'optax: "0.' in text and '"0.0.1" on host 1' in text


@pytest.mark.parametrize("host", [0, 1])
def test_what_fails_on_one_host_ends_all(project, tmp_path, host):
    """Only one host does not see a file that all need."""
    here = project.path / "train.jsonl"
    program = tmp_path / "program.py"
    program.write_text(
        "import os\n"
        "from sft.data.sets import sources\n"
        "from sft.errors import UserError\n"
        "def missing(*args):\n"
        f"    raise UserError('{here}: no such file.')\n"
        f"if os.environ['SFT_PROCESS'] == '{host}':\n"
        "    sources.read = missing\n"
        "from sft import cli\n"
        "cli.run()\n"
    )
    hosts = hosts_run.run(
        project, "train", tmp_path / "run", folder=tmp_path, program=(str(program),)
    )
    assert hosts.codes() == [2, 2]
    said = [text.splitlines()[-1] for text in hosts.errors()]
    assert said[host] == f"sft: {here}: no such file."
    assert said[1 - host] == f"sft: host {host}: {here}: no such file."


DEAF = """\
from sft.run import hosts
hosts._AGAIN, real, lost = 1.0, hosts._wait, []
def once(what):
    while True:
        try:
            return real(what)
        except KeyboardInterrupt:
            if lost:
                raise
            lost.append(what)
hosts._wait = once
"""


@pytest.mark.parametrize("lines", ["", DEAF], ids=["heard", "lost"])
def test_a_signal_before_there_is_anything_to_save(project, tmp_path, lines):
    """Host 0 reads and host 1 waits for it when host 1 gets the signal; or loses it, as an
    exception in a finaliser is lost."""
    program = tmp_path / "program.py"
    program.write_text(
        f"{lines}"
        "import pathlib, time\n"
        "from sft.data.sets import sources\n"
        "def slow(*args):\n"
        f"    pathlib.Path('{tmp_path}/reading').touch()\n"
        "    time.sleep(600)\n"
        "sources.read = slow\n"
        "from sft import cli\n"
        "cli.run()\n"
    )
    with hosts_run.started(
        project, "train", tmp_path / "run", folder=tmp_path, program=(str(program),)
    ) as hosts:
        hosts.wait_until((tmp_path / "reading").exists)
        hosts.processes[1].send_signal(signal.SIGTERM)
        assert hosts.codes() == [42, 42], hosts.errors()
    assert "sft: host 1: interrupted before there was anything to save." in hosts.errors()[0]
    assert "sft: interrupted before there was anything to save." in hosts.errors()[1]


def test_a_second_run_in_the_same_directory(project, tmp_path):
    with lease.held(str(tmp_path / "run")):
        hosts = hosts_run.run(project, "train", tmp_path / "run", folder=tmp_path)
    assert hosts.codes() == [2, 2]
    for text in hosts.errors():
        assert f"process {os.getpid()} on" in text and "is at work in this directory" in text


def test_a_host_that_never_comes(project, tmp_path):
    hosts = hosts_run.run(
        project,
        "train",
        tmp_path / "run",
        "--config.mesh.timeout=3",
        folder=tmp_path,
        come=1,
    )
    assert hosts.codes() == [2]
    (text,) = hosts.errors()
    assert "sft: after config.mesh.timeout = 3 s not all hosts are there." in text
    assert "coordinator 127.0.0.1:" in text and "process 0 of 2" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    "given",
    [
        {"SFT_COORDINATOR": "here:1"},
        {"SFT_COORDINATOR": "here", "SFT_PROCESSES": "2", "SFT_PROCESS": "0"},
        {"SFT_COORDINATOR": "here:1", "SFT_PROCESSES": "2", "SFT_PROCESS": "2"},
        {"SFT_PROCESSES": "2", "SFT_PROCESS": "0"},
    ],
)
def test_incomplete_variables_are_refused(project, tmp_path, monkeypatch, capsys, given):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert project.main("train", tmp_path / "run") == 2
    assert "expected host:port, the number of processes" in capsys.readouterr().err


@dataclasses.dataclass(frozen=True)
class Device:
    id: int
    process_index: int


@dataclasses.dataclass(frozen=True)
class Placed:
    """A sharding whose devices, listed by host, hold these rows."""

    rows_of: list[list[int]]
    host: int = 0

    @property
    def num_devices(self):
        return len(self.devices_indices_map(()))

    @property
    def addressable_devices(self):
        return [d for d in self.devices_indices_map(()) if d.process_index == self.host]

    def devices_indices_map(self, shape):
        pairs = [(host, row) for host, rows in enumerate(self.rows_of) for row in rows]
        return {
            Device(i, host): (slice(row, row + 1), slice(None))
            for i, (host, row) in enumerate(pairs)
        }


@pytest.mark.parametrize(
    "rows_of, expected",
    [
        pytest.param([[0, 1], [2, 3]], [(0, 2), (1, 2)], id="each its own"),
        pytest.param([[0, 1, 4, 5], [2, 3, 6, 7]], [(0, 2), (1, 2)], id="scattered"),
        pytest.param([[0, 0], [0, 0]], [(0, 1), (0, 1)], id="all the same"),
        pytest.param([[0], [0], [1], [1]], [(0, 2), (0, 2), (1, 2), (1, 2)], id="in pairs"),
    ],
)
def test_the_part_of_each_host(rows_of, expected):
    parts = [hosts_lib.share(Placed(rows_of, host)) for host in range(len(rows_of))]
    assert parts == expected


@pytest.mark.parametrize("rows_of", [[[0, 1], [1, 2]], [[0], [1, 2]]])
def test_parts_that_overlap_or_differ_are_refused(rows_of):
    with pytest.raises(UserError, match=r"config\.mesh divides a batch unevenly among 2 hosts"):
        hosts_lib.share(Placed(rows_of))
