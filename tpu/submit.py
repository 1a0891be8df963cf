"""From a configuration on this machine to a run on Cloud TPUs.

usage, in the repository:
  python -m tpu.submit launch --config=FILE [--config.KEY=VALUE …] --slice=v6e-8 --bucket=gs://B/DIR
  python -m tpu.submit sweep  (the same) [--points=FILE.py | --sweep.KEY=A,B …]
  python -m tpu.submit status | logs --name=NAME | stop --name=NAME
  python -m tpu.submit gc --project=P --zone=A,B

launch and sweep check the configuration, plan whether it fits, and print every command and file;
stop and gc print what they would do. With --go they do it. status and logs change nothing, so they
print their command and run it.

flags:
{flags}

exit codes: 0 done; 1 a bug; 2 bad usage or configuration, or a tool failed; 3 does not fit
"""

import subprocess
import sys
import traceback
from argparse import Namespace
from collections.abc import Sequence
from shlex import join
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from sft import config as configs
from sft.commands import parsing
from sft.commands.table import FLAGS, Flag
from sft.config.check import validate
from sft.errors import BAD_INPUT, BUG, DOES_NOT_FIT, DONE, DoesNotFit, UserError
from sft.mesh import slices
from sft.tune import points as making
from tpu import done, gcloud, jobs, planning, sent, skypilot, xpk
from tpu import gc as collecting
from tpu.job import ROOT, Job, price

LAUNCHERS: dict[str, ModuleType] = {"sky": skypilot, "gcloud": gcloud, "xpk": xpk}
PROGRAM = "python -m tpu.submit"
OPTIONS = {
    "slice": Flag(str, "", "NAME", "as in v6e-8; sft/mesh/slices.py has all"),
    "bucket": Flag(str, "", "gs://B/DIR", "launch, sweep: each run has its own directory in it"),
    "name": Flag(str, "", "NAME", "launch, sweep: how names begin; logs, stop: the whole name"),
    "on": Flag(str, "sky", "WHERE", "sky | gcloud (a recipe to run by hand) | xpk (GKE)"),
    "spot": Flag(bool, True, "", "cheaper, and may be taken away; --no-spot: on demand"),
    "zone": Flag(str, "", "ZONE", "as in us-east5-b; gc: several, joined by commas"),
    "region": Flag(str, "", "REGION", "sky: any zone of it; the bucket's, or reading it costs"),
    "project": Flag(str, "", "ID", "gc; gcloud and xpk: if not their own default"),
    "cluster": Flag(str, "", "NAME", "xpk: the GKE cluster"),
    "hours": Flag(float, 24.0, "N", "cap of each start: then the run saves, ends, and stays ended"),
    "price": Flag(float, 0.0, "USD", "of a chip and hour, for the estimate; spot prices vary"),
    "plan": Flag(bool, True, "", "--no-plan: submit without knowing whether the step fits"),
    "points": FLAGS["points"].of(f"sweep: {FLAGS['points'].text}"),
    "most": Flag(int, 20, "N", "sweep: runs submitted by this call"),
    "go": Flag(bool, False, "", "run the commands"),
}


def main(argv: Sequence[str]) -> int:
    """Runs one command line and returns the exit code."""
    words = list(argv[1:])
    if not words or words[0] in ("help", "-h", "--help") or "--help" in words:
        print(usage())
        return DONE if words else BAD_INPUT
    try:
        command = COMMANDS.get(words[0])
        if command is None:
            hint = configs.nearest(words[0], list(COMMANDS))
            raise UserError(f"no command {words[0]!r}.{hint} See {PROGRAM} --help.")
        given, rest = _flags(words[1:])
        command(given, rest)
    except UserError as error:
        print(f"submit: {error}", file=sys.stderr)
        return BAD_INPUT
    except DoesNotFit as no:
        print(f"submit: {no}", file=sys.stderr)
        return DOES_NOT_FIT
    except Exception:
        traceback.print_exc()
        print("submit: this is a bug.", file=sys.stderr)
        return BUG
    return DONE


def _flags(words: list[str]) -> tuple[Namespace, list[str]]:
    """The values of the flags, and the other words."""
    table = {"config": Flag(str, None, "FILE", "a file of configs/")} | OPTIONS
    parser = parsing.Parser(prog=PROGRAM, add_help=False, allow_abbrev=False)
    parsing.add_flags(parser, table)
    return parser.parse_known_args(parsing.spelled(words, table))


def usage() -> str:
    """What ``--help`` prints."""
    names = {f"--{name}={flag.value}".rstrip("="): flag.text for name, flag in OPTIONS.items()}
    assert __doc__
    return __doc__.format(flags="\n".join(f"  {name:<20}{text}" for name, text in names.items()))


def launch(given: Any, rest: list[str]) -> None:
    """One run."""
    config, words = _configuration(given, rest)
    job = jobs.one(given, config, words)
    _submit(given, [(job, config)])


def sweep(given: Any, rest: list[str]) -> None:
    """A run for every point that is not over, the same points as those of ``sft sweep``."""
    swept, rest = parsing.swept(rest)
    config, words = _configuration(given, rest)
    if swept and given.points:
        raise UserError("give either --sweep.KEY=A,B or --points=FILE.py.")
    if given.most < 1:
        raise UserError(f"--most={given.most}: expected 1 or more.")
    file = "" if swept else given.points or given.config
    wanted = making.from_file(file) if file else making.from_flags(swept)
    found = making.check(config, wanted, file or "--sweep")
    wished = [jobs.of_point(given, point, words) for point in found]
    marks, why = done.there(given.bucket, [job.digits for job in wished])
    if why and given.go:
        raise UserError(f"--bucket={given.bucket}: which points are done cannot be read: {why}")
    if why:
        print(f"Which points are done is not known ({why}): all are shown.")
    pairs = [
        (jobs.as_there(given, job, marks), point.config)
        for job, point in zip(wished, found, strict=True)
    ]
    left = [pair for pair in pairs if not done.is_over(pair[0], marks.get(pair[0].name, ()))]
    over = len(pairs) - len(left)
    print(f"{len(pairs)} points: {over} done, {len(left)} to submit, at most {given.most} now.")
    _submit(given, left[: given.most])


def status(given: Any, rest: list[str]) -> None:
    """Delegates."""
    _run(_delegated(given, rest, "status"))


def logs(given: Any, rest: list[str]) -> None:
    """Delegates."""
    _run(_delegated(given, rest, "logs"))


def stop(given: Any, rest: list[str]) -> None:
    """Delegates; the run saves, and its slice is given back."""
    _run(_delegated(given, rest, "stop"), given.go)


def gc(given: Any, rest: list[str]) -> None:
    """See ``tpu/gc.py``."""
    _nothing_else(rest)
    for name in ("project", "zone"):
        if not getattr(given, name):
            raise UserError(f"--{name} is missing.")
    collecting.collect(collecting.client(), given.project, given.zone.split(","), given.go)


COMMANDS = {c.__name__: c for c in (launch, sweep, status, logs, stop, gc)}


def _configuration(given: Any, rest: list[str]) -> tuple[ConfigDict, list[str]]:
    """The checked configuration, and the words that make it on a host."""
    if not given.config:
        raise UserError(f"--config=FILE is missing. See {PROGRAM} --help.")
    config = configs.load(given.config)
    parsing.override(config, rest, OPTIONS, PROGRAM)
    validate(config)
    for name in ("slice", "bucket"):
        if not getattr(given, name):
            raise UserError(f"--{name} is missing. See {PROGRAM} --help.")
    if given.on not in LAUNCHERS:
        raise UserError(f"--on={given.on}: expected one of {', '.join(LAUNCHERS)}.")
    sent.check(config)
    return config, [f"--config={sent.config_file(given.config)}", *rest]


def _submit(given: Any, pairs: list[tuple[Job, ConfigDict]]) -> None:
    """Plans, prints, and with ``--go`` runs what can be run at once."""
    launcher = LAUNCHERS[given.on]
    steps = [launcher.steps(job) for job, _ in pairs]  # what cannot be is refused before planning
    documents = [launcher.document(job) for job, _ in pairs]
    if given.plan and pairs:
        planning.fit([(config, job.words) for job, config in pairs], given.slice)
    running = _running() if given.on == "sky" and given.go and pairs else set()
    for (job, _), its_steps, document in zip(pairs, steps, documents, strict=True):
        print(f"\n# {job.name}: {job.workdir}")
        print(document, end="")
        if jobs.as_there(given, job, running).name in running:
            print("under way already: not submitted again")
            continue
        for step in its_steps:
            print(f"# {step.title}{', ' if step.when else ''}{step.when}\n{join(step.argv)}")
            if given.go and not step.when:
                _call(step.argv)
    _say_costs(given, [job for job, _ in pairs])


def _running() -> set[str]:
    found, why = skypilot.unfinished()
    if found is None:
        print(f"Which jobs are under way is not known ({why}): all are submitted.")
    return found or set()


def _say_costs(given: Any, chosen: list[Job]) -> None:
    slice_ = slices.get(given.slice)
    hourly, source = price(slice_, given.price)
    said = "price unknown, give --price" if hourly is None else f"${hourly:.2f}/h ({source})"
    print(
        f"\n{len(chosen)} run(s), each on {slice_.chips} chip(s) {slice_.generation.name}, {said}"
    )
    if hourly is not None:
        most = hourly * given.hours * len(chosen)
        print(f"at most {given.hours:g} h a start: ${most:.2f} for one start of each.")
        if given.spot and not given.price:
            print("Spot costs less; how much changes by the day. --price=USD takes what you see.")
    else:
        print(f"at most {given.hours:g} h a start.")
    if given.spot:
        print("A preempted run starts again, and its hours with it.")
    if not given.go:
        print("Nothing was run: --go does it.")


def _delegated(given: Any, rest: list[str], what: str) -> list[str]:
    name = given.name or next((word for word in rest if not word.startswith("-")), "")
    _nothing_else([word for word in rest if word != name])
    if given.on not in LAUNCHERS:
        raise UserError(f"--on={given.on}: expected one of {', '.join(LAUNCHERS)}.")
    if what != "status" and not name:
        raise UserError(f"{what}: --name=NAME is missing; launch has printed it.")
    place = {"zone": given.zone, "project": given.project, "cluster": given.cluster}
    return getattr(LAUNCHERS[given.on], what)(name, **place)


def _nothing_else(rest: Sequence[str]) -> None:
    if rest:
        raise UserError(f"unexpected {rest[0]!r}. See {PROGRAM} --help.")


def _run(command: Sequence[str], go: bool = True) -> None:
    print(join(command), flush=True)
    if go:
        _call(command)
    else:
        print("Nothing was run: --go does it.")


def _call(command: Sequence[str]) -> None:
    """Runs a tool in the repository.

    Raises:
      UserError: it is not there, or failed.
    """
    sys.stdout.flush()
    try:
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
    except FileNotFoundError:
        raise UserError(
            f"there is no {command[0]} on PATH; tpu/README.md says how to install it."
        ) from None
    if code:
        raise UserError(f"{join(command[:3])} … ended with {code}; its words are above.")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
