"""``sft <command>``: reads the command line, calls the command, turns errors into exit codes.

Nothing heavy is imported before the command is known.
"""

import contextlib
import dataclasses
import errno
import importlib
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from absl import flags
from ml_collections import ConfigDict, config_flags

from sft import bucket, config_idle, errors
from sft import config as configs
from sft.commands import COMMANDS, FLAGS, RUNS, SWEEP, WORDS, Command, Flag, usage
from sft.config_check import validate
from sft.errors import BAD_INPUT, BUG, DONE, PREEMPTED, Preempted, UserError


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
    if not words or words[0] in ("help", "-h", "--help") or "--help" in words:
        print(usage())
        return DONE if words else BAD_INPUT
    code = DONE
    try:
        with contextlib.redirect_stdout(sys.stderr):  # a configuration file may print
            call, wants_json = _parse(argv)
        # With --json, standard output is for the object alone.
        with contextlib.redirect_stdout(sys.stderr if wants_json else sys.stdout):
            try:
                result = call()
            except errors.DoesNotFit as no:
                result, code = no.result, errors.DOES_NOT_FIT
            except errors.AuditFailed as no:
                print(f"sft: {no}", file=sys.stderr)
                result, code = no.result, BAD_INPUT
    except UserError as error:
        print(f"sft: {error}", file=sys.stderr)
        return BAD_INPUT
    except Preempted as stopped:
        print(f"sft: {stopped} Run the same command again to continue.", file=sys.stderr)
        return PREEMPTED
    except KeyboardInterrupt:
        print("sft: interrupted before there was anything to save.", file=sys.stderr)
        return PREEMPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            print(
                f"sft: {error.filename or 'the disk'}: no space left on device. Free some, "
                "and run the same command again.",
                file=sys.stderr,
            )
            return BAD_INPUT
        is_there = any(bucket.holds(word.removeprefix("--workdir=")) for word in words)
        if is_there and (said := bucket.said(error)):
            print(f"sft: the bucket refuses: {said}.", file=sys.stderr)
            return BAD_INPUT
        traceback.print_exc()
        print("sft: this is a bug.", file=sys.stderr)
        return BUG
    if wants_json and result is not None:  # other hosts than the first have none
        print(json.dumps(result, ensure_ascii=False))
    return code


def _parse(argv: list[str]) -> tuple[Callable[[], Any], bool]:
    """The command as a function without arguments, and whether its result is wanted as JSON."""
    two = " ".join(argv[1:3])
    command = two if two in COMMANDS else argv[1]
    if command not in COMMANDS:
        raise UserError(
            f"no command {command!r}.{configs.nearest(command, list(COMMANDS))} See sft --help."
        )
    entry = COMMANDS[command]
    given, rest = _flags(entry, argv[len(command.split()) :])
    values = {name: given[name].value for name in entry.flags if name in FLAGS}
    if SWEEP in entry.flags:
        values[SWEEP], rest = swept(rest)
    if WORDS in entry.flags:
        values[WORDS] = [f"--config={given.config}"] * bool(given.config) + rest
    if RUNS in entry.flags:
        named = [given.workdir] if given.workdir else []
        values[RUNS] = named + [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    for name in entry.needs:
        if not values[name]:
            raise UserError(FLAGS["workdir" if name == RUNS else name].missing)
    runs = values.get(RUNS) or [values.get("workdir") or ""]
    for run in [run for run in runs if bucket.holds(run) and not entry.in_buckets]:
        able = ", ".join(name for name, other in COMMANDS.items() if other.in_buckets)
        raise UserError(
            f"--workdir={run}: sft {command} works on a local directory alone; in a bucket do "
            f"{able}. Copy the run: gcloud storage cp -r {run} runs"
        )
    config = configs.default()
    if given.config is not None:
        config = configs.load(given.config)
    elif entry.has_config:
        if not values["workdir"]:
            raise UserError("--config=FILE is missing, or the --workdir of a run.")
        from sft.workdir import stored_config

        config = stored_config(values["workdir"])
    override(config, rest)
    validate(config)
    if entry.has_config:
        _complete(entry, config, values.get("workdir") or "")
    more = [values[name] for name in entry.flags]
    arguments = [config, *more] if entry.has_config else more
    module = importlib.import_module(entry.module)
    return lambda: module.main(*arguments), given.json


def _complete(entry: Command, config: ConfigDict, workdir: str) -> None:
    """Finds the model where it is not named, and notes settings without effect."""
    if SWEEP not in entry.flags:  # whose points have models of their own
        from sft import inputs

        inputs.name_model(config, workdir, required=entry.needs_model)
    for line in config_idle.lines(config):
        print(f"note: {line}", file=sys.stderr)


def _flags(entry: Command, words: list[str]) -> tuple[flags.FlagValues, list[str]]:
    """The values of this command's flags, and the words that are none of them."""
    named = ("workdir" if name == RUNS else name for name in entry.flags)
    table = {
        name: dataclasses.replace(
            FLAGS[name], default=entry.defaults.get(name, FLAGS[name].default)
        )
        for name in named
        if name in FLAGS
    }
    table["json"] = Flag(bool, False, "", "machine-readable result")
    return read_flags(table, words)


def read_flags(
    table: Mapping[str, Flag], words: list[str], program: str = "sft"
) -> tuple[flags.FlagValues, list[str]]:
    """The values of ``--config`` and the flags of ``table``, and the other words.

    Args:
      words: the first one is the program's name.

    Raises:
      UserError: a value of another type.
    """
    given = flags.FlagValues()
    given.set_gnu_getopt(True)
    flags.DEFINE_string("config", None, "configuration file", flag_values=given)
    define: dict[type, Callable[..., Any]] = {
        str: flags.DEFINE_string,
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        list: flags.DEFINE_list,
    }
    for name, flag in table.items():
        define[flag.kind](name, flag.default, flag.text, flag_values=given)
    try:
        _, *rest = given(words, known_only=True)
    except flags.Error as error:
        raise UserError(f"{_line(error)}. See {program} --help.") from None
    return given, rest


def swept(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """``{KEY: "A,B"}`` of each ``--sweep.KEY=A,B``, and the other words.

    Raises:
      UserError: one without values, or given twice.
    """
    found: dict[str, str] = {}
    for word in words:
        if word.startswith("--sweep."):
            key, _, text = word.removeprefix("--sweep.").partition("=")
            if not text or key in found:
                raise UserError(f"{word}: expected --sweep.KEY=A,B, once for each key.")
            found[key] = text
    return found, [word for word in words if not word.startswith("--sweep.")]


def override(
    config: ConfigDict,
    words: list[str],
    known_flags: Iterable[str] = ("json", *FLAGS),
    program: str = "sft",
) -> None:
    """Applies ``--config.KEY=VALUE``; nothing else may be left on the command line.

    Raises:
      UserError: naming the word, and the nearest key.
    """
    values = flags.FlagValues()
    line = [program, *words]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=line)
        _, *rest = values(line)
    except (AttributeError, KeyError) as error:
        known = dict(configs.flatten(config))
        keys = [w[9:].partition("=")[0] for w in words if w.startswith("--config.")]
        wrong = next((key for key in keys if key not in known), None)
        if wrong is None:
            raise UserError(f"{_line(error)}. See {program} --help.") from None
        hint = configs.nearest(wrong)
        raise UserError(f"--config.{wrong}: no such key.{hint} See sft/config.py.") from None
    except flags.UnrecognizedFlagError as error:
        name = error.flagname.partition(".")[0]
        if program == "sft" and name in FLAGS:
            whose = ", ".join(f"sft {c}" for c, entry in COMMANDS.items() if name in entry.flags)
            raise UserError(f"--{name} is of {whose} alone. See {program} --help.") from None
        hint = configs.nearest(name, ["config", *known_flags])
        raise UserError(f"no flag --{error.flagname}.{hint} See {program} --help.") from None
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(f"{_line(error)}. See {program} --help.") from None
    if rest:
        raise UserError(
            f"unexpected {rest[0]!r}. Flags are written --name=value; see {program} --help."
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).replace(" ?", "?").rstrip(".")


if __name__ == "__main__":
    run()
