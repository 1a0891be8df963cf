"""Jobs from a command line: names, directories, and what differs between them."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft import config as configs
from sft.errors import UserError
from sft.mesh import slices
from sft.tune.points import Point
from tpu import sent
from tpu.job import Job, name


def one(given: Any, config: ConfigDict, words: Sequence[str]) -> Job:
    """The job of one configuration."""
    return _job(given, config, words, _prefix(given))


def of_point(given: Any, point: Point, words: Sequence[str]) -> Job:
    """The job of a point of a sweep, whose overrides come last.

    Raises:
      UserError: it names files that are not sent.
    """
    sent.check(point.config)
    own = [f"--config.{key}={value}" for key, value in point.overrides.items()]
    return _job(given, point.config, [*words, *own], f"{_prefix(given)}-{point.name}")


def as_there(given: Any, job: Job, names: Iterable[str]) -> Job:
    """The job by the name and directory that a run of the same values has among ``names``.

    What ran as ``s-base-1a2b3c4d`` is ``s-seed-0-1a2b3c4d`` once there are to be several seeds.
    """
    head = name(_prefix(given), job.digits).removesuffix(job.digits)
    same = sorted(other for other in names if other.startswith(head) and other.endswith(job.digits))
    if not same or job.name in same:
        return job
    return dataclasses.replace(job, name=same[0], workdir=f"{given.bucket.rstrip('/')}/{same[0]}")


def _prefix(given: Any) -> str:
    return given.name or Path(given.config).stem


def _job(given: Any, config: ConfigDict, words: Sequence[str], prefix: str) -> Job:
    if not given.hours > 0:
        raise UserError(f"--hours={given.hours:g}: expected more than 0.")
    if given.price < 0:
        raise UserError(f"--price={given.price:g}: expected 0 or more.")
    if given.region and given.zone and not given.zone.startswith(f"{given.region}-"):
        raise UserError(f"--zone={given.zone} is not in --region={given.region}.")
    if config.mesh.platform not in ("", "tpu"):
        raise UserError(f"mesh.platform = {config.mesh.platform}: this is for TPUs.")
    full = name(prefix, configs.fingerprint(config))
    bucket = given.bucket.rstrip("/")
    own = list(words)
    if config.train.compilation_cache == configs.default().train.compilation_cache:
        # A spot VM's disk goes with it, and what it has compiled.
        own.append(f"--config.train.compilation_cache={bucket}/xla-cache")
    return Job(
        name=full,
        slice=slices.get(given.slice),
        words=tuple(own),
        workdir=f"{bucket}/{full}",
        has_test=bool(config.data.test or config.data.split.test),
        extras=sent.extras(config),
        spot=given.spot,
        hours=given.hours,
        zone=given.zone,
        region=given.region,
        project=given.project,
        cluster=given.cluster,
    )
