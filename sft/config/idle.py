"""Settings that were changed and change nothing, because of another one: said, not ignored."""

from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from sft.config import default, flatten


class _Rule(NamedTuple):
    """``keys`` do something only where ``works``; ``why`` says what stands in their way."""

    keys: str
    works: Callable[[ConfigDict], bool]
    why: str


def _has_metric(*names: str) -> Callable[[ConfigDict], bool]:
    """Whether one of the metrics is asked for, or one of the user's own, which may do anything."""
    return lambda config: any(
        ":" in entry or entry.strip().startswith(names) for entry in config.eval.metrics.split(",")
    )


_RULES = (
    _Rule(
        "optim.final_scale",
        lambda c: c.optim.schedule != "constant",
        "optim.schedule = 'constant' keeps the learning rate",
    ),
    _Rule(
        "lora.alpha lora.rslora lora.targets lora.dropout",
        lambda c: c.lora.rank > 0,
        "lora.rank = 0 tunes the weights themselves, without adapters",
    ),
    _Rule(
        "eval.top_k eval.top_p",
        lambda c: c.eval.temperature > 0,
        "eval.temperature = 0 takes the most likely token",
    ),
    _Rule("eval.pattern", _has_metric("regex_match"), "eval.metrics has no regex_match"),
    _Rule("eval.tolerance", _has_metric("numeric_match"), "eval.metrics has no numeric_match"),
    _Rule(
        "eval.language",
        _has_metric("bleu", "rouge", "token_f1"),
        "eval.metrics has none that counts words",
    ),
    _Rule("eval.shots_max_length", lambda c: c.eval.shots > 0, "eval.shots = 0"),
    _Rule(
        "data.dedup.scope data.dedup.keep data.dedup.max_copies data.dedup.action "
        "data.dedup.drop_share data.dedup.min_trained data.dedup.engine",
        lambda c: c.data.dedup.substring > 0,
        "data.dedup.substring = 0 looks for no repeated stretches",
    ),
    _Rule(
        "data.dedup.beam",
        lambda c: c.data.dedup.substring > 0 and c.data.dedup.engine == "beam",
        "it is for data.dedup.substring with data.dedup.engine = 'beam'",
    ),
    _Rule(
        "data.dedup.cosine", lambda c: bool(c.data.dedup.embeddings), "data.dedup.embeddings = ''"
    ),
    _Rule(
        "data.leakage.max_share",
        lambda c: c.data.leakage.action == "error",
        "it is for data.leakage.action = 'error'",
    ),
    _Rule(
        "data.max_over_long",
        lambda c: c.data.over_long == "error",
        "it is for data.over_long = 'error'",
    ),
    _Rule(
        "data.augment.casing data.augment.whitespace data.augment.punctuation "
        "data.augment.templates",
        lambda c: c.data.augment.copies > 0,
        "data.augment.copies = 0",
    ),
    _Rule(
        "data.augment.copies",
        lambda c: any(value for key, value in c.data.augment.items() if key != "copies"),
        "no setting of data.augment says how a copy differs",
    ),
    _Rule(
        "data.split.seed data.split.stratify",
        lambda c: c.data.split.validation + c.data.split.test > 0,
        "nothing is cut from the training rows (data.split.validation, data.split.test)",
    ),
    _Rule("mine.share", lambda c: c.mine.select == "hardest", "mine.select = 'band'"),
    _Rule("mine.low mine.high", lambda c: c.mine.select == "band", "mine.select = 'hardest'"),
    _Rule(
        "judge.weights judge.tokenizer",
        lambda c: c.judge.backend == "local",
        "they are for judge.backend = 'local'",
    ),
    _Rule(
        "judge.url judge.key_variable judge.concurrency judge.attempts judge.max_wait "
        "judge.timeout judge.price_in judge.price_out",
        lambda c: c.judge.backend != "local",
        "judge.backend = 'local' asks no endpoint",
    ),
)


def lines(config: ConfigDict) -> list[str]:
    """A sentence for each setting that is not at its default and yet changes nothing."""
    ours, usual = dict(flatten(config)), dict(flatten(default()))
    return [
        f"config.{key} = {ours[key]!r} changes nothing: {rule.why}."
        for rule in _RULES
        for key in rule.keys.split()
        if ours[key] != usual[key] and not rule.works(config)
    ]
