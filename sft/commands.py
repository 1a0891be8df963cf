"""The commands of ``sft`` and their flags, one entry each. Imports nothing of them."""

import dataclasses
from collections.abc import Mapping
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


@dataclasses.dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
      text: for the help.
      module: whose ``main`` is called with the configuration and the values of ``flags``.
      flags: that it takes, in this order; ``RUNS`` are directories given without a flag;
        ``SWEEP`` and ``WORDS`` are what they are said to be below.
      needs: those of them that must be given.
      defaults: where they are not the flag's own.
      has_config: whether ``main`` takes a configuration.
      in_buckets: whether the run directory may be ``gs://…``.
      needs_model: whether it reads the weights, or at least has to know which model they are of.
    """

    text: str
    module: str
    flags: tuple[str, ...]
    needs: tuple[str, ...] = ("workdir",)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    has_config: bool = True
    in_buckets: bool = False
    needs_model: bool = False


WORDS = "words"  # the --config=FILE and --config.KEY=VALUE themselves
SWEEP = "sweep"  # --sweep.KEY=A,B, as often as wanted
RUNS = "runs"  # directories without a flag, and --workdir
OF_ARM = ("workdir", "checkpoint")
COMMANDS = {
    "data": Command(
        "audit the data sets: what would be trained on, and is it like what is served",
        "sft.data.main",
        ("workdir", "strict"),
        in_buckets=True,
        needs_model=True,
    ),
    "data mine": Command(
        "rank the training rows by how hard they are for a model; write subsets",
        "sft.eval.mine",  # it needs a model, so it stands with the evaluation
        OF_ARM,
        defaults={"checkpoint": "base"},
        needs_model=True,
    ),
    "train": Command(
        "tune, or continue a run; choose the best epoch",
        "sft.train.main",
        ("workdir", "profile"),
        in_buckets=True,
        needs_model=True,
    ),
    "eval": Command(
        "score the base model or a checkpoint on the test set",
        "sft.eval.main",
        OF_ARM,
        in_buckets=True,
        needs_model=True,
    ),
    "eval suite": Command(
        "success, failure and boundary cases: pass rates, base against tuned",
        "sft.eval.suites.main",
        OF_ARM,
        needs_model=True,
    ),
    "eval lm": Command(
        "run tasks of lm-eval on the base model or a checkpoint",
        "sft.eval.lm",
        (*OF_ARM, "tasks", "limit", "fewshot", "chat", "max_length"),
        needs=("workdir", "tasks"),
        needs_model=True,
    ),
    "eval judge": Command(
        "ask a language model for a verdict on what sft eval wrote", "sft.eval.judge.main", OF_ARM
    ),
    "eval rate": Command("make a page on which people give theirs", "sft.eval.judge.rate", OF_ARM),
    "eval calibrate": Command(
        "compare a judge's verdicts with people's, and correct its score",
        "sft.eval.judge.calibrate",
        ("workdir", "ratings"),
        needs=("workdir", "ratings"),
    ),
    "plan": Command(
        "does the training step fit a TPU slice; needs no TPU, no data and no weights",
        "sft.plan.main",
        ("slice", "workdir", "trained_share"),
        needs=("slice",),
        in_buckets=True,
    ),
    "recommend": Command(
        "epochs, learning rate and adapter size to start from, for what sft data has counted",
        "sft.tune.recommend",
        ("workdir", "modality", "slice"),
        in_buckets=True,
    ),
    "sweep": Command(
        "train and score a run for every combination of --sweep.KEY=A,B, point of a file, or trial",
        "sft.tune.sweep",
        ("workdir", WORDS, SWEEP, "points", "trials", "jobs", "dry_run"),
    ),
    "chat": Command(
        "talk to a checkpoint in the terminal, beside the base model if wanted",
        "sft.eval.chat",
        (*OF_ARM, "system", "beside"),
        in_buckets=True,
        needs_model=True,
    ),
    "export": Command(
        "write a checkpoint in formats that others read, each read back and compared",
        "sft.export.main",
        (*OF_ARM, "format", "dtype", "out", "base", "overwrite"),
        needs=("workdir", "format"),
        in_buckets=True,
        needs_model=True,
    ),
    "report": Command(
        "print and diagnose a run, or compare several, as in sft report A B C",
        "sft.report.main",
        (RUNS, "out"),
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
        bool, False, "", "data: exit with 2 if the audit finds an error, after writing everything"
    ),
    "checkpoint": Flag(
        str, "best", "WHICH", "base, best, latest or a step; best if not given, data mine: base"
    ),
    "profile": Flag(
        bool, False, "", "train: a trace of steps 3 to 5 of this process, in DIR/profile"
    ),
    "slice": Flag(
        str,
        "",
        "NAME",
        "plan, recommend: the TPU slice, as in v5e-8; plan needs no --workdir",
        "--slice=NAME is missing, as in --slice=v5e-8. sft/topology.py has all.",
    ),
    "modality": Flag(str, "text", "KIND", "recommend: text, image or audio"),
    "points": Flag(
        str, "", "FILE.py", "sweep: a file with points(), if the configuration's has none"
    ),
    "trials": Flag(
        int, 0, "N", "sweep: a search of so many points by Optuna, with suggest() of that file"
    ),
    "dry_run": Flag(bool, False, "", "sweep: print the points and their commands, run nothing"),
    "jobs": Flag(int, 1, "N", "sweep: runs at a time on this machine"),
    "trained_share": Flag(
        float,
        None,
        "SHARE",
        "plan: of the positions, those with loss; the run's audit if not given",
    ),
    "out": Flag(
        str,
        "",
        "PLACE",
        "report: the page, if not report.html of the run or compare.html; export: the directory "
        "of the formats, if not DIR/export",
    ),
    "format": Flag(
        list,
        [],
        "NAME,NAME",
        "export: peft, safetensors, keras, orbax, gguf",
        "--format=NAME is missing: peft, safetensors, keras, orbax or gguf.",
    ),
    "dtype": Flag(
        str, "", "KIND", "export: of merged weights: float32, bfloat16, float16; gguf: q8_0"
    ),
    "system": Flag(str, "", "TEXT", "chat: the system instruction, if not that of training"),
    "beside": Flag(bool, False, "", "chat: the base model answers too"),
    "base": Flag(str, "", "NAME", "export: the base model's name on Hugging Face"),
    "overwrite": Flag(bool, False, "", "export: in place of an earlier one"),
    "ratings": Flag(
        str,
        "",
        "FILES",
        "eval calibrate: CSV files of the page of eval rate, joined by commas",
        "--ratings=FILE.csv is missing: what the page of sft eval rate saved.",
    ),
    "tasks": Flag(
        list,
        [],
        "NAME,FILE",
        "eval lm: tasks or groups of lm-eval, or YAML files",
        "--tasks=NAME is missing: a task or group of lm-eval, or a YAML file.",
    ),
    "limit": Flag(int, 0, "N", "eval lm: documents of each task; 0 = all"),
    "fewshot": Flag(int, -1, "N", "eval lm: examples before each question; -1 = as the task says"),
    "chat": Flag(bool, False, "", "eval lm: put questions as user turns"),
    "max_length": Flag(int, 0, "N", "eval lm: tokens of a request; 0 = the model's own"),
}

HELP = """\
usage: sft COMMAND --config=FILE --workdir=DIR [--config.KEY=VALUE ...] [--json]

Supervised fine-tuning of Gemma.

commands:
{commands}

flags:
  --config=FILE          a file of configs/; optional where the run in --workdir has one
  --config.KEY=VALUE     changes one value, as in --config.optim.learning_rate=1e-3
  --sweep.KEY=A,B        sweep: a run for each value, and for each combination with others
{flags}
  --json                 print one JSON object as the last line, and nothing else there

exit codes: 0 done; 1 a bug; 2 bad usage, config or data; 3 does not fit the slice (plan);
            42 interrupted and saved, run me again
"""


def usage() -> str:
    """What ``sft --help`` prints."""
    names = {f"--{name}={flag.value}".rstrip("="): flag.text for name, flag in FLAGS.items()}
    return HELP.format(
        commands="\n".join(f"  {name:<16}{command.text}" for name, command in COMMANDS.items()),
        flags="\n".join(f"  {name:<23}{text}" for name, text in names.items()),
    )
