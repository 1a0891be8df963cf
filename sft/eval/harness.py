"""Scores one model on one set: what it answers, how it ranks labels, how likely the answers are."""

import dataclasses
import json
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sft.config.text import strings
from sft.data.batches.examples import Examples
from sft.data.conversation import Conversation
from sft.data.sets import loading
from sft.data.tokenizer.sentencepiece import Tokenizer
from sft.eval import constant, faults, metrics, ranking, scores, stats
from sft.eval.evalset import EvalSet, asked, expected
from sft.eval.metrics.match import is_exact as exact_match
from sft.eval.shots import Shots
from sft.model.decode import generate
from sft.model.specs import Spec
from sft.run.directory import write_text
from sft.run.progress import Progress
from sft.train import validation
from sft.train.steps import Steps
from sft.types import Tree

PutShots = Callable[[Sequence[Conversation]], Shots]  # examples in front of each prompt


class Answer(NamedTuple):
    """A generated answer.

    Attributes:
      text: up to where it ended: the end of its turn, a stop string, or the cap.
      cut: the cap ended it, ``config.eval.max_new_tokens``: it would have gone on.
      stop: the stop string that ended it, or ``""``.
    """

    text: str
    cut: bool
    stop: str = ""


@dataclasses.dataclass(frozen=True)
class Model:
    """What is evaluated: compiled functions, a tokenizer, and the two parameter trees."""

    spec: Spec
    steps: Steps
    tokenizer: Tokenizer
    trainable: Tree
    frozen: Tree


def answer(model: Model, config: ConfigDict, prompts: list) -> list[Answer]:
    """Generated answers to tokenised prompts, in order."""
    tok, stops = model.tokenizer, strings(config.eval.stop)
    how: dict[str, Any] = {}
    if stops:
        how["is_done"] = lambda ids: any(stop in text(tok, ids) for stop in stops)
    with Progress(len(prompts), "generating answers", "prompt") as progress:
        how["on_batch"] = progress.update
        found = sample(model, config, sampling(tok, config), prompts, **how)
    return [ended(tok, config, ids) for ids in found]


def ended(tok: Tokenizer, config: ConfigDict, ids: Sequence[int]) -> Answer:
    """The answer that these ids are, without the token that ended them, if one did."""
    whole = text(tok, ids)
    places = [(whole.find(stop), stop) for stop in strings(config.eval.stop) if stop in whole]
    if places:
        place, stop = min(places)
        return Answer(whole[:place], False, stop)
    return Answer(whole, len(ids) >= config.eval.max_new_tokens)


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


def signatures(config: ConfigDict, split: loading.Split) -> list[tuple[str, str | None]]:
    """Names of the metrics and their settings, some of which are not in the configuration."""
    found = metrics.of(config, expected(split.conversations))
    return [(name, metric.signature) for name, metric in found.items()]


def score(
    model: Model, config: ConfigDict, given: EvalSet, put_shots: PutShots | None = None
) -> tuple[dict[str, Any], list[dict]]:
    """The numbers of one set, and one row per prediction; see README.md for their fields.

    Args:
      put_shots: puts examples in front of the prompts; ``None`` = as they are.
    """
    begun = time.perf_counter()
    rows, examples, longest, more = asked(config, given.split), given.split.examples, None, {}
    wanted = expected(rows)
    if put_shots:
        shots = put_shots(rows)
        rows, more = shots.conversations, {"shots": shots.report}
        examples = loading.encode_answers(config, model.spec, model.tokenizer, rows)
        longest = int(examples.lengths.max())
    scored = _likelihood(model, config, examples, longest)
    prompts = loading.prompts(config, model.spec, model.tokenizer, rows)
    found = [
        {"source": row.source, "prompt": row.turns[-2].text}
        | answered
        | ranks
        | {
            "nll": float(scored.nll[i]),
            "right_tokens": int(scored.correct[i]),
            "trained": int(scored.trained[i]),
        }
        for i, (row, answered, ranks) in enumerate(
            zip(
                rows,
                _answered(model, config, given, rows, prompts),
                _ranked(model, config, given, prompts),
                strict=True,
            )
        )
    ]
    table = scores.table(config, found)
    values = validation.summary(scored)  # of the whole set, whatever part of it is answered
    result = {
        **more,
        **_summary(config, given, wanted, found),
        "loss": values["loss"],
        "token_accuracy": values["token_accuracy"],
        "metrics": scores.summary(config, table),
        "seconds": time.perf_counter() - begun,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    return result, [row | {"scores": scores.of_row(table, i)} for i, row in enumerate(found)]


def _answered(
    model: Model,
    config: ConfigDict,
    given: EvalSet,
    rows: Sequence[Conversation],
    prompts: list,
) -> list[dict[str, Any]]:
    """What is said of the generated answers, row by row."""
    look, answers, wanted = metrics.looks_at(config), answer(model, config, prompts), expected(rows)
    compared = [look(one.text) for one in answers]
    sought = [look(text) for text in wanted]
    sent = [" ".join([row.system or "", *(turn.text for turn in row.turns[:-1])]) for row in rows]
    errors = faults.kinds(compared, sought, given.known_labels, sent)
    return [
        {
            "expected": wanted[i],
            "predicted": one.text,
            **({"compared": compared[i]} if config.eval.compare != "whole" else {}),
            "correct": exact_match(compared[i], sought[i]),
            "cut": one.cut,
            **({"stop": one.stop} if one.stop else {}),
            "error": errors[i],
        }
        for i, one in enumerate(answers)
    ]


def _ranked(
    model: Model, config: ConfigDict, given: EvalSet, prompts: list
) -> list[dict[str, Any]]:
    """How the labels are ranked, row by row; nothing where there are none."""
    if not given.labels:
        return [{} for _ in prompts]
    arms = model.steps, model.trainable, model.frozen, model.tokenizer
    ranks = ranking.rank(config, *arms, prompts, given.labels)
    return [
        {
            "ranked": given.labels[ranks.chosen[i]],
            "ranked_norm": given.labels[ranks.chosen_norm[i]],
            "ranks": len(given.labels),
            "log_likelihoods": np.round(ranks.log_likelihood_nxk[i], 4).tolist(),
        }
        for i in range(len(prompts))
    ]


def _summary(
    config: ConfigDict, given: EvalSet, wanted: list[str], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """Counts, and what answers would score that look at no prompt."""
    correct = sum(row["correct"] for row in rows)
    found: dict[str, Any] = {
        "count": len(rows),
        "correct": correct,
        "exact_match": correct / len(rows),
        "exact_match_interval": list(stats.wilson(correct, len(rows))),
        "primary": metrics.primary(config),
        "cut": sum(row["cut"] for row in rows),
        "max_new_tokens": config.eval.max_new_tokens,
        "errors": faults.summary(rows),
    }
    if given.labels:
        found["labels"] = list(given.labels)
    if given.majority is not None:
        known = given.majority, given.known_from, given.labels
        found["constant"] = constant.scored(config, wanted, *known)
    return found


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
    model: Model, config: ConfigDict, given: EvalSet, conversations: Sequence[Conversation]
) -> dict[str, float]:
    """The metrics of answers to these prompts alone, and the share of those that the cap ended: no
    loss, no intervals."""
    prompts = loading.prompts(config, model.spec, model.tokenizer, conversations)
    rows = [
        answered | ranks
        for answered, ranks in zip(
            _answered(model, config, given, conversations, prompts),
            _ranked(model, config, given, prompts),
            strict=True,
        )
    ]
    values = {
        name: float(metric.value(found.sum(axis=0)))
        for name, (metric, found) in scores.table(config, rows).items()
    }
    return values | {"cut": sum(row["cut"] for row in rows) / len(rows)}


def write_predictions(path: Path, rows: list[dict]) -> None:
    """One JSON object a line; the whole file or nothing."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
