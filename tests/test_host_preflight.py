"""``tpu/host.sh`` with the real preflight: what each failure does to training."""

import sys
from pathlib import Path

import fake_gcs
import fake_metadata
import pytest
from hosting import Host
from test_preflight import MEMINFO, holding
from test_preflight_bucket import facts


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
