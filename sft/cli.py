"""``sft <command>``: reads the command line, calls the command, turns errors into exit codes.

Nothing heavy is imported before the command is known.
"""

import contextlib
import errno
import importlib
import io
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, cast

from ml_collections import ConfigDict

from sft import config as configs
from sft import errors
from sft.commands import parsing
from sft.commands.table import COMMANDS, FLAGS, RUNS, SWEEP, WORDS, Command, module_of, named
from sft.config import idle
from sft.config.check import validate
from sft.errors import BAD_INPUT, BUG, DONE, PREEMPTED, Preempted, UserError
from sft.run import bucket


def run() -> None:
    """Entry point of the ``sft`` command."""
    code = 128 + signal.SIGPIPE  # as the shell says it
    # A log file, too, shows each line when it is printed, between those of standard error.
    cast(io.TextIOWrapper, sys.stdout).reconfigure(line_buffering=True)
    try:
        code = main(sys.argv)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def main(argv: list[str]) -> int:
    """Runs one command line and returns the exit code."""
    words = argv[1:]
    if not words or words[0] in ("help", "-h", "--help"):
        parsing.parser().print_help()
        return DONE if words else BAD_INPUT
    try:
        call, wants_json = _parse(words)
        return _run(call, wants_json)
    except SystemExit as stop:  # argparse has printed the help of a command
        return int(stop.code or DONE)
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        return _explained(error, words)


def _run(call: Callable[[], Any], wants_json: bool) -> int:
    """Calls the command and prints its result, if that is wanted."""
    code = DONE
    # With --json, standard output is for the object alone.
    with contextlib.redirect_stdout(sys.stderr if wants_json else sys.stdout):
        try:
            result = call()
        except errors.DoesNotFit as no:
            result, code = no.result, errors.DOES_NOT_FIT
        except errors.AuditFailed as no:
            print(f"sft: {no}", file=sys.stderr)
            result, code = no.result, BAD_INPUT
    if wants_json and result is not None:  # other hosts than the first have none
        print(json.dumps(result, ensure_ascii=False))
    return code


def _explained(error: BaseException, words: list[str]) -> int:
    """Prints what has happened in a line, a bug with its traceback; returns the exit code."""
    code, text = BAD_INPUT, ""
    if isinstance(error, UserError):
        text = str(error)
    elif isinstance(error, Preempted):
        code, text = PREEMPTED, f"{error} Run the same command again to continue."
    elif isinstance(error, KeyboardInterrupt):
        code, text = PREEMPTED, "interrupted before there was anything to save."
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = error.filename or "the disk"
        text = f"{where}: no space left on device. Free some, and run the same command again."
    elif any(bucket.holds(word.removeprefix("--workdir=")) for word in words):
        said = bucket.said(error)
        text = f"the bucket refuses: {said}." if said else ""
    if not text:
        traceback.print_exception(error)
        code, text = BUG, "this is a bug."
    print(f"sft: {text}", file=sys.stderr)
    return code


def _parse(argv: list[str]) -> tuple[Callable[[], Any], bool]:
    """The command as a function without arguments, and whether its result is wanted as JSON."""
    command = named(argv)
    if not command:
        hint = configs.nearest(argv[0], list(COMMANDS))
        raise UserError(f"no command {argv[0]!r}.{hint} See sft --help.")
    entry = COMMANDS[command]
    given, rest = parsing.parse(command, argv)
    values = {name: getattr(given, name) for name in entry.flags if name in FLAGS}
    file = given.config if entry.has_config else None
    if SWEEP in entry.flags:
        values[SWEEP], rest = parsing.swept(rest)
    if WORDS in entry.flags:
        values[WORDS] = [f"--config={file}"] * bool(file) + rest
    if not entry.has_config and any(re.match(r"--config\b", word) for word in rest):
        raise UserError(f"sft {command} takes no --config: it reads that of the run. Leave it out.")
    if RUNS in entry.flags:
        first = [given.workdir] if given.workdir else []
        values[RUNS] = first + [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    for name in entry.needs:
        if not values[name]:
            raise UserError(FLAGS["workdir" if name == RUNS else name].missing)
    _check_places(command, values.get(RUNS) or [values.get("workdir") or ""])
    config = _config(entry, file, values.get("workdir") or "")
    parsing.override(config, rest, program=f"sft {command}")
    validate(config)
    if entry.has_config:
        _complete(entry, config, values.get("workdir") or "")
        values["config"] = config
    module = importlib.import_module(module_of(command))
    return lambda: module.main(**values), given.json


def _check_places(command: str, runs: list[str]) -> None:
    """Refuses a bucket where the command works on a local directory alone."""
    for run in [run for run in runs if bucket.holds(run) and not COMMANDS[command].in_buckets]:
        able = ", ".join(name for name, other in COMMANDS.items() if other.in_buckets)
        raise UserError(
            f"--workdir={run}: sft {command} works on a local directory alone; in a bucket do "
            f"{able}. Copy the run: gcloud storage cp -r {run} runs"
        )


def _config(entry: Command, file: str | None, workdir: str) -> ConfigDict:
    """What the configuration file says, or the run's own."""
    if file is not None:
        with contextlib.redirect_stdout(sys.stderr):  # the file may print
            return configs.load(file)
    if not entry.has_config:
        return configs.default()
    if not workdir:
        raise UserError("--config=FILE is missing, or the --workdir of a run.")
    from sft.run.directory import stored_config

    return stored_config(workdir)


def _complete(entry: Command, config: ConfigDict, workdir: str) -> None:
    """Finds the model where it is not named, and notes settings without effect."""
    if SWEEP not in entry.flags:  # whose points have models of their own
        from sft import session

        session.name_model(config, workdir, required=entry.needs_model)
    for line in idle.lines(config):
        print(f"note: {line}", file=sys.stderr)


if __name__ == "__main__":
    run()
