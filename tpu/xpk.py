"""A job as a workload of xpk, on a GKE cluster that is there: for TPU7x, and for several slices."""

import dataclasses

from sft.errors import UserError
from tpu.job import Job, Step, flagged

BASE = "python:3.12"  # image to which xpk adds the repository, without what .dockerignore names
ABSENT = ("v5litepod-1", "v5litepod-4")  # of the slices of our table, those that xpk does not know


def steps(job: Job) -> list[Step]:
    """One command. It restarts on 42, by xpk's own default; also when a signal killed the run.

    Raises:
      UserError: no cluster, or xpk has no such slice.
    """
    one = dataclasses.replace(job.slice, count=1).cloud
    if one in ABSENT:
        raise UserError(f"--slice={job.slice.name}: xpk has no {one}. Choose v5e-8, or --on=sky.")
    create = (
        *("xpk", "workload", "create", f"--workload={job.name}", *_place(job.cluster, job)),
        *(f"--tpu-type={one}", f"--num-slices={job.slice.count}"),
        *(f"--max-restarts={job.restarts}", *(["--spot"] if job.spot else ["--on-demand"])),
        *("--termination-grace-period-seconds=120", f"--base-docker-image={BASE}"),
        *("--script-dir=.", f"--command={job.one_line}"),
    )
    return [Step("queue it", create)]


def document(job: Job) -> str:
    """There is none."""
    return ""


def _place(cluster: str, job: Job | None = None, zone: str = "", project: str = "") -> list[str]:
    if not cluster:
        raise UserError("--on=xpk: --cluster=NAME is missing: a GKE cluster with TPU nodes.")
    if job:
        zone, project = job.zone, job.project
    return flagged(cluster=cluster, zone=zone, project=project)


def status(job_name: str, zone: str = "", project: str = "", cluster: str = "") -> list[str]:
    place = _place(cluster, zone=zone, project=project)
    return ["xpk", "workload", "list", *place, *flagged(filter_by_job=job_name)]


def logs(job_name: str, **_: str) -> list[str]:
    of_job = f"--selector=jobset.sigs.k8s.io/jobset-name={job_name}"
    return ["kubectl", "logs", "--follow", "--prefix", "--max-log-requests=64", of_job]


def stop(job_name: str, zone: str = "", project: str = "", cluster: str = "") -> list[str]:
    place = _place(cluster, zone=zone, project=project)
    return ["xpk", "workload", "delete", f"--workload={job_name}", *place, "--quiet"]
