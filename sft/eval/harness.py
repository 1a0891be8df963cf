"""Scores one model on one set: exact match on generated answers, loss, token accuracy."""

import dataclasses
import json
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft import sets
from sft.data.conversation import Conversation
from sft.data.examples import Examples
from sft.data.tokenizer import Tokenizer
from sft.eval import metrics, scores, stats
from sft.eval.metrics.match import is_exact as exact_match
from sft.eval.shots import Shots
from sft.model import generate
from sft.model.specs import Spec
from sft.progress import Progress
from sft.train import validation
from sft.train.steps import Steps
from sft.types import Tree
from sft.workdir import write_text

PutShots = Callable[[Sequence[Conversation]], Shots]  # examples in front of each prompt


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
    with Progress(len(prompts), "generating answers", "prompt") as progress:
        how = sampling(model.tokenizer, config)
        ids = sample(model, config, how, prompts, on_batch=progress.update)
    return [text(model.tokenizer, row) for row in ids]


def sampling(tok: Tokenizer, config: ConfigDict) -> generate.Sampling:
    """As ``config.eval`` says; an answer ends with its turn."""
    return generate.Sampling(
        max_new_tokens=config.eval.max_new_tokens,
        stop_ids=(tok.end_of_turn_id, tok.eos_id),
        temperature=config.eval.temperature,
        top_k=config.eval.top_k,
        top_p=config.eval.top_p,
    )


def text(tok: Tokenizer, ids: Sequence[int]) -> str:
    """Of an answer. A poor model can choose a row of the embedding beyond the last piece."""
    return tok.decode(i for i in ids if i < tok.vocab_size)


def sample(
    model: Model, config: ConfigDict, sampling: generate.Sampling, prompts: list, **how: Any
) -> list[list[int]]:
    """Ids of the answers, in order; ``how`` is ``is_done`` and ``on_batch`` of ``generate``."""
    params, adapters = model.steps.model(model.trainable, model.frozen)
    return generate.generate(
        model.spec,
        dataclasses.replace(model.steps.options, remat="none"),
        sampling,
        params,
        adapters,
        prompts,
        batch_size=min(config.eval.batch_size, len(prompts)),
        seed=config.seed,
        **how,
    )


def check(config: ConfigDict, split: sets.Split) -> None:
    """Whether the metrics can say something about a set: before anything is loaded.

    Raises:
      UserError: one does not suit the expected answers; names metric, set, row, remedy.
    """
    conversations = _asked(config, split)
    expected = _answers(conversations)
    label, sources = ", ".join(split.files), [c.source for c in conversations]
    metrics.check(metrics.of(config, expected), label, expected, sources)


def signatures(config: ConfigDict, split: sets.Split) -> list[tuple[str, str | None]]:
    """Names of the metrics and their settings, some of which are not in the configuration."""
    found = metrics.of(config, _answers(split.conversations))
    return [(name, metric.signature) for name, metric in found.items()]


def score(
    model: Model, config: ConfigDict, split: sets.Split, put_shots: PutShots | None = None
) -> tuple[dict[str, Any], list[dict]]:
    """The numbers of one set, and one row per prediction.

    Args:
      put_shots: puts examples in front of the prompts; ``None`` = as they are.
    """
    begun = time.perf_counter()
    asked, examples, longest = _asked(config, split), split.examples, None
    expected, of_shots = _answers(asked), {}
    if put_shots:
        shots = put_shots(asked)
        asked, of_shots = shots.conversations, {"shots": shots.report}
        examples = sets.encode_answers(config, model.spec, model.tokenizer, asked)
        longest = int(examples.lengths.max())
    scored = _likelihood(model, config, examples, longest)
    predicted = answer(model, config, sets.prompts(config, model.spec, model.tokenizer, asked))
    rows: list[dict[str, Any]] = [
        {
            "source": conversation.source,
            "prompt": conversation.turns[-2].text,
            "expected": expected[i],
            "predicted": predicted[i],
            "correct": exact_match(predicted[i], expected[i]),
            "nll": float(scored.nll[i]),
            "right_tokens": int(scored.correct[i]),
            "trained": int(scored.trained[i]),
        }
        for i, conversation in enumerate(asked)
    ]
    table = scores.table(config, rows)
    rows = [row | {"scores": scores.of_row(table, i)} for i, row in enumerate(rows)]
    correct = sum(row["correct"] for row in rows)
    values = validation.summary(scored)  # of the whole set, whatever part of it is answered
    result = {
        **of_shots,
        "count": len(rows),
        "correct": correct,
        "exact_match": correct / len(rows),
        "exact_match_interval": list(stats.wilson(correct, len(rows))),
        "loss": values["loss"],
        "token_accuracy": values["token_accuracy"],
        "metrics": scores.summary(config, table),
        "seconds": time.perf_counter() - begun,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    return result, rows


def _asked(config: ConfigDict, split: sets.Split) -> list[Conversation]:
    return split.conversations[: config.eval.max_examples or None]


def _answers(conversations: Sequence[Conversation]) -> list[str]:
    return [conversation.turns[-1].text for conversation in conversations]


def _likelihood(model: Model, config: ConfigDict, examples: Examples, longest: int | None):
    return validation.by_example(
        config,
        model.steps,
        model.trainable,
        model.frozen,
        examples,
        max_length=longest,
        what="loss",
    )


def generated(
    model: Model, config: ConfigDict, conversations: Sequence[Conversation]
) -> dict[str, float]:
    """The metrics of answers to these prompts alone: no loss, no intervals."""
    prompts = sets.prompts(config, model.spec, model.tokenizer, conversations)
    predicted = answer(model, config, prompts)
    expected = _answers(conversations)
    return {
        name: float(metric.value(metric.statistics(predicted, expected).sum(axis=0)))
        for name, metric in metrics.of(config, expected).items()
    }


def write_predictions(path: Path, rows: list[dict]) -> None:
    """One JSON object a line; the whole file or nothing."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
