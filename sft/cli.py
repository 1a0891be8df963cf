"""``sft <command>``: reads the command line, calls the command, turns errors into exit codes.

Nothing heavy is imported before the command is known.
"""

import contextlib
import errno
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from sft import config as configs
from sft import errors
from sft.config_check import validate
from sft.errors import BAD_INPUT, BUG, DONE, PREEMPTED, Preempted, UserError

COMMANDS = {
    "data": "audit the data sets: what would be trained on, and is it like what is served",
    "data mine": "rank the training rows by how hard they are for a model; write subsets",
    "train": "tune, or continue a run; choose the best epoch",
    "eval": "score the base model or a checkpoint on the test set",
    "eval judge": "ask a language model for a verdict on what sft eval wrote",
    "eval rate": "make a page on which people give theirs",
    "eval calibrate": "compare a judge's verdicts with people's, and correct its score",
    "plan": "does the training step fit a TPU slice; needs no TPU, no data and no weights",
    "report": "print a run and write report.html",
}
_MODULES = {
    "data mine": "sft.eval.mine",  # it needs a model, so it stands with the evaluation
    "eval judge": "sft.eval.judge.main",
    "eval rate": "sft.eval.judge.rate",
    "eval calibrate": "sft.eval.judge.calibrate",
}
FLAGS = ("config", "workdir", "checkpoint", "profile", "json", "slice", "trained_share", "ratings")
HELP = """\
usage: sft COMMAND --config=FILE --workdir=DIR [--config.KEY=VALUE ...] [--json]

Supervised fine-tuning of Gemma.

commands:
{commands}

flags:
  --config=FILE          a file of configs/; optional where the run in --workdir has one
  --config.KEY=VALUE     changes one value, as in --config.optim.learning_rate=1e-3
  --workdir=DIR          the run directory
  --checkpoint=WHICH     base, best, latest or a step; eval: best if not given, data mine: base
  --ratings=FILES        eval calibrate: CSV files of the page of eval rate, joined by commas
  --profile              train: a trace of steps 3 to 5 of this process, in DIR/profile
  --slice=NAME           plan: the TPU slice, as in v5e-8; --workdir is not needed there
  --trained_share=SHARE  plan: of the positions, those with loss; the run's audit if not given
  --json                 print one JSON object as the last line, and nothing else there

exit codes: 0 done; 1 a bug; 2 bad usage, config or data; 3 does not fit the slice (plan);
            42 interrupted and saved, run me again
"""


def run() -> None:
    """Entry point of the ``sft`` command."""
    code = 128 + signal.SIGPIPE  # as the shell says it
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
        lines = "\n".join(f"  {name:<16}{text}" for name, text in COMMANDS.items())
        print(HELP.format(commands=lines))
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
    given = flags.FlagValues()
    given.set_gnu_getopt(True)
    flags.DEFINE_string("config", None, "configuration file", flag_values=given)
    flags.DEFINE_string("workdir", "", "run directory", flag_values=given)
    usual = "base" if command == "data mine" else "best"
    flags.DEFINE_string("checkpoint", usual, "what to evaluate", flag_values=given)
    flags.DEFINE_bool("profile", False, "trace some steps of training", flag_values=given)
    flags.DEFINE_bool("json", False, "machine-readable result", flag_values=given)
    if command == "eval calibrate":
        flags.DEFINE_string("ratings", "", "CSV files of people's ratings", flag_values=given)
    if command == "plan":
        flags.DEFINE_string("slice", "", "TPU slice", flag_values=given)
        flags.DEFINE_float("trained_share", None, "positions with loss", flag_values=given)
    try:
        _, *rest = given(argv[len(command.split()) :], known_only=True)
    except flags.Error as error:
        raise UserError(f"{_line(error)}. See sft --help.") from None
    if command == "plan" and not given.slice:
        raise UserError("--slice=NAME is missing, as in --slice=v5e-8. sft/topology.py has all.")
    if command == "plan" and given.config is None and not given.workdir:
        raise UserError("--config=FILE is missing, or the --workdir of a run.")
    if command != "plan" and not given.workdir:
        raise UserError("--workdir=DIR is missing.")
    if command == "eval calibrate" and not given.ratings:
        raise UserError("--ratings=FILE.csv is missing: what the page of sft eval rate saved.")
    if given.profile and command != "train":
        raise UserError(f"--profile is of sft train; sft {command} has none.")
    if given.config is not None:
        config = configs.load(given.config)
    elif command == "report":
        config = configs.default()
    else:
        from sft.workdir import stored_config

        config = stored_config(given.workdir)
    _override(config, rest)
    validate(config)
    module = importlib.import_module(_MODULES.get(command, f"sft.{command}.main"))
    if command == "report":
        return lambda: module.main(given.workdir), given.json
    if command == "plan":
        more = (given.slice, given.workdir, given.trained_share)
        return lambda: module.main(config, *more), given.json
    if command == "eval calibrate":
        return lambda: module.main(config, given.workdir, given.ratings), given.json
    if command in ("eval", "eval judge", "eval rate", "data mine"):
        return lambda: module.main(config, given.workdir, given.checkpoint), given.json
    if command == "train":
        return lambda: module.main(config, given.workdir, given.profile), given.json
    return lambda: module.main(config, given.workdir), given.json


def _override(config: ConfigDict, words: list[str]) -> None:
    """Applies ``--config.KEY=VALUE``; nothing else may be left on the command line.

    Raises:
      UserError: naming the word, and the nearest key.
    """
    values = flags.FlagValues()
    line = ["sft", *words]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=line)
        _, *rest = values(line)
    except (AttributeError, KeyError) as error:
        known = dict(configs.flatten(config))
        keys = [w[9:].partition("=")[0] for w in words if w.startswith("--config.")]
        wrong = next((key for key in keys if key not in known), None)
        if wrong is None:
            raise UserError(f"{_line(error)}. See sft --help.") from None
        hint = configs.nearest(wrong)
        raise UserError(f"--config.{wrong}: no such key.{hint} See sft/config.py.") from None
    except flags.UnrecognizedFlagError as error:
        hint = configs.nearest(error.flagname.partition(".")[0], list(FLAGS))
        raise UserError(f"no flag --{error.flagname}.{hint} See sft --help.") from None
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(f"{_line(error)}. See sft --help.") from None
    if rest:
        raise UserError(f"unexpected {rest[0]!r}. Flags are written --name=value; see sft --help.")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).replace(" ?", "?").rstrip(".")


if __name__ == "__main__":
    run()
