"""Each check of ``tpu/preflight.py``: what it finds, and nothing where all is well."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import preflight
import pytest
from finding import NOTE

ROOT = Path(__file__).parents[1]

TPU = "--config.mesh.platform=tpu"
MEMINFO = "MemTotal: 200000000 kB\nMemAvailable: 100000000 kB\n"
LOCK = "".join(
    f'[[package]]\nname = "{name}"\nversion = "{version}"\n\n'
    for name, version in [("jax", "1.2"), ("jaxlib", "1.2"), ("libtpu", "0.5"), ("jaxlib", "1.1")]
)
INSTALLED = {"jax": "1.2", "jaxlib": "1.2", "libtpu": "0.5"}


@pytest.fixture
def machine(tmp_path):
    """A TPU VM on which all is well, but for real processes and disks."""
    (tmp_path / "dev/vfio").mkdir(parents=True)
    for name in ("accel0", "accel1"):
        (tmp_path / "dev" / name).touch()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(MEMINFO)
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "uv.lock").write_text(LOCK)
    return preflight.Machine(
        dev=tmp_path / "dev",
        proc=tmp_path / "proc",
        cgroup=tmp_path / "cgroup",
        lockfile=tmp_path / "libtpu_lockfile",
        lock=tmp_path / "uv.lock",
        disks=(tmp_path,),
        disk=1,
        version=lambda name: INSTALLED[name],
    )


def found(findings):
    """The codes, and all texts in one."""
    findings = list(findings)
    return [f.code for f in findings], "\n".join(f.text for f in findings)


@contextlib.contextmanager
def holding(path):
    """A living process that has a file open, with a command line to be told by."""
    code = "import sys; file = open(sys.argv[2], 'a'); print(flush=True); sys.stdin.read()"
    line = [sys.executable, "-c", code, "my train.py", path]
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_nothing_is_found_where_all_is_well(machine, capsys):
    assert preflight.main(["train", TPU, "--workdir=runs/a"], machine) == 0
    assert capsys.readouterr() == ("", "")


def test_failures_are_lines_with_a_code_and_exit_2(machine, capsys):
    shutil.rmtree(machine.dev)
    (machine.proc / "meminfo").write_text("MemAvailable: 1 kB\n")
    assert preflight.main(["train", TPU], machine) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(": ")[:2] for line in err.splitlines()] == [
        ["preflight", "no-tpu"],
        ["preflight", "memory"],
    ]


def test_a_note_alone_is_no_failure(machine, capsys):
    machine.lockfile.touch()
    assert preflight.main(["train", TPU], machine) == 0
    assert capsys.readouterr().err.startswith("preflight: note: ")


@pytest.mark.parametrize("words", [["report", "a"], ["train", "--config.mesh.platform=cpu"]])
def test_without_a_tpu_what_is_about_it_is_not_looked_at(machine, words):
    shutil.rmtree(machine.dev)
    (machine.proc / "meminfo").write_text("MemAvailable: 1 kB\n")
    assert found(preflight.check(words, machine)) == ([], "")


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--workdir=gs://a/b=c"], "gs://a/b=c"),
        (["--workdir", "x y"], "x y"),
        (["-workdir=a", "--workdir=b"], "b"),
        (["--workdirs=a", "workdir=b"], None),
        (["--workdir"], ""),
    ],
)
def test_flags_are_read_as_sft_reads_them(words, expected):
    assert preflight.value(["train", *words], "workdir") == expected


@pytest.mark.parametrize(
    "nodes, missing",
    [(["accel0"], False), (["vfio/0"], False), (["vfio/vfio"], True), ([], True)],
)
def test_devices(tmp_path, nodes, missing):
    (tmp_path / "vfio").mkdir()
    for node in nodes:
        (tmp_path / node).touch()
    codes, text = found(preflight.devices(tmp_path))
    assert codes == ["no-tpu"] * missing
    assert not missing or "--config.mesh.platform=cpu" in text


@pytest.mark.parametrize("node", ["accel1", "vfio/3"])
def test_a_busy_device_names_its_process(machine, node):
    assert found(preflight.busy(machine.dev, Path("/proc"))) == ([], "")
    with holding(machine.dev / node) as pid:
        codes, text = found(preflight.busy(machine.dev, Path("/proc")))
    assert codes == ["device-busy"]
    user = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
    for part in (machine.dev / node, f"process {pid} of user {user}", "my train.py", f"kill {pid}"):
        assert str(part) in text


def test_processes_that_cannot_be_looked_into_are_passed_over(machine):
    """A process that has ended meanwhile, and one without a name for its user."""
    (machine.proc / "7").mkdir()
    (machine.proc / "8/fd").mkdir(parents=True)
    (machine.proc / "8/fd/0").symlink_to(machine.dev / "accel0")
    if os.geteuid() == 0:
        os.chown(machine.proc / "8", 54321, -1)
    codes, text = found(preflight.busy(machine.dev, machine.proc))
    assert codes == ["device-busy"] and "process 8" in text
    assert os.geteuid() or "user 54321" in text


def test_a_lockfile_without_a_holder_is_removed(machine):
    assert found(preflight.lockfile(machine.lockfile, Path("/proc"))) == ([], "")
    machine.lockfile.touch()
    codes, text = found(preflight.lockfile(machine.lockfile, Path("/proc")))
    assert codes == [NOTE] and str(machine.lockfile) in text
    assert not machine.lockfile.exists()


def test_a_lockfile_with_a_holder_stays(machine):
    with holding(machine.lockfile) as pid:
        codes, text = found(preflight.lockfile(machine.lockfile, Path("/proc")))
        assert codes == ["lockfile"] and f"kill {pid}" in text
        assert machine.lockfile.exists()
    assert found(preflight.lockfile(machine.lockfile, Path("/proc")))[0] == [NOTE]


def test_another_users_lockfile_stays(machine, monkeypatch):
    machine.lockfile.touch()
    monkeypatch.setattr(os, "geteuid", lambda: machine.lockfile.stat().st_uid + 1)
    codes, text = found(preflight.lockfile(machine.lockfile, Path("/proc")))
    assert codes == ["lockfile"] and f"sudo rm {machine.lockfile}" in text
    assert machine.lockfile.exists()


@pytest.mark.parametrize(
    "limit, used, free", [("max", 0, 100), ("60", 20, 40), ("500", 0, 100), (None, 0, 100)]
)
def test_memory_is_the_machines_or_the_containers(machine, limit, used, free):
    gib = preflight.GIB
    (machine.proc / "meminfo").write_text(f"MemFree: 1 kB\nMemAvailable: {100 << 20} kB\n")
    if limit:
        (machine.cgroup / "memory.max").write_text(
            limit if limit == "max" else f"{int(limit) * gib}"
        )
        (machine.cgroup / "memory.current").write_text(f"{used * gib}")
    assert found(preflight.memory(machine.proc, machine.cgroup, free * gib)) == ([], "")
    codes, text = found(preflight.memory(machine.proc, machine.cgroup, free * gib + 1))
    assert codes == ["memory"] and f"{free}.0 GiB" in text


def test_versions(machine):
    def check(**changes):
        installed = INSTALLED | changes
        return found(preflight.versions(machine.lock, INSTALLED, installed.__getitem__))

    assert check() == check(jaxlib="1.1") == ([], "")  # the lock may have several
    codes, text = check(jax="1.3", libtpu="0.4")
    assert codes == ["versions"] * 2
    assert "jax 1.3 is installed, uv.lock has 1.2." in text and "libtpu 0.4 " in text


def test_a_missing_package_is_named(machine):
    names = ("gemma-sft-is-not-this",)
    codes, text = found(preflight.versions(machine.lock, names, preflight.Machine().version))
    assert codes == ["versions"] and "gemma-sft-is-not-this is not installed" in text


def test_the_real_lock_and_the_real_packages_agree():
    machine = preflight.Machine()
    assert found(preflight.versions(machine.lock, ["jax", "jaxlib"], machine.version)) == ([], "")


def test_disk_is_looked_at_once_for_each_file_system(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    folders = [tmp_path / "not" / "yet" / "there", tmp_path, tmp_path]
    assert found(preflight.disk(folders, free // 2)) == ([], "")
    codes, text = found(preflight.disk(folders, free * 2))
    assert codes == ["disk"] and f"{tmp_path}: " in text and "larger disk" in text


def test_jax_is_never_imported():
    """It would take the TPU from the run that this is to check for."""
    code = (
        "import runpy, sys; sys.argv = ['preflight', 'train', '--config.mesh.platform=tpu'];"
        f"sys.path.insert(0, {str(ROOT / 'tpu')!r})\n"
        "try: runpy.run_module('preflight', run_name='__main__')\n"
        "except SystemExit: import fsspec, gcsfs; print('jax' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
