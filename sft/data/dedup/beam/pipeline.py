"""The pipeline, and the one place that imports Beam."""

import contextlib
import functools
import importlib
import io
import shlex
import tempfile
import uuid
from collections.abc import Callable, Generator
from typing import Any

from etils import epath

from sft.data.dedup.beam import work
from sft.data.dedup.beam.work import Job, State
from sft.data.read.opening import message
from sft.errors import UserError

_KEY = "config.data.dedup.beam"
# Beam's own runner inside this process or in several. Its DirectRunner does the same, after it has
# tried to download another one.
_HERE = "FnApiRunner"
_LOCAL = (_HERE, "DirectRunner", "BundleBasedDirectRunner", "PrismRunner")


def load() -> Any:
    """The package ``apache_beam``.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module("apache_beam")
    except ImportError as error:
        raise UserError(
            f'config.data.dedup.engine = "beam": {message(error)}. Install the extra "beam", which '
            "has an environment of its own: SFT_ENVIRONMENT=.venv-beam source scripts/env.sh beam"
        ) from None


def options(given: str) -> Any:
    """``PipelineOptions`` from ``config.data.dedup.beam``.

    Raises:
      UserError: an option that Beam does not know or cannot use; Beam is not installed.
    """
    load()
    kinds = importlib.import_module("apache_beam.options.pipeline_options")
    try:
        flags = shlex.split(given)
    except ValueError as error:
        raise UserError(f"{_KEY} = {given!r}: {message(error)}. Close the quotation.") from None
    for flag in flags:
        if not flag.startswith("--"):
            raise UserError(f"{_KEY} = {given!r}: {flag!r} is no --option or --option=value.")
    if not any(flag.split("=")[0] == "--runner" for flag in flags):
        flags.append(f"--runner={_HERE}")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found = kinds.PipelineOptions(flags)
            known = {*found.get_all_options()}
            every = {*found.get_all_options(retain_unknown_options=True)}
    except SystemExit:  # argparse
        reason = said.getvalue().strip().rsplit("error: ", 1)[-1]
        raise UserError(f"{_KEY} = {given!r}: {reason}. Correct the option.") from None
    if every - known:
        names = ", ".join(f"--{name}" for name in sorted(every - known))
        raise UserError(f"{_KEY} = {given!r}: Beam knows no option {names}. Correct its name.")
    return found


@contextlib.contextmanager
def scratch(found: Any) -> Generator[str]:
    """A folder that all workers can reach, gone at the end.

    Args:
      found: from ``options``.

    Raises:
      UserError: the workers are on other machines, and no folder was given; it cannot be made.
    """
    values = found.get_all_options()
    base, runner = values["temp_location"], values["runner"].rsplit(".", 1)[-1]
    if not base and runner not in _LOCAL:
        raise UserError(
            f"{_KEY}: {runner} needs a folder that its workers can reach. Add "
            "--temp_location=gs://BUCKET/FOLDER."
        )
    if not base:
        with tempfile.TemporaryDirectory(prefix="gemma-sft-dedup-") as folder:
            yield folder
        return
    folder = epath.Path(base) / f"gemma-sft-dedup-{uuid.uuid4().hex}"
    if "://" not in base:  # a bucket has no folders to be made
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"{_KEY}: --temp_location={base}: {error.strerror}.") from None
    try:
        yield str(folder)
    finally:
        if folder.exists():
            folder.rmtree()


def run(job: Job, found: Any) -> None:
    """Searches all shards of the job's folder, and leaves an outcome of each there.

    Args:
      found: from ``options``.

    Raises:
      UserError: Beam refuses the options.
    """
    beam = load()
    try:
        pipeline = beam.Pipeline(options=found)
    except Exception as error:  # runners have checks of their own
        raise UserError(f"{_KEY}: {message(error)}. Correct the options.") from None
    with pipeline:
        numbers = [(number, State()) for number in range(len(job.bounds) - 1)]
        # Reshuffled, or a runner may put all that follows into the one task that makes them.
        states = pipeline | "shards" >> beam.Create(numbers) | beam.Reshuffle()
        if len(job.least):
            step = work.forms, work.decide_forms, work.mark_forms
            states = _step(beam, states, job, "forms", *step)
        states = _search(beam, states, job, "search")
        if job.options.keep == "first" and job.action != "report":
            # A dropped row may have held the copy that stays. Without one this finds the same.
            states = _search(beam, states, job, "search again")
        _ = states | "store" >> beam.Map(functools.partial(work.store, job))


def _search(beam: Any, states: Any, job: Job, name: str) -> Any:
    """One search of all shards; ``states`` and the result are collections of ``work.Element``."""
    steps = work.windows, work.decide_windows, work.mark
    states = _step(beam, states, job, f"{name}: windows", *steps)
    if not job.options.compares_answers:
        alone = states | f"{name}: alone" >> beam.Map(_alone)
        return alone | f"{name}: spans" >> beam.Map(functools.partial(work.finish, job))
    steps = work.whole_turns, work.decide_turns, work.finish
    return _step(beam, states, job, f"{name}: answers", *steps)


def _step(
    beam: Any, states: Any, job: Job, name: str, members: Callable, decide: Callable, join: Callable
) -> Any:
    """``members`` of each shard, by partition; what these ``decide``; each shard after it."""
    found = states | f"{name}: members" >> beam.FlatMap(functools.partial(members, job))
    by_partition = found | f"{name}: gather" >> beam.GroupByKey()
    decisions = by_partition | f"{name}: decide" >> beam.FlatMap(functools.partial(decide, job))
    both = {"state": states, "decisions": decisions}
    together = both | f"{name}: by shard" >> beam.CoGroupByKey()
    return together | f"{name}: join" >> beam.Map(functools.partial(join, job))


def _alone(element: work.Element) -> work.Joined:
    number, state = element
    return number, {"state": [state], "decisions": []}
