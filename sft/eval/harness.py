"""Scores one model on one set: exact match on generated answers, loss, token accuracy."""

import dataclasses
import json
import resource
import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft import sets
from sft.data.tokenizer import Tokenizer
from sft.eval import stats
from sft.eval.metrics.match import is_exact as exact_match
from sft.model import generate
from sft.model.specs import Spec
from sft.train import log, loop
from sft.train.steps import Steps
from sft.types import Tree
from sft.workdir import write_text


@dataclasses.dataclass(frozen=True)
class Model:
    """What is evaluated: compiled functions, a tokenizer, and the two parameter trees."""

    spec: Spec
    steps: Steps
    tokenizer: Tokenizer
    trainable: Tree
    frozen: Tree


def answer(model: Model, config: ConfigDict, prompts: list) -> list[str]:
    """Generated answers to tokenised prompts, in order."""
    tok = model.tokenizer
    sampling = generate.Sampling(
        max_new_tokens=config.eval.max_new_tokens,
        stop_ids=(tok.end_of_turn_id, tok.eos_id),
        temperature=config.eval.temperature,
        top_k=config.eval.top_k,
        top_p=config.eval.top_p,
    )
    params, adapters = model.steps.model(model.trainable, model.frozen)
    bar = log.progress(len(prompts), "generate", "prompt")
    ids = generate.generate(
        model.spec,
        dataclasses.replace(model.steps.options, remat="none"),
        sampling,
        params,
        adapters,
        prompts,
        batch_size=min(config.eval.batch_size, len(prompts)),
        seed=config.seed,
        on_batch=bar.update,
    )
    bar.close()
    # The embedding table may have rows beyond the last piece; a poor model can choose one.
    return [tok.decode(i for i in row if i < tok.vocab_size) for row in ids]


def score(model: Model, config: ConfigDict, split: sets.Split) -> tuple[dict[str, Any], list[dict]]:
    """The numbers of one set, and one row per prediction."""
    begun = time.perf_counter()
    count = config.eval.max_examples or len(split.conversations)
    conversations = split.conversations[:count]
    prompts = sets.prompts(config, model.spec, model.tokenizer, conversations)
    rows: list[dict[str, Any]] = [
        {
            "source": conversation.source,
            "prompt": conversation.turns[-2].text,
            "expected": conversation.turns[-1].text,
            "predicted": predicted,
            "correct": exact_match(predicted, conversation.turns[-1].text),
        }
        for conversation, predicted in zip(
            conversations, answer(model, config, prompts), strict=True
        )
    ]
    values = loop.validate(config, model.steps, model.trainable, model.frozen, split.examples)
    correct = sum(row["correct"] for row in rows)
    result = {
        "count": len(rows),
        "correct": correct,
        "exact_match": correct / len(rows),
        "exact_match_interval": list(stats.wilson(correct, len(rows))),
        "loss": values["loss"],
        "token_accuracy": values["token_accuracy"],
        "seconds": time.perf_counter() - begun,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    return result, rows


def write_predictions(path: Path, rows: list[dict]) -> None:
    """One JSON object a line; the whole file or nothing."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
