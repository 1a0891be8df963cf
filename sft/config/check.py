"""Every value of a configuration checked, before any device work."""

import math
import os
import re
from typing import Any

from ml_collections import ConfigDict

from sft.config import SOURCES, default, flatten, nearest
from sft.config.text import strings
from sft.errors import UserError

_CHOICES = {
    "model.dtype": ("bfloat16", "float32"),
    "model.attention": ("", "reference", "splash", "cudnn"),
    "model.remat": ("layer", "projections", "none", "host"),
    "data.reading.container": (
        "",
        "jsonl",
        "json",
        "csv",
        "tsv",
        "parquet",
        "arrow",
        "arrayrecord",
    ),
    "data.split.stratify": ("", "category", "origin"),
    "data.chat": ("", "gemma2", "gemma3", "gemma4", "gemma4_large"),
    "data.dedup.engine": ("suffix_array", "hash", "beam"),
    "data.dedup.scope": ("group", "record"),
    "data.dedup.keep": ("first", "none"),
    "data.dedup.action": ("mask", "cut", "drop", "report"),
    "data.leakage.action": ("report", "drop", "error"),
    "data.train_on": ("all", "last"),
    "data.eval_on": ("all", "last"),
    "data.over_long": ("error", "drop", "truncate_prompt_left", "truncate_response"),
    "optim.schedule": ("constant", "linear", "cosine"),
    "eval.compare": ("whole", "first_line"),
    "eval.language": ("", "en", "ja", "zh", "ko", "th", "lo", "km", "my", "other"),
    "judge.mode": ("pointwise", "pairwise"),
    "judge.backend": ("local", "openai", "gemini"),
    "mine.select": ("hardest", "band"),
    "mesh.platform": ("", "cpu", "gpu", "tpu"),
}
_POSITIVE = (
    "lora.alpha lora.plus "
    "data.dedup.cosine data.dedup.memory data.dedup.max_copies data.dedup.drop_share "
    "data.dedup.template_rows "
    "data.max_length data.eval_max_length data.reading.weight optim.learning_rate optim.eps "
    "train.epochs train.batch_size train.microbatches train.log_every train.keep_latest "
    "train.keep_best loss.chunk eval.batch_size eval.max_new_tokens eval.shots_max_length "
    "mesh.fsdp mesh.sequence mesh.tensor mesh.timeout judge.max_new_tokens judge.concurrency "
    "judge.attempts judge.max_wait judge.timeout judge.sample"
).split()
_NOT_NEGATIVE = (
    "seed lora.rank data.split.seed data.dedup.responses_per_prompt data.dedup.substring "
    "data.dedup.min_trained data.augment.copies data.workers optim.weight_decay "
    "optim.clip_norm train.save_every train.validate_every train.patience eval.temperature "
    "eval.top_k eval.max_examples eval.tolerance eval.shots eval.during_training mesh.slices "
    "judge.low judge.retries judge.price_in judge.price_out judge.max_examples judge.seed"
).split()
_OF_ADAPTERS = {"dora": False, "plus": 1.0, "start": ""}  # and what each is where it is off
_SHARES = (
    "lora.dropout data.max_rejected data.max_over_long data.split.validation data.split.test "
    "data.dedup.near data.dedup.cosine data.dedup.drop_share data.dedup.template_share "
    "data.leakage.max_share data.augment.casing data.augment.whitespace data.augment.punctuation "
    "optim.warmup optim.final_scale optim.b1 optim.b2 eval.top_p mine.share mine.low mine.high "
    "mine.evaluate judge.agreement loss.prompt_weight"
).split()
METRICS = (
    "exact_match exact_match_normalised accuracy macro_f1 micro_f1 token_f1 bleu chrf "
    "rouge1 rouge2 rougeL json_valid json_fields regex_match numeric_match"
).split()
RANKED = ("label_accuracy", "label_macro_f1", "label_accuracy_norm")  # where eval.labels is set
_TAKEN = (*METRICS, *RANKED, "loss", "perplexity", "token_accuracy", "cut")  # names of results
_FEWEST = 100  # resamples: below, the ends of an interval are those of a few draws
_CACHES = ("data.cache", "eval.cache", "train.compilation_cache")
_REPAIRS = ("leading_model", "trailing_user", "drop_thoughts")


def validate(config: ConfigDict) -> None:
    """Checks names, types and ranges.

    Raises:
      UserError: naming the key, its value, and what was expected.
    """
    given = dict(flatten(config))
    expected = dict(flatten(default()))
    expected |= _source_keys(given, expected)
    for key in given:
        if key not in expected:
            raise UserError(f"config.{key}: no such key.{nearest(key)}")
    for key, want in expected.items():
        if key not in given:
            raise UserError(f"config.{key}: missing. Start from sft.config.default().")
        value = given[key]
        if type(value) is not type(want):
            raise UserError(
                f"config.{key} = {value!r}: expected {type(want).__name__}, "
                f"got {type(value).__name__}."
            )
        check_value(key, value)
    _check_together(config)


def _source_keys(given: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """The keys of ``data.sources``, with a value of the type each must have.

    Raises:
      UserError: a source without a path, or with a key that ``data.reading`` does not have.
    """
    reading = {
        key.removeprefix("data.reading."): value
        for key, value in expected.items()
        if key.startswith("data.reading.")
    }
    options = reading | {"path": ""}
    found = {}
    for key in given:
        if not key.startswith(SOURCES):
            continue
        name, _, leaf = key.removeprefix(SOURCES).partition(".")
        if not re.fullmatch(r"\w[\w-]*", name):
            raise UserError(
                f"config.{SOURCES}{name}: a source's name has letters, digits, _ and - only."
            )
        if leaf not in options:
            hint = nearest(leaf, list(options))
            raise UserError(f"config.{key}: no such key.{hint} Known: {', '.join(options)}.")
        found[key] = options[leaf]
        if f"{SOURCES}{name}.path" not in given:
            raise UserError(f"config.{SOURCES}{name}.path: missing. Give the files of this source.")
    return found


def check_value(key: str, value: Any) -> None:
    name = re.sub(r"^data\.sources\.[^.]+\.", "data.reading.", key)
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"config.{key} = {value!r}: expected a finite number.")
    if name in _CHOICES and value not in _CHOICES[name]:
        choices = _CHOICES[name]
        hint = nearest(str(value), [c for c in choices if c])
        raise UserError(f"config.{key} = {value!r}: expected one of {choices}.{hint}")
    if name in _POSITIVE and not value > 0:
        raise UserError(f"config.{key} = {value!r}: expected a number above 0.")
    if name in _NOT_NEGATIVE and not value >= 0:
        raise UserError(f"config.{key} = {value!r}: expected 0 or more.")
    if name in _SHARES and not 0 <= value <= 1:
        raise UserError(f"config.{key} = {value!r}: expected a number from 0 to 1.")
    if isinstance(value, str):
        _check_text(key, name, value)


def _check_text(key: str, name: str, value: str) -> None:
    """Settings that are written in a little language: regular expressions, lists."""
    if name in ("lora.targets", "data.reading.group_regex", "eval.pattern"):
        try:
            re.compile(value)
        except re.error as error:
            raise UserError(f"config.{key} = {value!r}: {error}.") from None
    if name in ("eval.stop", "eval.labels"):
        try:
            strings(value)
        except ValueError as error:
            raise UserError(f"config.{key} = {value!r}: {error}.") from None
    if name in _CACHES:
        _check_cache(key, value, may_be_remote=name == "train.compilation_cache")
    if name == "data.reading.repair":
        for repair in filter(None, (part.strip() for part in value.split(","))):
            if repair not in _REPAIRS:
                hint = nearest(repair, list(_REPAIRS))
                raise UserError(
                    f"config.{key} = {value!r}: {repair!r} is none of {_REPAIRS}.{hint}"
                )


def _check_cache(key: str, value: str, may_be_remote: bool) -> None:
    if "://" in value and not (may_be_remote and value.startswith("gs://")):
        raise UserError(f"config.{key} = {value!r}: expected a local directory, or '' for none.")
    if os.path.expanduser(value).startswith("~"):  # in a container without HOME, or a wrong name
        raise UserError(
            f"config.{key} = {value!r}: there is no such home directory here. Set HOME, or "
            f"config.{key} to another directory, or to '' for none."
        )


def _check_together(config: ConfigDict) -> None:
    if not config.lora.dropout < 1:
        raise UserError(f"config.lora.dropout = {config.lora.dropout}: expected 0 to below 1.")
    changed = [key for key, off in _OF_ADAPTERS.items() if config.lora[key] != off]
    if config.lora.rank == 0 and changed:
        key = changed[0]
        raise UserError(
            f"config.lora.{key} = {config.lora[key]} changes adapters, but config.lora.rank = 0 "
            f"tunes the weights themselves. Set a rank, or config.lora.{key} to its default."
        )
    if config.train.batch_size % config.train.microbatches:
        raise UserError(
            f"config.train.batch_size = {config.train.batch_size} is not divisible by "
            f"config.train.microbatches = {config.train.microbatches}."
        )
    check_metrics(config)
    cut = config.data.split
    for name in ("validation", "test"):
        if cut[name] and config.data[name]:
            raise UserError(
                f"config.data.split.{name} = {cut[name]} would cut the set from the training rows, "
                f"but config.data.{name} = {config.data[name]!r} gives it. Set one of them."
            )
    if not cut.validation + cut.test < 1:
        raise UserError(
            f"config.data.split: validation {cut.validation} and test {cut.test} leave no row to "
            "train on. Their sum must be below 1."
        )
    _check_selection(config)
    _check_judge(config.judge)
    if not config.mine.low < config.mine.high:
        raise UserError(
            f"config.mine.low = {config.mine.low}: expected below config.mine.high = "
            f"{config.mine.high}."
        )


def _check_selection(config: ConfigDict) -> None:
    select, always = config.train.select, ["loss", "token_accuracy"]
    generated = [name.rpartition(":")[2].strip() for name in config.eval.metrics.split(",")]
    generated += RANKED if config.eval.labels else ()
    if select in RANKED and not config.eval.labels:
        raise UserError(
            f"config.train.select = {select!r} needs config.eval.labels, the labels to rank, or "
            "expected for all answers of the data."
        )
    if select in always:
        return
    if select not in generated:
        known = [*always, *generated]
        raise UserError(
            f"config.train.select = {select!r}: expected loss, token_accuracy or one of "
            f"config.eval.metrics = {config.eval.metrics!r}.{nearest(select, known)}"
        )
    if not config.eval.during_training:
        raise UserError(
            f"config.train.select = {select!r} needs generated answers at each validation: set "
            "config.eval.during_training to a number of prompts."
        )


def check_metrics(config: ConfigDict) -> None:
    """Names of metrics, and what they need; ``FILE.py:NAME`` is a metric of the user's own."""
    given = config.eval.metrics
    entries = [entry.strip() for entry in given.split(",")]
    names = []
    for entry in entries:
        file, colon, name = entry.rpartition(":")
        if entry not in METRICS and not (file.endswith(".py") and name.isidentifier()):
            hint = "" if colon else nearest(entry, [*METRICS])
            raise UserError(
                f"config.eval.metrics = {given!r}: {entry!r} is neither FILE.py:NAME nor one of "
                f"{', '.join(METRICS)}.{hint}"
            )
        if name in names or (colon and name in _TAKEN):
            raise UserError(
                f"config.eval.metrics = {given!r}: two results would be called {name!r}. Leave one "
                "out, or rename your own."
            )
        names.append(name)
    if "regex_match" in names and not config.eval.pattern:
        raise UserError(
            "config.eval.metrics: regex_match needs config.eval.pattern, a regular expression."
        )
    labels = [label.strip() for label in strings(config.eval.labels)]
    distinct = {label for label in labels if label}
    if labels and labels != ["expected"] and len(distinct) < max(2, len(labels)):
        raise UserError(
            f"config.eval.labels = {config.eval.labels!r}: expected two or more different labels, "
            "or expected for all answers of the data."
        )
    if config.eval.resamples < _FEWEST:
        raise UserError(
            f"config.eval.resamples = {config.eval.resamples}: expected {_FEWEST} or more."
        )


def _check_judge(judge: ConfigDict) -> None:
    if not 0 < judge.high - judge.low <= 20:
        raise UserError(
            f"config.judge.high = {judge.high}: expected 1 to 20 above config.judge.low = "
            f"{judge.low}."
        )
    if judge.backend == "local" and judge.temperature < 0:
        raise UserError(
            f"config.judge.temperature = {judge.temperature}: config.judge.backend = 'local' needs "
            "0 or more."
        )
