"""Every knob, declared once. A file in ``configs/`` is a diff of ``default()``.

    from sft.config import default
    def get_config():
        config = default()
        config.optim.learning_rate = 1e-3
        return config
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterator

import ml_collections
from ml_collections import ConfigDict

from sft.errors import UserError


def default() -> ConfigDict:
    """The complete configuration with its default values, locked against unknown keys."""
    c = ConfigDict()
    c.seed = 0  # data order, adapter initialisation, dropout

    c.model = ConfigDict()
    c.model.name = "gemma3_270m"  # a row of sft/model/specs.py
    c.model.weights = ""  # .gguf file, Orbax directory, safetensors file or directory, package:NAME
    c.model.sha256 = ""  # expected digest of a weights file; "" = not checked
    c.model.tokenizer = ""  # SentencePiece .model; "" = from the weights (GGUF or beside them)
    c.model.dtype = "bfloat16"  # of base weights and activations: bfloat16 | float32
    c.model.remat = "layer"  # computed again in the backward pass: layer | projections | none

    c.lora = ConfigDict()
    c.lora.rank = 8  # 0 = full tuning
    c.lora.alpha = 8.0  # update is scaled by alpha / rank
    c.lora.rslora = False  # scale by alpha / sqrt(rank) instead
    c.lora.targets = "q|k|v|o|gate|up|down"  # regex, whole match on projection names
    c.lora.dropout = 0.0  # probability, on the input of the adapters

    c.data = ConfigDict()
    c.data.train = ""  # JSONL path, or several joined by commas
    c.data.validation = ""  # the set that chooses the epoch; never touched by training knobs
    c.data.test = ""  # the set that is reported
    c.data.max_length = 512  # tokens per row in training
    c.data.eval_max_length = 512  # tokens per row in validation
    c.data.pack = True  # several examples in a training row, kept apart by segments

    c.optim = ConfigDict()
    c.optim.learning_rate = 2e-4  # peak
    c.optim.schedule = "cosine"  # constant | linear | cosine, after the warm-up
    c.optim.warmup = 0.03  # share of all steps
    c.optim.final_scale = 0.0  # learning rate at the end, as a share of the peak
    c.optim.b1 = 0.9  # AdamW
    c.optim.b2 = 0.999  # AdamW
    c.optim.eps = 1e-8  # AdamW
    c.optim.weight_decay = 0.0  # AdamW, decoupled
    c.optim.clip_norm = 1.0  # global gradient norm; 0 = no clipping

    c.train = ConfigDict()
    c.train.epochs = 3  # passes over the training set
    c.train.batch_size = 16  # rows per optimiser step, over all devices
    c.train.microbatches = 1  # gradient accumulation: the batch is cut into this many parts
    c.train.log_every = 1  # steps between lines of metrics.jsonl
    c.train.save_every = 0  # steps between recovery checkpoints; 0 = at epoch ends only
    c.train.keep_latest = 2  # newest checkpoints kept, for resuming
    c.train.keep_best = 1  # checkpoints kept by lowest validation loss, for use

    c.loss = ConfigDict()
    c.loss.chunk = 512  # target positions whose logits exist at a time, per device

    c.eval = ConfigDict()
    c.eval.batch_size = 32  # rows (validation loss) or prompts (generation) at a time
    c.eval.max_new_tokens = 32  # cap on a generated answer
    c.eval.temperature = 0.0  # 0 = greedy
    c.eval.top_k = 0  # 0 = all
    c.eval.top_p = 1.0  # 1 = all
    c.eval.max_examples = 0  # prompts generated from, first ones in file order; 0 = all

    c.mesh = ConfigDict()
    c.mesh.platform = ""  # cpu | gpu | tpu: refuse to run elsewhere; "" = whatever JAX finds
    c.mesh.data = -1  # devices along the batch; -1 = all that are left
    c.mesh.fsdp = 1  # devices that also share the weights
    c.mesh.tensor = 1  # devices that share heads and hidden units
    return c.lock()


_CHOICES = {
    "model.dtype": ("bfloat16", "float32"),
    "model.remat": ("layer", "projections", "none"),
    "optim.schedule": ("constant", "linear", "cosine"),
    "mesh.platform": ("", "cpu", "gpu", "tpu"),
}
_POSITIVE = (
    "lora.alpha data.max_length data.eval_max_length optim.learning_rate optim.eps train.epochs "
    "train.batch_size train.microbatches train.log_every train.keep_latest train.keep_best "
    "loss.chunk eval.batch_size eval.max_new_tokens mesh.fsdp mesh.tensor"
).split()
_NOT_NEGATIVE = (
    "seed lora.rank optim.weight_decay optim.clip_norm train.save_every eval.temperature "
    "eval.top_k eval.max_examples"
).split()
_SHARES = ("lora.dropout", "optim.warmup", "optim.final_scale", "optim.b1", "optim.b2", "eval.top_p")


def flatten(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yields ``("optim.learning_rate", 2e-4)``-like pairs in declaration order."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def nearest(key: str, known: list[str] | None = None) -> str:
    """``" Did you mean 'optim.learning_rate'?"``, or ``""`` when nothing is near."""
    known = known or [name for name, _ in flatten(default())]
    leaf = key.rsplit(".", 1)[-1]
    leaves = {name.rsplit(".", 1)[-1]: name for name in known}
    initials = {"".join(word[0] for word in name.split("_")): name for name in leaves}
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    # The leaf may be right and its group wrong or missing, or shortened as in "lr".
    near = near or [leaves[n] for n in difflib.get_close_matches(leaf, leaves, n=1)]
    near = near or ([leaves[initials[leaf]]] if leaf in initials else [])
    near = near or difflib.get_close_matches(key, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def validate(config: ConfigDict) -> None:
    """Checks names, types and ranges, before any device work.

    Raises:
      UserError: naming the key, its value, and what was expected.
    """
    expected = dict(flatten(default()))
    given = dict(flatten(config))
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
    for key, choices in _CHOICES.items():
        if given[key] not in choices:
            hint = nearest(str(given[key]), [c for c in choices if c])
            raise UserError(f"config.{key} = {given[key]!r}: expected one of {choices}.{hint}")
    for key in _POSITIVE:
        if not given[key] > 0:
            raise UserError(f"config.{key} = {given[key]!r}: expected a number above 0.")
    for key in _NOT_NEGATIVE:
        if not given[key] >= 0:
            raise UserError(f"config.{key} = {given[key]!r}: expected 0 or more.")
    for key in _SHARES:
        if not 0 <= given[key] <= 1:
            raise UserError(f"config.{key} = {given[key]!r}: expected a number from 0 to 1.")
    try:
        re.compile(config.lora.targets)
    except re.error as error:
        raise UserError(f"config.lora.targets = {config.lora.targets!r}: {error}.") from None
    if config.train.batch_size % config.train.microbatches:
        raise UserError(
            f"config.train.batch_size = {config.train.batch_size} is not divisible by "
            f"config.train.microbatches = {config.train.microbatches}."
        )


def fingerprint(config: ConfigDict) -> str:
    """Twelve hex digits that change when any value does."""
    text = json.dumps(dict(flatten(config)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def difference(ours: dict, theirs: dict) -> list[str]:
    """One line per key whose value differs between two flattened configs."""
    keys = list(ours) + [k for k in theirs if k not in ours]
    return [
        f"{key}: {theirs.get(key)!r} there, {ours.get(key)!r} here"
        for key in keys
        if ours.get(key) != theirs.get(key)
    ]


def from_dict(values: dict) -> ConfigDict:
    """The inverse of ``dict(flatten(config))``, on top of the defaults."""
    config = default()
    with config.unlocked():
        config.update_from_flattened_dict(values)
    return ml_collections.ConfigDict(config).lock()
