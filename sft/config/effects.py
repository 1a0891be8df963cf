"""What each setting can change, one entry a setting; a new one is added here too (a test says so).

Whether a run may go on with another value, whether a score must be made again and what makes a
fingerprint are questions to this table.
"""

from collections.abc import Iterable, Mapping
from typing import Any

SOURCES = "data.sources."  # the one group whose keys are the user's

TRAINING = "training"  # what is learnt
CHOICE = "choice"  # the validations that are compared, and what is chosen by them
GENERATION = "generation"  # generated answers and their metrics
VALIDATION = "validation"  # generated answers at validations alone
SCORES = "scores"  # other numbers of an evaluation
LIMIT = "limit"  # only whether something is refused
PLACE = "place"  # where, when and how fast something is computed
OTHER = "other"  # another command than train and eval

_SETTINGS = {
    TRAINING: """
        seed
        model.name model.weights model.tokenizer model.dtype
        lora.rank lora.alpha lora.rslora lora.plus lora.dora lora.start lora.targets lora.dropout
        data.train data.reading.container data.reading.prompt data.reading.response
        data.reading.system data.reading.group data.reading.group_regex data.reading.category
        data.reading.instruction data.reading.template data.reading.repair data.reading.weight
        data.reading.history
        data.split.validation data.split.test data.split.seed data.split.stratify
        data.chat data.train_on
        data.dedup.exact data.dedup.case data.dedup.punctuation data.dedup.responses_per_prompt
        data.dedup.near data.dedup.embeddings data.dedup.cosine data.dedup.substring
        data.dedup.scope data.dedup.keep data.dedup.max_copies data.dedup.action
        data.dedup.drop_share data.dedup.min_trained data.dedup.template_share
        data.dedup.template_rows
        data.leakage.action data.max_length data.over_long data.pack
        data.augment.copies data.augment.casing data.augment.whitespace data.augment.punctuation
        data.augment.templates
        optim.learning_rate optim.schedule optim.warmup optim.final_scale optim.b1 optim.b2
        optim.eps optim.weight_decay optim.clip_norm
        train.epochs train.batch_size train.microbatches loss.prompt_weight
        """,
    CHOICE: """
        data.validation data.eval_on train.validate_every train.select train.patience
        """,
    GENERATION: """
        eval.max_new_tokens eval.temperature eval.top_k eval.top_p eval.metrics eval.language
        eval.pattern eval.tolerance eval.stop eval.compare eval.labels
        """,
    VALIDATION: """
        eval.during_training
        """,
    SCORES: """
        data.test eval.max_examples eval.resamples eval.shots eval.shots_max_length
        """,
    LIMIT: """
        model.sha256 data.max_rejected data.max_over_long data.leakage.max_share
        data.eval_max_length mesh.platform mesh.timeout
        """,
    PLACE: """
        model.attention model.remat data.workers data.cache
        data.dedup.engine data.dedup.memory data.dedup.beam
        train.log_every train.save_every train.compilation_cache train.keep_latest train.keep_best
        loss.chunk eval.batch_size eval.cache
        mesh.data mesh.fsdp mesh.sequence mesh.tensor mesh.slices
        """,
    OTHER: """
        data.production train.baseline eval.suites
        mine.select mine.share mine.low mine.high mine.per_category mine.evaluate mine.exact_match
        judge.mode judge.against judge.template judge.rubric judge.reference judge.low judge.high
        judge.backend judge.model judge.weights judge.tokenizer judge.url judge.key_variable
        judge.max_new_tokens judge.temperature judge.retries judge.concurrency judge.attempts
        judge.max_wait judge.timeout judge.price_in judge.price_out judge.max_examples
        judge.sample judge.seed judge.agreement
        """,
}
EFFECTS = {key: effect for effect, keys in _SETTINGS.items() for key in keys.split()}

# Settings that came later, with the value that runs without them are taken to have. At that value
# they are in no fingerprint, so that a new setting makes no old result another one.
LATER: dict[str, Any] = {
    "lora.start": "",
    "data.dedup.template_rows": 10,
    "data.reading.history": "",
    "eval.stop": "",
    "eval.compare": "whole",
    "eval.labels": "",
}

_LIKELIHOODS = ("loss", "token_accuracy")  # what train.select can be without generated answers


def effect(key: str) -> str:
    """What the setting can change; a key of ``data.sources`` is as one of ``data.reading``."""
    return TRAINING if key.startswith(SOURCES) else EFFECTS.get(key, TRAINING)


def locked(keys: Iterable[str], config: Mapping[str, Any], only_scores: bool = False) -> list[str]:
    """Those of the settings that a run with results may not go on with another value of.

    Args:
      keys: of settings whose value is another one.
      config: of the run, flattened.
      only_scores: whether nothing is trained or chosen any more, so that the values that choices
        were made by may differ.
    """
    generates = config.get("train.select", "loss") not in _LIKELIHOODS
    kept = {TRAINING, CHOICE} | ({GENERATION, VALIDATION} if generates else set())
    kept = {TRAINING} if only_scores else kept
    read = [part.strip() for name in ("train", "validation")
            for part in str(config.get(f"data.{name}", "")).split(",")]  # fmt: skip
    return [
        key
        for key in keys
        if (_source(key) in read if key.startswith(SOURCES) else effect(key) in kept)
    ]


def select(values: Mapping[str, Any], *effects: str) -> dict[str, Any]:
    """The settings of a flattened configuration that have one of these effects."""
    return {key: value for key, value in values.items() if effect(key) in effects}


def counted(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as they count in a fingerprint: without those of ``LATER`` at their value."""
    return {
        key: value for key, value in values.items() if not (key in LATER and LATER[key] == value)
    }


def _source(key: str) -> str:
    return key.removeprefix(SOURCES).partition(".")[0]
