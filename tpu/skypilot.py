"""A job as a managed job of SkyPilot: waits for spot capacity, restarts after preemption."""

import json
import os
import re
import shlex
import subprocess
from typing import Any

import yaml

from sft.errors import PREEMPTED, UserError
from sft.mesh import slices
from tpu.job import LABEL, ROOT, RUNTIMES, Job, Step, flagged

BY = "skypilot"
FOLDER = ROOT / "runs" / "submitted"  # git ignores it, so it is not sent
DISK = 100  # GB; what a TPU VM has
STRATEGIES = ("FAILOVER", "EAGER_NEXT_REGION")
RECOVERY = ("strategy", "max_restarts_on_errors", "recover_on_exit_codes")
# sky's words where its controller sleeps, and also where this machine knows of none: no answer.
ASLEEP = "No in-progress managed jobs"


def task(job: Job) -> dict[str, Any]:
    """The task, as ``sky.Task.from_yaml`` reads it.

    Raises:
      UserError: SkyPilot has no such slice.
    """
    region = job.region or job.zone.rpartition("-")[0]
    infra = "/".join(part for part in ("gcp", region, job.zone) if part)
    return {
        "name": job.name,
        "workdir": ".",
        "num_nodes": 1,  # a slice is one node of SkyPilot, and each of its hosts runs all of this
        "resources": {
            "infra": infra,
            "accelerators": f"tpu-{job.slice.cloud}",
            "accelerator_args": {"runtime_version": job.runtime, "gcp_queued_resource": True},
            "use_spot": job.spot,
            "disk_size": DISK,
            "labels": job.labels(BY),
            "job_recovery": {
                "strategy": "FAILOVER",
                "max_restarts_on_errors": 0,  # a bug would come again, and cost again
                "recover_on_exit_codes": [PREEMPTED],
            },
        },
        "setup": shlex.join([*job.host, "install"]),
        "run": job.script,
    }


def check(found: dict[str, Any]) -> None:
    """What SkyPilot 0.14 accepts and should not.

    Raises:
      UserError: names the key.
    """
    resources = found["resources"]
    recovery = resources.get("job_recovery", {})
    for key in recovery:
        if key not in RECOVERY:
            raise UserError(f"job_recovery.{key}: no such key. There are {', '.join(RECOVERY)}.")
    if recovery.get("strategy") not in STRATEGIES:
        raise UserError(
            f"job_recovery.strategy: {recovery.get('strategy')!r} is none of "
            f"{', '.join(STRATEGIES)}."
        )
    if recovery.get("recover_on_exit_codes") != [PREEMPTED]:
        raise UserError(
            f"job_recovery.recover_on_exit_codes: expected [{PREEMPTED}], which says: saved, "
            "restart me. Another code is a failure that would come again."
        )
    known = {f"tpu-{s.cloud}": s for s in slices.SLICES.values()}
    accelerator = resources.get("accelerators")
    if accelerator not in known or known[accelerator].generation.name not in RUNTIMES:
        raise UserError(f"accelerators: {accelerator!r} is no TPU that SkyPilot has.")
    arguments = resources.get("accelerator_args", {})
    runtime = RUNTIMES[known[accelerator].generation.name]
    if arguments.get("runtime_version") != runtime:
        raise UserError(
            f"accelerator_args.runtime_version: {arguments.get('runtime_version')!r}, but "
            f"{accelerator} needs {runtime}."
        )
    if not resources.get("labels", {}).get(LABEL):
        raise UserError(f"labels: no {LABEL}, without which gc could not find what is left over.")


def text(job: Job) -> str:
    """The task as YAML, checked."""
    found = task(job)
    check(found)
    return yaml.dump(found, Dumper=_Dumper, sort_keys=False, width=10**6)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as such."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


def steps(job: Job) -> list[Step]:
    """One command, for the file that ``write`` writes."""
    file = os.path.relpath(FOLDER / f"{job.name}.yaml", ROOT)
    launch = ("sky", "jobs", "launch", "--yes", "--detach-run", f"--name={job.name}", file)
    return [Step("queue it", launch)]


def document(job: Job) -> str:
    """Writes the file, and returns what is in it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{job.name}.yaml").write_text(text(job))
    return text(job)


def status(job_name: str, **_: str) -> list[str]:
    return ["sky", "jobs", "queue", "--all"]


def logs(job_name: str, **_: str) -> list[str]:
    return ["sky", "jobs", "logs", *flagged(name=job_name)]


def stop(job_name: str, **_: str) -> list[str]:
    return ["sky", "jobs", "cancel", "--yes", *flagged(name=job_name)]


ASK = ("sky", "jobs", "queue", "--all", "--all-users", "--skip-finished", "--output=json")


def unfinished(seconds: float = 300) -> tuple[set[str] | None, str]:
    """Names of the managed jobs that are not over, of all users; or ``None``, and why not."""
    try:
        run = subprocess.run(
            ASK,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"NO_COLOR": "1"},
        )
    except FileNotFoundError:
        return None, "there is no sky on PATH"
    except subprocess.TimeoutExpired:
        return None, f"sky jobs queue did not answer in {seconds:.0f} s"
    if run.returncode:
        said = " ".join((run.stderr + run.stdout).split())
        if ASLEEP in said:
            return (
                None,
                "sky's controller sleeps or is unknown here; sky jobs queue --refresh wakes it",
            )
        return None, f"sky jobs queue ended with {run.returncode}: {said[-300:]}"
    rows = _rows(run.stdout)
    if rows is None:
        return None, f"sky jobs queue gave no list of jobs: {run.stdout[:200]!r}"
    return {row[key] for row in rows for key in ("job_name", "task_name") if row.get(key)}, ""


def _rows(text: str) -> list[dict] | None:
    """The list in what sky prints: a server that had to be started first says so in front."""
    for start in re.finditer(r"^\[", text, re.MULTILINE):
        try:
            rows, _ = json.JSONDecoder().raw_decode(text, start.start())
        except ValueError:
            continue
        if all(isinstance(row, dict) for row in rows):
            return rows
    return None
