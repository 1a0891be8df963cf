"""A run on a TPU slice, described once. The launchers render it; none of them knows more."""

import dataclasses
import getpass
import re
import shlex
import socket
from pathlib import Path

from sft.errors import UserError
from sft.mesh.slices import Slice

ROOT = Path(__file__).resolve().parents[1]
NAME = re.compile(r"[a-z]([-a-z0-9]{0,37}[a-z0-9])?")  # what SkyPilot, the TPU API and xpk allow
_LONGEST = 39
LABEL, LABEL_BY, LABEL_FROM = "gemma-sft", "gemma-sft-by", "gemma-sft-from"

# Of docs.cloud.google.com/tpu/docs/runtimes. SkyPilot's own choice is wrong for v4 and v5e.
RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5e": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
# US dollars a chip and hour, on demand, us-central1, November 2026. From the bound that SkyPilot
# 0.14.1 has in its price fetcher: 691.2 for the 256 chips of v6e-256. Of others nothing is known
# here for sure: --price gives it.
PRICES = {"v6e": 2.70}


@dataclasses.dataclass(frozen=True)
class Job:
    """One run: trained, then scored if there is a test set.

    Attributes:
      name: also of its label; fits ``NAME``.
      words: ``--config=FILE`` and ``--config.KEY=VALUE``, as for ``sft train``.
      workdir: of this run alone, usually ``gs://…``.
      has_test: whether it is scored.
      extras: of pyproject.toml that the host installs.
      hours: after which a start of it is asked to save and ends, and is not started again.
      restarts: xpk: how often at most it is started again. SkyPilot has no bound.
      zone, region, project, cluster: ``""`` = what the tool chooses.
    """

    name: str
    slice: Slice
    words: tuple[str, ...]
    workdir: str
    has_test: bool
    extras: tuple[str, ...] = ("tpu",)
    spot: bool = True
    hours: float = 24.0
    restarts: int = 50
    zone: str = ""
    region: str = ""
    project: str = ""
    cluster: str = ""

    @property
    def digits(self) -> str:
        """Of its configuration; its name ends with them."""
        return self.name.rpartition("-")[2]

    @property
    def host(self) -> list[str]:
        """The host script, which installs and checks first."""
        extras = [f"SFT_EXTRAS={' '.join(self.extras)}"]
        return [*(["env", *extras] if self.extras != ("tpu",) else []), "bash", "tpu/host.sh"]

    @property
    def commands(self) -> list[list[str]]:
        """What every host of the slice runs, in order, from the root of the repository."""
        host = self.host
        last = [*self.words, f"--workdir={self.workdir}"]
        scored = [".venv/bin/python", "-m", "tpu.done", self.workdir]
        commands = [[*host, "train", *last]]
        return [*commands, [*host, "eval", *last], scored] if self.has_test else commands

    @property
    def script(self) -> str:
        """The commands for a shell, under the cap of hours; a line each."""
        return self._script("\n", " &&\n")

    @property
    def one_line(self) -> str:
        """The same for xpk, which pastes it into a manifest where a second line would break it."""
        return self._script("; ", " && ").rstrip()

    def _script(self, after_trap: str, between: str) -> str:
        """``timeout`` passes SIGTERM on to all of its group, and so does it itself when the time is
        over, but then it exits with 124, which no launcher restarts. The trap makes the shell
        between them wait for the trainer, which saves, and end with the trainer's 42.
        """
        body = between.join(shlex.join(command) for command in self.commands)
        seconds = max(1, round(self.hours * 3600))
        inner = shlex.quote(f"trap : TERM{after_trap}{body}")
        return f"exec timeout --kill-after=600 {seconds} bash -c {inner}\n"

    def labels(self, by: str) -> dict[str, str]:
        """By which ``tpu.gc`` knows what is ours, launched ``by`` what, and from where."""
        return {LABEL: self.name, LABEL_BY: by, LABEL_FROM: here()}

    @property
    def runtime(self) -> str:
        """The TPU VM's software.

        Raises:
          UserError: the Cloud TPU API does not have this generation, or not several slices.
        """
        generation = self.slice.generation.name
        if generation not in RUNTIMES:
            raise UserError(
                f"--slice={self.slice.name}: the Cloud TPU API, which SkyPilot and gcloud use, has "
                f"no {generation}. It is on GKE: --on=xpk --cluster=NAME."
            )
        if self.slice.count > 1:
            raise UserError(
                f"--slice={self.slice.name}: several slices are joined on GKE alone: --on=xpk "
                "--cluster=NAME."
            )
        return RUNTIMES[generation]


@dataclasses.dataclass(frozen=True)
class Step:
    """A command of a launch.

    Attributes:
      when: it can be run; ``""`` = at once, right after the one before it.
    """

    title: str
    argv: tuple[str, ...]
    when: str = ""


def here() -> str:
    """The person and the machine as the value of a label: whose SkyPilot knows the job."""
    try:
        person = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in containers
        person = "unknown"
    return slug(f"{person}-{socket.gethostname()}")[:63].strip("-")


def slug(text: str) -> str:
    """Lower case, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def name(prefix: str, fingerprint: str) -> str:
    """``mine-rank-8-1a2b3c4d``: readable, and another one for another configuration."""
    digits = fingerprint[:8]
    readable = slug(prefix)[: _LONGEST - len(digits) - 1].strip("-")
    if not readable[:1].isalpha():
        readable = f"r-{readable}"[: _LONGEST - len(digits) - 1].strip("-")
    return f"{readable}-{digits}"


def price(slice_: Slice, given: float) -> tuple[float | None, str]:
    """US dollars an hour of the whole slice, and where that is from; ``None`` = not known."""
    if given:
        return given * slice_.chips, "--price"
    listed = PRICES.get(slice_.generation.name)
    return (listed * slice_.chips, "on demand, list") if listed else (None, "")


def flagged(**values: str) -> list[str]:
    """``--zone=Z`` of those that are not empty."""
    return [f"--{key.replace('_', '-')}={value}" for key, value in values.items() if value]
