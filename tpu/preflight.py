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
import logging
import os
import pwd
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from bucket import bucket
from finding import NOTE, Finding

GIB = 1 << 30
# JAX with its compiler, the readers of data and a shard of weights. The smallest TPU VM has 48 GiB:
# where less than this is left, something else is running.
MEMORY = 16 * GIB
# Compiled programs, pages of the audit and logs. A new boot disk of 100 GB has 80 free: where less
# than this is left, something has filled it, and the first write would fail in the middle of a run.
DISK = 5 * GIB
FAILED = 2  # as sft.errors.BAD_INPUT


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
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # its failures are told here, in a line
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
        yield from bucket(workdir, os.environ.get("SFT_ANY_REGION") == "1")


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
    """Processes with a TPU open. Those of other users are seen by root alone."""
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
                f"{' or '.join(wanted) or 'none'}. Install anew: rm -r {lock.parent}/.venv; "
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
