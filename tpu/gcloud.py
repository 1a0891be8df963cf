"""A job as a recipe of ``gcloud`` commands, to be run one after another by hand."""

import shlex
import subprocess

from sft.errors import UserError
from tpu.job import LABEL, ROOT, Job, Step, flagged

BY = "gcloud"
FOLDER = "gemma-sft"  # on the hosts, in the home directory
TPUS = ("gcloud", "compute", "tpus")


def steps(job: Job) -> list[Step]:
    """All of them; those that need the machine say so.

    Raises:
      UserError: no zone, or the Cloud TPU API has no such slice.
    """
    place = _place(job.zone, job.project)
    archive = f"{job.name}.tar.gz"
    labels = ",".join(f"{key}={value}" for key, value in job.labels(BY).items())
    kind = [f"--accelerator-type={job.slice.cloud}", f"--runtime-version={job.runtime}"]
    create = (
        *(*TPUS, "queued-resources", "create", job.name, f"--node-id={job.name}", *kind, *place),
        *(f"--labels={labels}", *(["--spot"] if job.spot else [])),
        *("--valid-until-duration=24h", "--async"),
    )
    unpack = f"mkdir -p {FOLDER} && tar -xzf {archive} -C {FOLDER}"
    install = f"cd {FOLDER} && {shlex.join([*job.host, 'install'])}"
    # The trainer must outlive the connection that started it.
    run = (
        f"cd {FOLDER} && setsid nohup bash -c {shlex.quote(job.script)} "
        f"> {job.name}.log 2>&1 < /dev/null &"
    )
    active = "once its state is ACTIVE"
    return [
        Step("queue for the slice; not granted in 24 hours, it expires", create),
        Step("look at its state", tuple(status(job.name, job.zone, job.project))),
        Step(
            "pack what is committed, and that alone",
            ("git", "archive", "--format=tar.gz", f"--output=/tmp/{archive}", "HEAD"),
            active,
        ),
        Step("send it", _scp(f"/tmp/{archive}", job, place), active),
        Step("unpack it", _ssh(job.name, place, unpack), active),
        Step("install", _ssh(job.name, place, install), active),
        Step(
            "run; the same command goes on after a preemption", _ssh(job.name, place, run), active
        ),
        Step("follow it", tuple(logs(job.name, job.zone, job.project)), "while it runs"),
        Step("delete it", tuple(stop(job.name, job.zone, job.project)), "when it is done"),
    ]


def document(job: Job) -> str:
    """No file; a warning where something would not be sent."""
    run = subprocess.run(
        ["git", "-C", str(ROOT), "status", "--porcelain"],
        capture_output=True,
        text=True,
        check=False,
    )
    changed = [line[3:] for line in run.stdout.splitlines()]
    return f"# not committed, so not sent: {', '.join(changed)}\n" if changed else ""


def _place(zone: str, project: str) -> list[str]:
    if not zone:
        raise UserError("--on=gcloud: --zone=ZONE is missing.")
    return flagged(zone=zone, project=project)


def _scp(file: str, job: Job, place: list[str]) -> tuple[str, ...]:
    return (*TPUS, "tpu-vm", "scp", file, f"{job.name}:", "--worker=all", *place)


def _ssh(name: str, place: list[str], command: str, worker: str = "all") -> tuple[str, ...]:
    return (*TPUS, "tpu-vm", "ssh", name, f"--worker={worker}", *place, f"--command={command}")


def status(job_name: str, zone: str = "", project: str = "", **_: str) -> list[str]:
    place = _place(zone, project)
    if job_name:
        return [*TPUS, "queued-resources", "describe", job_name, *place, "--format=value(state)"]
    return [
        *TPUS,
        "queued-resources",
        "list",
        *place,
        f"--filter=tpu.nodeSpec.node.labels.{LABEL}:*",
    ]


def logs(job_name: str, zone: str = "", project: str = "", **_: str) -> list[str]:
    tail = f"tail -n 100 -F {FOLDER}/{job_name}.log"
    return list(_ssh(job_name, _place(zone, project), tail, worker="0"))


def stop(job_name: str, zone: str = "", project: str = "", **_: str) -> list[str]:
    place = _place(zone, project)
    return [*TPUS, "queued-resources", "delete", job_name, *place, "--force", "--quiet"]
