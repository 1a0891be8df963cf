"""The commands of ``sft`` and their flags, one entry each. Imports nothing of them.

A command is a module of this folder; its ``main`` gets the flags by their names.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
      kind: of its value; ``list`` = several texts joined by commas.
      default: where it is not given.
      value: what stands for the value in the help; ``""`` = there is none, it is on or off.
      text: for the help.
      missing: what to say where a command needs it and it is not given.
    """

    kind: type
    default: Any
    value: str
    text: str
    missing: str = ""

    def of(self, text: str | None = None, default: Any = None) -> "Flag":
        """The flag with another text or default, where a command has its own."""
        changed = {"text": text, "default": default}
        return dataclasses.replace(self, **{k: v for k, v in changed.items() if v is not None})


@dataclasses.dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
      text: for the help.
      flags: that it takes; ``RUNS``, ``SWEEP`` and ``WORDS`` are explained below.
      needs: those of them that must be given.
      defaults, texts: where they are not the flag's own.
      has_config: whether ``main`` takes a configuration, as ``config``.
      in_buckets: whether the run directory may be ``gs://…``.
      needs_model: whether it reads the weights, or at least has to know which model they are of.
      needs_devices: whether it runs a model that is too slow without a TPU: ``tpu/host.sh`` lets
        others leave the TPU alone.
    """

    text: str
    flags: tuple[str, ...]
    needs: tuple[str, ...] = ("workdir",)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    has_config: bool = True
    in_buckets: bool = False
    needs_model: bool = False
    needs_devices: bool = False


WORDS = "words"  # the --config=FILE and --config.KEY=VALUE themselves
SWEEP = "sweep"  # --sweep.KEY=A,B, as often as wanted
RUNS = "runs"  # directories without a flag, and --workdir
OF_ARM = ("workdir", "checkpoint")
COMMANDS = {
    "data": Command(
        "audit the data sets: what would be trained on, and is it like what is served",
        ("workdir", "strict"),
        in_buckets=True,
        needs_model=True,
    ),
    "data mine": Command(
        "rank the training rows by how hard they are for a model; write subsets",
        OF_ARM,
        defaults={"checkpoint": "base"},
        needs_model=True,
        needs_devices=True,
    ),
    "train": Command(
        "tune, or continue a run; choose the best epoch",
        ("workdir", "profile"),
        in_buckets=True,
        needs_model=True,
        needs_devices=True,
    ),
    "eval": Command(
        "score the base model or a checkpoint on the test set",
        OF_ARM,
        in_buckets=True,
        needs_model=True,
        needs_devices=True,
    ),
    "eval suite": Command(
        "success, failure and boundary cases: pass rates, base against tuned",
        OF_ARM,
        needs_model=True,
        needs_devices=True,
    ),
    "eval lm": Command(
        "run tasks of lm-eval on the base model or a checkpoint",
        (*OF_ARM, "tasks", "limit", "fewshot", "chat", "max_length"),
        needs=("workdir", "tasks"),
        needs_model=True,
        needs_devices=True,
    ),
    "eval judge": Command(
        "ask a language model for a verdict on what sft eval wrote",
        OF_ARM,
        needs_devices=True,
    ),
    "eval rate": Command("make a page on which people give theirs", OF_ARM),
    "eval calibrate": Command(
        "compare a judge's verdicts with people's, and correct its score",
        ("workdir", "ratings"),
        needs=("workdir", "ratings"),
    ),
    "plan": Command(
        "does the training step fit a TPU slice; needs no TPU, no data and no weights",
        ("slice", "workdir", "trained_share"),
        needs=("slice",),
        in_buckets=True,
    ),
    "recommend": Command(
        "epochs, learning rate and adapter size to start from, for what sft data has counted",
        ("workdir", "modality", "slice"),
        in_buckets=True,
    ),
    "sweep": Command(
        "train and score a run for every combination of --sweep.KEY=A,B, point of a file, or trial",
        ("workdir", WORDS, SWEEP, "points", "trials", "jobs", "dry_run"),
        needs_devices=True,
    ),
    "chat": Command(
        "talk to a checkpoint in the terminal, beside the base model if wanted",
        (*OF_ARM, "system", "beside"),
        in_buckets=True,
        needs_model=True,
    ),
    "export": Command(
        "write a checkpoint in formats that others read, each read back and compared",
        (*OF_ARM, "format", "dtype", "out", "base", "overwrite"),
        needs=("workdir", "format"),
        texts={"out": "the directory of the formats, if not DIR/export"},
        in_buckets=True,
        needs_model=True,
    ),
    "report": Command(
        "print and diagnose a run, or compare several, as in sft report A B C",
        (RUNS, "out"),
        texts={"out": "the page, if not report.html of the run or compare.html"},
        needs=(RUNS,),
        has_config=False,
        in_buckets=True,
    ),
}

FLAGS = {
    "workdir": Flag(
        str, "", "DIR", "the run directory; may be gs://BUCKET/DIR", "--workdir=DIR is missing."
    ),
    "strict": Flag(
        bool, False, "", "exit with 2 if the audit finds an error, after writing everything"
    ),
    "checkpoint": Flag(str, "best", "WHICH", "base, best, latest or a step"),
    "profile": Flag(bool, False, "", "a trace of steps 3 to 5 of this process, in DIR/profile"),
    "slice": Flag(
        str,
        "",
        "NAME",
        "the TPU slice, as in v5e-8",
        "--slice=NAME is missing, as in --slice=v5e-8. sft/mesh/slices.py has all.",
    ),
    "modality": Flag(str, "text", "KIND", "text, image or audio"),
    "points": Flag(str, "", "FILE.py", "a file with points(), if the configuration's has none"),
    "trials": Flag(
        int, 0, "N", "a search of so many points by Optuna, with suggest() of that file"
    ),
    "dry_run": Flag(bool, False, "", "print the points and their commands, run nothing"),
    "jobs": Flag(int, 1, "N", "runs at a time on this machine"),
    "trained_share": Flag(
        float,
        None,
        "SHARE",
        "of the positions, those with loss; if not given, the audit of the run in --workdir says",
    ),
    "out": Flag(str, "", "PLACE", "where to write"),
    "format": Flag(
        list,
        [],
        "NAME,NAME",
        "peft, safetensors, keras, orbax, gguf",
        "--format=NAME is missing: peft, safetensors, keras, orbax or gguf.",
    ),
    "dtype": Flag(str, "", "KIND", "of merged weights: float32, bfloat16, float16; gguf: q8_0"),
    "system": Flag(str, "", "TEXT", "the system instruction, if not that of training"),
    "beside": Flag(bool, False, "", "the base model answers too"),
    "base": Flag(str, "", "NAME", "the base model's name on Hugging Face"),
    "overwrite": Flag(bool, False, "", "in place of an earlier one"),
    "ratings": Flag(
        str,
        "",
        "FILES",
        "CSV files of the page of eval rate, joined by commas",
        "--ratings=FILE.csv is missing: what the page of sft eval rate saved.",
    ),
    "tasks": Flag(
        list,
        [],
        "NAME,FILE",
        "tasks or groups of lm-eval, or YAML files",
        "--tasks=NAME is missing: a task or group of lm-eval, or a YAML file.",
    ),
    "limit": Flag(int, 0, "N", "documents of each task; 0 = all"),
    "fewshot": Flag(int, -1, "N", "examples before each question; -1 = as the task says"),
    "chat": Flag(bool, False, "", "put questions as user turns"),
    "max_length": Flag(int, 0, "N", "tokens of a request; 0 = the model's own"),
}


def module_of(command: str) -> str:
    """The module whose ``main`` is the command."""
    return f"{__package__}.{command.replace(' ', '_')}"


def named(words: Sequence[str]) -> str:
    """The command that these words begin with, ``""`` where they begin with none."""
    two = " ".join(words[:2])
    return two if two in COMMANDS else next((word for word in words[:1] if word in COMMANDS), "")


if __name__ == "__main__":  # for tpu/host.sh: exit code 0 where the command needs devices
    words = sys.argv[1:]
    sys.exit(not (named(words) and COMMANDS[named(words)].needs_devices))
