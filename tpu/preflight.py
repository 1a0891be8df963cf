"""What must be right on a host before a command takes its TPU.

    python tpu/preflight.py COMMAND ARGS…

``tpu/host.sh`` runs it, with the words that ``sft`` is to get. JAX is not imported: it would take
the TPU. Each failure is one line on standard error, ``preflight: CODE: what, and what to do``, and
the exit code is then 2; lines with ``note`` stop nothing. Codes: ``no-tpu``, ``device-busy``,
``lockfile``, ``versions``, ``memory``, ``disk``, ``bucket``, ``region``. Where the command does not
ask for a TPU (``--config.mesh.platform``), what is about the TPU is not looked at.
"""

import contextlib
import dataclasses
import importlib.metadata
import os
import pwd
import shutil
import sys
import tomllib
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

GIB = 1 << 30
# JAX with its compiler, the readers of data and a shard of weights. The smallest TPU VM has 48 GiB:
# where less than this is left, something else is running.
MEMORY = 16 * GIB
# Compiled programs, pages of the audit and logs. A new boot disk of 100 GB has 80 free: where less
# than this is left, something has filled it, and the first write would fail in the middle of a run.
DISK = 5 * GIB
FAILED = 2  # as sft.errors.BAD_INPUT
NOTE = "note"
# Where a multi-region or a pair of regions lies, by the beginning of its name.
CONTINENTS = {"US": "us-", "NAM": "us-", "EU": "europe-", "ASIA": "asia-"}


class Finding(NamedTuple):
    """Of a check: ``NOTE`` or the code of a failure, and a sentence."""

    code: str
    text: str


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where the checks look, and what they ask for."""

    dev: Path = Path("/dev")
    proc: Path = Path("/proc")
    cgroup: Path = Path("/sys/fs/cgroup")
    lockfile: Path = Path("/tmp/libtpu_lockfile")
    lock: Path = Path(__file__).resolve().parents[1] / "uv.lock"
    disks: tuple[Path, ...] = (Path("/"), Path("/tmp"))
    disk: int = DISK
    memory: int = MEMORY
    version: Callable[[str], str] = importlib.metadata.version


def main(words: Sequence[str], machine: Machine | None = None) -> int:
    """Prints what is found, as it is found; returns the exit code."""
    code = 0
    for finding in check(words, machine or Machine()):
        print(f"preflight: {finding.code}: {finding.text}", file=sys.stderr, flush=True)
        if finding.code != NOTE:
            code = FAILED
    return code


def check(words: Sequence[str], machine: Machine) -> Iterator[Finding]:
    """All checks that concern a command line of ``sft``."""
    workdir = value(words, "workdir") or ""
    on_tpu = value(words, "config.mesh.platform") == "tpu"
    if on_tpu:
        yield from devices(machine.dev)
        yield from busy(machine.dev, machine.proc)
        yield from lockfile(machine.lockfile, machine.proc)
        yield from memory(machine.proc, machine.cgroup, machine.memory)
    packages = ("jax", "jaxlib", "libtpu") if on_tpu else ("jax", "jaxlib")
    yield from versions(machine.lock, packages, machine.version)
    local = [Path(workdir)] if workdir and "://" not in workdir else []
    yield from disk([*machine.disks, Path.home() / ".cache", *local], machine.disk)
    if workdir.startswith("gs://"):
        yield from bucket(workdir, bool(os.environ.get("SFT_ANY_REGION")))


def value(words: Sequence[str], name: str) -> str | None:
    """What the last ``--name=VALUE`` or ``--name VALUE`` gives, ``None`` = it is not there."""
    found = None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, equals, text = word.partition("=")
        if flag in (f"--{name}", f"-{name}"):
            found = text if equals else following
    return found


def devices(dev: Path) -> Iterator[Finding]:
    """TPUs up to v4 are ``/dev/accel0``…, later ones ``/dev/vfio/0``…"""
    if not [*dev.glob("accel[0-9]*"), *dev.glob("vfio/[0-9]*")]:
        yield Finding(
            "no-tpu",
            f"there is no {dev}/accel* and no {dev}/vfio/N on this machine. If it is a TPU VM, its "
            "TPU is gone: delete it and create another. To run without a TPU: "
            "--config.mesh.platform=cpu.",
        )


def busy(dev: Path, proc: Path) -> Iterator[Finding]:
    """Processes with a TPU open. Who is not root sees those of other users as little as ``lsof``."""
    for process, device in _holders(proc, (f"{dev}/accel", f"{dev}/vfio/")).items():
        yield Finding(
            "device-busy",
            f"{device} is in use by {_name(process)}. Wait for it, or end it: kill {process.name}",
        )


def lockfile(path: Path, proc: Path) -> Iterator[Finding]:
    """libtpu's mark that the TPU is in use, which a killed process leaves behind."""
    try:
        owner = path.stat().st_uid
    except FileNotFoundError:
        return
    holder = next(iter(_holders(proc, (str(path),))), None)
    if holder:
        yield Finding(
            "lockfile",
            f"{path} is held by {_name(holder)}. Wait for it, or end it: kill {holder.name}",
        )
    elif owner != os.geteuid():
        yield Finding(
            "lockfile",
            f"{path} is of user {_user(owner)}, and no process is seen that holds it. If they run "
            f"nothing: sudo rm {path}",
        )
    else:
        path.unlink(missing_ok=True)
        yield Finding(NOTE, f"{path} was left by a process that is gone, and is removed.")


def memory(proc: Path, cgroup: Path, need: int) -> Iterator[Finding]:
    """What the machine has available, or the container has left."""
    lines = (proc / "meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit: "max"
        limit = int((cgroup / "memory.max").read_text())
        free = min(free, limit - int((cgroup / "memory.current").read_text()))
    if free < need:
        yield Finding(
            "memory",
            f"{_gib(free)} of host memory available, {_gib(need)} needed. End what else runs here "
            "(ps aux --sort=-rss), or take a larger machine.",
        )


def versions(lock: Path, names: Iterable[str], version: Callable[[str], str]) -> Iterator[Finding]:
    """Hosts with unlike versions hang: all have those of the lock."""
    with lock.open("rb") as file:
        packages = tomllib.load(file)["package"]
    for name in names:
        wanted = [package["version"] for package in packages if package["name"] == name]
        try:
            found = version(name)
        except importlib.metadata.PackageNotFoundError:
            found = ""
        if found not in wanted:
            yield Finding(
                "versions",
                f"{name} {found or 'is not'} {'is ' if found else ''}installed, {lock.name} has "
                f"{' or '.join(wanted) or 'none'}. Install anew: rm -r {sys.prefix}; "
                "bash tpu/host.sh install",
            )


def disk(folders: Iterable[Path], need: int) -> Iterator[Finding]:
    """Free space, once for each file system."""
    seen = set()
    for folder in folders:
        folder = folder.absolute()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        if free < need and there.stat().st_dev not in seen:
            yield Finding(
                "disk",
                f"{there}: {_gib(free)} free, {_gib(need)} needed. Free some (du -xh {there} | "
                "sort -h | tail), or create the VM with a larger disk.",
            )
        seen.add(there.stat().st_dev)


def bucket(workdir: str, any_region: bool) -> Iterator[Finding]:
    """Writes, reads and deletes an object in ``workdir``, then looks where the bucket lies."""
    import fsspec  # only here: it costs a second

    name = workdir.removeprefix("gs://").partition("/")[0]
    probe = f"{workdir.rstrip('/')}/.preflight-{uuid.uuid4().hex}"
    attempt = "written"
    try:
        files, path = fsspec.url_to_fs(probe, requests_timeout=30)
        files.pipe_file(path, b"preflight")
        attempt = "read"
        found = files.cat_file(path)
        attempt = "deleted"
        files.rm_file(path)
    except Exception as error:  # of many kinds: of gcsfs, aiohttp, google.auth
        yield Finding("bucket", _refused(name, probe, attempt, error))
        return
    if found != b"preflight":
        yield Finding(
            "bucket", f"{probe} was read as {found!r}. Is {name} a bucket of Cloud Storage?"
        )
    try:
        facts = files.info(name)
    except Exception:  # it may hold objects, and still not be described to this account
        facts = {}
    yield from region(name, facts, metadata("instance/zone"), any_region)


def region(name: str, facts: dict[str, Any], zone: str, any_region: bool) -> Iterator[Finding]:
    """Traffic between regions is slow, and paid for by the gigabyte.

    Args:
      facts: what Cloud Storage says of the bucket.
      zone: as in ``projects/1/zones/us-central2-b``, or ``""``.
      any_region: whether a bucket elsewhere is meant.
    """
    where = str(facts.get("location", "")).upper()
    here = zone.rpartition("/")[2].rpartition("-")[0]
    if not where or not here:
        missing = "the zone of this machine" if where else f"the location of gs://{name}"
        yield Finding(NOTE, f"{missing} cannot be read, so bucket and TPU may lie far apart.")
        return
    kind = facts.get("locationType", "region")
    parts = [
        part.lower() for part in facts.get("customPlacementConfig", {}).get("dataLocations", [])
    ]
    if here == where.lower():
        return
    near = here in parts or (
        kind != "region"
        and any(where.startswith(k) and here.startswith(v) for k, v in CONTINENTS.items())
    )
    lies = f"gs://{name} lies in {where} ({kind}), this TPU in {here}"
    if near:
        yield Finding(NOTE, f"{lies}: that works; a bucket in {here} alone is faster and cheaper.")
    elif any_region:
        yield Finding(NOTE, f"{lies}: every gigabyte between them is paid for.")
    else:
        yield Finding(
            "region",
            f"{lies}: every gigabyte between them is paid for. Use a bucket in {here} (gcloud "
            f"storage buckets create gs://NAME --location={here}), or set SFT_ANY_REGION=1.",
        )


def metadata(path: str) -> str:
    """What the metadata server of Google Cloud says; ``""`` where there is none."""
    host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    request = urllib.request.Request(
        f"http://{host}/computeMetadata/v1/{path}", headers={"Metadata-Flavor": "Google"}
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=3) as answer:
            return answer.read().decode().strip()
    except OSError:
        return ""


def _refused(name: str, probe: str, attempt: str, error: Exception) -> str:
    reason = " ".join(f"{error}".split())[:300] or type(error).__name__
    if isinstance(error, FileNotFoundError) and attempt == "written":
        return (
            f"there is no bucket gs://{name}. Correct --workdir, or create it: gcloud storage "
            f"buckets create gs://{name} --location=REGION"
        )
    code = getattr(error, "code", None)
    if str(code) in ("401", "403") or "forbidden" in reason.lower():
        key = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        account = metadata("instance/service-accounts/default/email")
        who = f"the account of {key}" if key else account or "this machine, which has no account"
        return (
            f"{probe} may not be {attempt} by {who} ({reason}). Allow it: gcloud storage buckets "
            f"add-iam-policy-binding gs://{name} --role=roles/storage.objectAdmin "
            f"--member=serviceAccount:{account or 'ACCOUNT'}; and the VM needs the scope "
            "cloud-platform."
        )
    return f"{probe} cannot be {attempt} ({reason}). Is Cloud Storage reachable from this machine?"


def _holders(proc: Path, prefixes: tuple[str, ...]) -> dict[Path, str]:
    """Of processes that have such a file open, their directory in ``proc``, and one such file."""
    found = {}
    for process in sorted(proc.glob("[0-9]*")):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            for link in (process / "fd").iterdir():
                target = os.readlink(link)
                if target.startswith(prefixes):
                    found[process] = target
    return found


def _name(process: Path) -> str:
    owner, line = "?", b""
    with contextlib.suppress(OSError):
        owner = _user(process.stat().st_uid)
        line = (process / "cmdline").read_bytes()
    text = line.replace(b"\0", b" ").decode(errors="replace").strip()[:200]
    return f"process {process.name} of user {owner} ({text})"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # of a container, perhaps
        return str(number)


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
