"""``sft <command>``: reads the command line, calls the command, turns errors into exit codes.

Nothing heavy is imported before the command is known.
"""

import contextlib
import importlib
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import config_flags

from sft import config as configs
from sft.errors import BAD_INPUT, BUG, DONE, PREEMPTED, Preempted, UserError

COMMANDS = {
    "data": "read, count and tokenise the data sets; write data/report.json",
    "train": "tune, or continue a run; choose the best epoch",
    "eval": "score the base model or a checkpoint on the test set",
    "report": "print a run and write report.html",
}
HELP = """\
usage: sft COMMAND --config=FILE --workdir=DIR [--config.KEY=VALUE ...] [--json]

Supervised fine-tuning of Gemma.

commands:
{commands}

flags:
  --config=FILE          a file of configs/; optional where the run in --workdir has one
  --config.KEY=VALUE     changes one value, as in --config.optim.learning_rate=1e-3
  --workdir=DIR          the run directory
  --checkpoint=WHICH     eval: base, best, latest or a step (default: best)
  --json                 print one JSON object as the last line, and nothing else there

exit codes: 0 done; 1 a bug; 2 bad usage, config or data; 42 interrupted and saved, run me again
"""


def run() -> None:
    """Entry point of the ``sft`` command."""
    sys.exit(main(sys.argv))


def main(argv: list[str]) -> int:
    """Runs one command line and returns the exit code."""
    words = argv[1:]
    if not words or words[0] in ("help", "-h", "--help") or "--help" in words:
        lines = "\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items())
        print(HELP.format(commands=lines))
        return DONE if words else BAD_INPUT
    wants_json = "--json" in words
    try:
        call = _parse(argv)
        # With --json, standard output is for the object alone.
        with contextlib.redirect_stdout(sys.stderr if wants_json else sys.stdout):
            result = call()
    except UserError as error:
        print(f"sft: {error}", file=sys.stderr)
        return BAD_INPUT
    except Preempted as stopped:
        print(f"sft: {stopped} Run the same command again to continue.", file=sys.stderr)
        return PREEMPTED
    except KeyboardInterrupt:
        print("sft: interrupted before there was anything to save.", file=sys.stderr)
        return PREEMPTED
    except Exception:
        traceback.print_exc()
        print("sft: this is a bug.", file=sys.stderr)
        return BUG
    if wants_json:
        print(json.dumps(result, ensure_ascii=False))
    return DONE


def _parse(argv: list[str]) -> Callable[[], Any]:
    """The command as a function without arguments."""
    command = argv[1]
    if command not in COMMANDS:
        raise UserError(f"no command {command!r}.{configs.nearest(command, list(COMMANDS))} See sft --help.")
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, help_string="configuration file")
    flags.DEFINE_string("workdir", "", "run directory", flag_values=values)
    flags.DEFINE_string("checkpoint", "best", "what to evaluate", flag_values=values)
    flags.DEFINE_bool("json", False, "machine-readable result", flag_values=values)
    before, sys.argv = sys.argv, ["sft", *argv[2:]]  # config_flags looks for overrides there
    try:
        rest = values(sys.argv)
        config = values.config
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        raise UserError(_explain(error)) from error
    finally:
        sys.argv = before
    if len(rest) > 1:
        raise UserError(f"unexpected {rest[1]!r}. Flags are written --name=value; see sft --help.")
    if not values.workdir:
        raise UserError("--workdir=DIR is missing.")
    if config is None and command != "report":
        from sft.workdir import stored_config

        config = stored_config(values.workdir)
    if config is not None:
        configs.validate(config)
    module = importlib.import_module(f"sft.{command}.main")
    if command == "report":
        return lambda: module.main(values.workdir)
    if command == "eval":
        return lambda: module.main(config, values.workdir, values.checkpoint)
    return lambda: module.main(config, values.workdir)


def _explain(error: Exception) -> str:
    """One line for what absl, ml_collections or a config file raised."""
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if f.name == "get_config" or "configs/" in f.filename]
    if inside:
        return f"{inside[-1].filename}:{inside[-1].lineno}: {type(error).__name__}: {text}"
    if isinstance(error, (AttributeError, KeyError)):
        for word in sys.argv:
            key = word.lstrip("-").partition("=")[0].removeprefix("config.")
            if word.startswith("--config.") and key not in dict(configs.flatten(configs.default())):
                return f"--config.{key}: no such key.{configs.nearest(key)}"
    if isinstance(error, OSError):
        return f"--config: {text.rpartition('Attempted')[2] or text}"
    return text


if __name__ == "__main__":
    run()
