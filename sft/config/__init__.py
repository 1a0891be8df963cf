"""Every knob, declared once. A file in ``configs/`` is a diff of ``default()``.

from sft.config import default
def get_config():
    config = default()
    config.optim.learning_rate = 1e-3
    return config
"""

import hashlib
import json
import re
import runpy
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft.config import text as config_text
from sft.config.effects import SOURCES as SOURCES
from sft.config.effects import counted
from sft.errors import UserError

_DEFAULT = {
    "seed": 0,  # data order, adapter initialisation, dropout
    "model": {
        "name": "",  # a row of sft/model/specs.py; "" = found from the weights
        "weights": "",  # .gguf file, Orbax directory, safetensors file or directory, package:NAME
        "sha256": "",  # expected digest of a weights file; "" = not checked
        "tokenizer": "",  # tokenizer.model or .json; "" = from the weights (GGUF or beside them)
        "dtype": "bfloat16",  # of frozen weights and activations: bfloat16 | float32
        "attention": "",  # reference | splash (TPU) | cudnn (GPU); "" = by platform
        "remat": "layer",  # what the backward pass does again: none | projections | layer | host
    },
    "lora": {
        "rank": 8,  # 0 = full tuning
        "alpha": 8.0,  # update is scaled by alpha / rank
        "rslora": False,  # scale by alpha / sqrt(rank) instead
        "plus": 1.0,  # LoRA+: learning rate of B over optim.learning_rate, usually 16; 1 = off
        "dora": False,  # DoRA: magnitudes of the columns are tuned beside A and B
        "start": "",  # directory of a PEFT adapter to go on with; "" = new ones, which do nothing
        "targets": "q|k|v|o|gate|up|down",  # regex, whole match; PEFT's names too, as q_proj
        "dropout": 0.0,  # probability, on the input of the adapters
    },
    "data": {
        # Sets: files, or names of data.sources, joined by commas. Files may be globs and gs://.
        "train": "",
        "validation": "",  # the set that chooses the epoch; never touched by training knobs
        "test": "",  # the set that is reported
        "production": "",  # prompts as they come in production, for the audit to compare with
        "reading": {  # how rows become conversations
            "container": "",  # jsonl, json, csv, tsv, parquet, arrow, arrayrecord; "" = by ending
            "prompt": "input_text",  # column of the prompt, in rows that are not conversations
            "response": "output_text",  # column of the answer
            "system": "",  # column of the system instruction; "" = none
            "history": "",  # column of earlier exchanges, [[question, answer], …]; "" = none
            "group": "",  # column of the key by which rows stay in one split; "" = each for itself
            "group_regex": "",  # its first group, matched against that column, is the key
            "category": "",  # column of the category, for stratified splits and the audit
            "instruction": "",  # system instruction of rows without one
            "template": "",  # instruction around the first prompt, as in "Translate: {prompt}"
            "repair": "",  # leading_model, trailing_user, drop_thoughts: what is dropped of a row
            "weight": 1.0,  # passes over the rows in an epoch of training
        },
        "sources": {},  # name: {"path": …, and what differs from data.reading}
        "max_rejected": 0.01,  # share of unusable rows above which reading is an error
        "split": {  # cut from the training rows, whole groups at a time
            "validation": 0.0,  # share; 0 = data.validation is given, or there is none
            "test": 0.0,  # share
            "seed": 0,
            "stratify": "",  # category | origin: the same share of each; "" = of all rows
        },
        "chat": "",  # format of the turns, a name in sft/data/chat/encoding.py; "" = the model's
        "train_on": "all",  # all | last: which answers of a conversation are trained
        "eval_on": "all",  # all | last: which count in the loss of validation and test
        "dedup": {  # of the training rows; evaluation sets are never changed
            "exact": True,  # rows that say the same as an earlier one are dropped
            "case": False,  # ... also where only upper and lower case differ
            "punctuation": False,  # ... also where only punctuation differs
            "responses_per_prompt": 0,  # different answers kept of one prompt; 0 = all
            "near": 0.0,  # Jaccard similarity of near-duplicates, usually 0.8; 0 = off
            "embeddings": "",  # .npy of a vector for each row of data.train's files; "" = none
            "cosine": 0.95,  # similarity of embeddings from which rows are duplicates
            "substring": 0,  # tokens of a repeated stretch of answers, usually 50; 0 = off
            "engine": "hash",  # hash (least memory) | suffix_array | beam; the result is the same
            "memory": 2**30,  # bytes that the hash engine may use
            "beam": "",  # "--runner=DataflowRunner --project=…": engine beam; "" = this machine
            "scope": "group",  # group | record: what an earlier copy must be outside of
            "keep": "first",  # first | none: whether one copy stays
            "max_copies": 1,  # copies that stay, in the order of the rows
            "action": "mask",  # mask | cut | drop | report: what is done to repeated stretches
            "drop_share": 0.8,  # share of masked tokens from which the row is dropped
            "min_trained": 8,  # trained tokens below which a masked row is dropped
            "template_share": 0.05,  # share of a source's rows from which a stretch is a form
            "template_rows": 10,  # ... and the fewest rows that make one; fewer are copies
        },
        "leakage": {  # rows of validation and test that training gives away
            "action": "report",  # report | drop the training row | error above max_share
            "max_share": 0.0,  # share of an evaluated set that may be given away
        },
        "max_length": 512,  # tokens per row in training
        "eval_max_length": 512,  # tokens per row in validation
        "over_long": "error",  # error | drop | truncate_prompt_left | truncate_response
        "max_over_long": 0.01,  # error: share of longer rows that are dropped rather than refused
        "pack": True,  # several examples in a training row, kept apart by segments
        "augment": {  # of the training prompts; answers are never changed
            "copies": 0,  # changed copies of each row, beside the row itself
            "casing": 0.0,  # probability in a copy: all lower, all upper or title case
            "whitespace": 0.0,  # probability: some spaces doubled, or one made a line break
            "punctuation": 0.0,  # probability: closing punctuation dropped or added
            "templates": "",  # file of instructions with {prompt}, one a line, drawn for a copy
        },
        "workers": 0,  # processes that tokenise and read ahead; 0 = threads of this one
        "cache": "~/.cache/gemma-sft",  # directory of tokenised sets, by content; "" = none
    },
    "optim": {
        "learning_rate": 2e-4,  # peak
        "schedule": "cosine",  # constant | linear | cosine, after the warm-up
        "warmup": 0.03,  # share of all steps
        "final_scale": 0.0,  # learning rate at the end, as a share of the peak
        "b1": 0.9,  # AdamW
        "b2": 0.999,  # AdamW
        "eps": 1e-8,  # AdamW
        "weight_decay": 0.0,  # AdamW, decoupled
        "clip_norm": 1.0,  # global gradient norm; 0 = no clipping
    },
    "train": {
        "epochs": 3,  # passes over the training set
        "batch_size": 16,  # rows per optimiser step, over all devices
        "microbatches": 1,  # gradient accumulation: the batch is cut into this many parts
        "baseline": True,  # before the first step, score the base model on the test set
        "log_every": 1,  # steps between lines of metrics.jsonl
        "validate_every": 0,  # steps between validations; 0 = at epoch ends only
        "select": "loss",  # chooses: loss | token_accuracy | one of eval.metrics or ranked labels
        "patience": 0,  # validations in a row without a better one that end the run; 0 = never
        "save_every": 0,  # steps between recovery checkpoints; 0 = at epoch ends only
        "compilation_cache": "~/.cache/gemma-sft/xla",  # directory, also gs://…; "" = none
        "keep_latest": 2,  # newest checkpoints kept, for resuming
        "keep_best": 1,  # checkpoints kept by train.select, for use
    },
    "loss": {
        "chunk": 512,  # trained positions whose logits exist at a time, per device
        "prompt_weight": 0.0,  # weight of a prompt's tokens in training; an answer's weigh 1
    },
    "eval": {
        "batch_size": 32,  # rows (validation loss) or prompts (generation) at a time
        "max_new_tokens": 32,  # cap on a generated answer, its end of turn included
        "stop": "",  # texts that end an answer, joined by commas; \n is a line break, \, a comma
        "temperature": 0.0,  # 0 = greedy
        "top_k": 0,  # 0 = all
        "top_p": 1.0,  # 1 = all
        "max_examples": 0,  # prompts generated from, first ones in file order; 0 = all
        "metrics": "exact_match",  # names of sft/eval/metrics or FILE.py:NAME, joined by commas
        "compare": "whole",  # whole | first_line: what of both answers these metrics look at
        "labels": "",  # ranked by likelihood: texts as in stop, or expected = the data's; "" = off
        "language": "",  # of answers: en | ja | zh | ko | th | …; other = spaced; "" = by script
        "pattern": "",  # regex_match: what to find; its first group, if any, is what is compared
        "tolerance": 0.0,  # numeric_match: allowed difference, as a share of the expected number
        "resamples": 2000,  # of the rows, for intervals and paired tests
        "during_training": 0,  # prompts of validation answered at each validation; 0 = none
        "cache": "~/.cache/gemma-sft/eval",  # directory of the base model's scores; "" = none
        "shots": 0,  # training rows put before each prompt as examples; 0 = none
        "shots_max_length": 2048,  # tokens of a prompt with them; above, it gets fewer
        "suites": "",  # files of behaviour suites, joined by commas; see sft/eval/suites/read.py
    },
    "mine": {
        "select": "hardest",  # hardest | band: which training rows make the subset
        "share": 0.2,  # hardest: share of the rows
        "low": 0.0,  # band: from this quantile of the loss
        "high": 1.0,  # band: to this one
        "per_category": False,  # of each category rather than of all rows together
        "evaluate": 0.1,  # share of the chosen groups kept for evaluation, not for training
        "exact_match": False,  # generate too, and rank wrong answers first: slower
    },
    "judge": {  # of sft eval judge, rate and calibrate
        "mode": "pointwise",  # pointwise: a score for each answer | pairwise: against another arm
        "against": "base",  # the other arm: compared with in pairwise mode, mixed in for people
        "template": "",  # jinja2 file of the prompt; "" = the mode's in sft/eval/judge/templates
        "rubric": "",  # text file: what is looked at; "" = the mode's, beside it
        "reference": True,  # the judge, and people, see the expected answer
        "low": 1,  # worst score
        "high": 5,  # best score
        "backend": "local",  # local: a checkpoint loaded here | openai: such an endpoint | gemini
        "model": "",  # local: a row of sft/model/specs.py, "" = its weights'; else its name
        "weights": "",  # local: as model.weights; "" = those
        "tokenizer": "",  # local: as model.tokenizer, with judge.weights
        "url": "",  # base URL of the endpoint; "" = the service's own
        "key_variable": "",  # environment variable with the key; "" = OPENAI_ or GEMINI_API_KEY
        "max_new_tokens": 512,  # cap on a reply; a model that thinks needs more
        "temperature": 0.0,  # 0 = greedy; -1 = the endpoint's own
        "retries": 2,  # times that a reply without a usable verdict is asked for again
        "concurrency": 8,  # requests under way at a time
        "attempts": 6,  # requests for one reply while the endpoint is busy or down
        "max_wait": 60.0,  # seconds between two of these at most
        "timeout": 120.0,  # seconds to wait for a reply
        "price_in": 0.0,  # of a million tokens, in any currency
        "price_out": 0.0,  # of a million tokens
        "max_examples": 0,  # rows judged of each set, drawn by seed; 0 = all
        "sample": 50,  # of these, rows that people rate of each arm and set
        "seed": 0,  # of both draws, of the order on the page, and of a local judge
        "agreement": 0.4,  # lower bound of weighted kappa with people, below which a judge is unfit
    },
    "mesh": {
        "platform": "",  # cpu | gpu | tpu: refuse to run elsewhere; "" = whatever JAX finds
        "data": -1,  # devices along the batch; -1 = all that are left
        "fsdp": 1,  # devices along the batch that also share the weights
        "sequence": 1,  # devices along the positions of a row, for long ones; share the weights too
        "tensor": 1,  # devices that share heads, hidden units and the vocabulary
        "slices": 0,  # TPU slices joined by a slower network, along data; 0 = as many as there are
        "timeout": 300,  # seconds in which all hosts of a run must have started
    },
}


def default() -> ConfigDict:
    """The complete configuration with its default values, locked against unknown keys."""
    return ConfigDict(_DEFAULT).lock()


def load(path: str) -> ConfigDict:
    """What ``get_config()`` of a Python file returns.

    Raises:
      UserError: no such file, or it cannot be run; names the line.
    """
    try:
        config = runpy.run_path(path)["get_config"]()
    except SyntaxError as error:
        raise UserError(f"{error.filename}:{error.lineno}: {error.msg}.") from None
    except Exception as error:  # the file is Python: it can raise anything
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
        if not frames and not Path(path).is_file():
            raise UserError(f"--config={path}: no such file.") from None
        if not frames:
            raise UserError(f"{path}: no get_config() in it. Copy a file of configs/.") from None
        # ml_collections lists every key of the group before it names the nearest.
        text = re.sub(r' Other fields present: ".*?\}"', "", str(error), flags=re.DOTALL)
        text = text[1:-1] if text[:1] == text[-1:] == "'" else text  # as KeyError shows it
        text = " ".join(text.replace("\\n", " ").replace("\\'", "'").split())
        raise UserError(f"{path}:{frames[-1].lineno}: {type(error).__name__}: {text}") from None
    if not isinstance(config, ConfigDict):
        kind = type(config).__name__
        raise UserError(f"{path}: get_config() returned {kind}, expected a sft.config.default().")
    return config


def flatten(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields ``("optim.learning_rate", 2e-4)``-like pairs in declaration order."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def nearest(key: str, known: list[str] | None = None) -> str:
    """``" Did you mean 'optim.learning_rate'?"``, or ``""`` when nothing is near."""
    return config_text.nearest(key, known or [name for name, _ in flatten(default())])


def fingerprint(config: ConfigDict) -> str:
    """Twelve hex digits that change when any value does, and when a setting is added do not."""
    text = json.dumps(counted(dict(flatten(config))), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def difference(ours: dict, theirs: dict) -> dict[str, str]:
    """``{key: "KEY: 1 there, 2 here"}`` where two flattened configurations differ, ``theirs`` an
    older one.

    A setting that ``theirs`` lacks was added since. Its default is what the code did before.
    """
    theirs = {k: v for k, v in flatten(default()) if k in ours} | theirs
    if not theirs.get("model.name"):  # left open: decided by the weights, which are compared too
        theirs["model.name"] = ours.get("model.name")
    keys = list(ours) + [k for k in theirs if k not in ours]
    return {
        key: f"{key}: {theirs.get(key)!r} there, {ours.get(key)!r} here"
        for key in keys
        if ours.get(key) != theirs.get(key)
    }


def from_dict(values: dict) -> ConfigDict:
    """The inverse of ``dict(flatten(config))``, on top of the defaults."""
    config = default()
    sources: dict[str, dict] = {}
    for key, value in values.items():
        if key.startswith(SOURCES):
            name, _, leaf = key.removeprefix(SOURCES).partition(".")
            sources.setdefault(name, {})[leaf] = value
    config.data.sources = sources
    with config.unlocked():
        config.update_from_flattened_dict(values)
    return config
