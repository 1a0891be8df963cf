"""The command line: argparse for the flags of a command, ml_collections for ``--config.KEY=VALUE``.

Nothing heavy is imported here.
"""

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from absl import flags
from ml_collections import ConfigDict, config_flags

from sft import config as configs
from sft.commands.table import COMMANDS, FLAGS, RUNS, SWEEP, Command, Flag
from sft.errors import UserError

_EPILOG = """\
Several words make one command, as in sft eval suite. sft COMMAND --help lists its flags.

exit codes: 0 done; 1 a bug; 2 bad usage, config or data; 3 does not fit the slice (plan);
            42 interrupted and saved, run me again
"""
_CONFIG = """\
  --config.KEY=VALUE    changes one value of the configuration, as in
                        --config.optim.learning_rate=1e-3
"""
_SWEEP = """\
  --sweep.KEY=A,B       a run for each value, and for each combination with others
"""
_YES, _NO = ("true", "t", "1", "yes", "y"), ("false", "f", "0", "no", "n")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Lines of at most 100 characters, with room for the longest command."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=26, width=100)


class Parser(argparse.ArgumentParser):
    """argparse, with its complaints as errors of one line."""

    def print_help(self, file: Any = None) -> None:
        """Prints the help; that of the base class hides that its reader has gone."""
        print(self.format_help(), end="", file=file)

    def error(self, message: str) -> NoReturn:
        """Raises ``UserError``; the base class would print the usage and exit."""
        text = message.removeprefix("argument ")
        raise UserError(f"{text}. See {self.prog} --help.")


def parser() -> Parser:
    """``sft``, with a subparser for each command."""
    top = Parser(
        prog="sft",
        usage="sft COMMAND --config=FILE --workdir=DIR [--config.KEY=VALUE ...] [--json]",
        description="Supervised fine-tuning of Gemma.",
        epilog=_EPILOG,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    commands = top.add_subparsers(title="commands", dest="command", metavar="")
    for name, entry in COMMANDS.items():
        of_command = commands.add_parser(
            name,
            prog=f"sft {name}",
            usage=_usage(name, entry),
            help=entry.text,
            description=f"{entry.text[0].upper()}{entry.text[1:]}.",
            epilog=_epilog(name, entry),
            formatter_class=_Help,
            allow_abbrev=False,
        )
        add_flags(of_command, _table(entry))
    return top


def parse(command: str, words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The values of the command's flags, and the other words in their order.

    Args:
      words: of the command line, the command itself among them.

    Raises:
      UserError: a value of another type, or none.
      SystemExit: ``--help`` was among the words and has been printed.
    """
    rest = spelled(words[len(command.split()) :], _table(COMMANDS[command]))
    return parser().parse_known_args([command, *rest])


def _table(entry: Command) -> dict[str, Flag]:
    """The flags of a command, as this command has them."""
    config = {"config": Flag(str, None, "FILE", "a file of configs/; if not given, the run's own")}
    table = config if entry.has_config else {}
    for name in ("workdir" if name == RUNS else name for name in entry.flags):
        if name in FLAGS:
            table[name] = FLAGS[name].of(entry.texts.get(name), entry.defaults.get(name))
    return table | {"json": Flag(bool, False, "", "print one JSON object as the last line, alone")}


def _usage(name: str, entry: Command) -> str:
    words = ["sft", name]
    if entry.has_config:
        words += ["[--config=FILE]", "[--config.KEY=VALUE ...]"]
    if RUNS in entry.flags:
        words += ["DIR", "[DIR ...]"]
    words += [f"--{needed}={FLAGS[needed].value}" for needed in entry.needs if needed != RUNS]
    return " ".join([*words, "[FLAG ...]"])


def _epilog(name: str, entry: Command) -> str:
    lines = _CONFIG if entry.has_config else ""
    lines += _SWEEP if SWEEP in entry.flags else ""
    inner = [other for other in COMMANDS if other.startswith(f"{name} ")]
    more = f"\nsee also: {', '.join(f'sft {other}' for other in inner)}\n" if inner else ""
    return lines + more


def add_flags(to: argparse.ArgumentParser, table: Mapping[str, Flag]) -> None:
    """Defines the flags of ``table``."""
    for name, flag in table.items():
        text = flag.text.replace("%", "%%")
        option: dict[str, Any] = {"dest": name, "default": flag.default}
        if flag.kind is bool:
            shown, hidden = {"help": text}, {"help": argparse.SUPPRESS}
            on, off = (hidden, shown) if flag.default else (shown, hidden)
            to.add_argument(f"--{name}", action="store_true", **option, **on)
            to.add_argument(f"--no-{name}", f"--no{name}", action="store_false", **option, **off)
            continue
        if flag.default not in (None, "", 0, -1, []):
            text += f" (default: {flag.default})"
        kind = _KINDS[flag.kind]
        to.add_argument(f"--{name}", type=kind, metavar=flag.value, help=text, **option)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


_KINDS: dict[type, Callable[[str], Any]] = {str: str, int: _whole, float: _number, list: _listed}


def spelled(words: Sequence[str], table: Mapping[str, Flag]) -> list[str]:
    """The words with one spelling: ``-workdir=W`` has two dashes, ``--json=true`` no value."""
    switches = {name for name, flag in table.items() if flag.kind is bool}
    found = []
    for word in words:
        word = f"-{word}" if re.match(r"-[A-Za-z_]{2}", word) else word
        name, equals, value = word.removeprefix("--").partition("=")
        if equals and name in switches and value.lower() in (*_YES, *_NO):
            word = f"--{name}" if value.lower() in _YES else f"--no-{name}"
        found.append(word)
    return found


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

    Args:
      program: whose ``--help`` a message points to.

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
        raise UserError(f"--config.{wrong}: no such key.{hint} See sft/config.") from None
    except flags.UnrecognizedFlagError as error:
        name = error.flagname.partition(".")[0]
        if program.startswith("sft") and name in FLAGS:
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
