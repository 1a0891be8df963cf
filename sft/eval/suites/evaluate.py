"""Runs the base model, or a checkpoint of a run, on suites of behaviour."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sft.config.effects import counted
from sft.data.sets import loading
from sft.data.tokenizer.sentencepiece import Tokenizer
from sft.eval import arms, harness
from sft.eval.results import decisive
from sft.eval.suites import compare, judging, read, score
from sft.eval.suites.cases import Judge, Suite
from sft.model.specs import Spec
from sft.run import directory as workdirs
from sft.run import hosts
from sft.session import Session

# What decides an answer. Other settings of the evaluation do not, and are no reason to ask again.
_GENERATION = ("max_new_tokens", "temperature", "top_k", "top_p", "stop")
Said = tuple[str, bool | None]  # an answer, and whether it was cut


def evaluate(
    session: Session, checkpoint: str, judge: Judge | None = None
) -> dict[str, Any] | None:
    """Writes ``eval/<arm>.suite.<name>.json`` for each of ``config.eval.suites``.

    Answers that are there already to the same prompts, checkpoint and settings are not made again;
    the checks are, as a suite may expect something else by now.

    Args:
      checkpoint: ``base``, ``best``, ``latest`` or a step.
      judge: decides on the cases that have a criterion, and keeps its verdicts; ``None`` = that of
        ``config.judge``.

    Returns:
      ``{suite: result}``; ``None`` on other hosts than the first.

    Raises:
      UserError: a suite that is not sound, or has cases for a judge that cannot be had.
    """
    config = session.config
    suites = read.listed(config.eval.suites)
    if judge is None and score.first_criterion(suites):
        judge = judging.by_model(config, session.workdir)
    hosts.compare("versions and configuration", workdirs.facts(config))
    path = session.path
    arm, step = arms.which(path, config, checkpoint)
    spec, tok = session.spec, session.tokenizer
    wanted = {suite.name: _fingerprint(config, arm, step, suite, spec, tok) for suite in suites}
    hosts.compare("suites", wanted)
    stored = {suite.name: _stored(path, arm, suite, wanted[suite.name]) for suite in suites}
    todo = [suite for suite in suites if stored[suite.name] is None]
    hosts.compare("results", {"suites to evaluate": [suite.name for suite in todo]})
    model = arms.load(session, step) if todo else None
    results = {}
    for suite in suites:
        said, seconds = stored[suite.name] or _asked(model, config, suite)
        if not hosts.is_first():
            continue
        rows = score.rows(suite, [text for text, _ in said], judge, [cut for _, cut in said])
        cap = score.capped(config, suite).eval.max_new_tokens
        result = {
            "arm": arm,
            "suite": suite.name,
            "file": suite.path,
            "description": suite.description,
            "checkpoint": "base" if step is None else f"checkpoints/{step}",
            **score.summary(rows),
            "max_new_tokens": cap,
            "seconds": seconds,
            "cases": rows,
            "fingerprint": wanted[suite.name],
        }
        results[suite.name] = result
        workdirs.write_json(compare.path_of(path, arm, suite.name), result)
    return results if hosts.is_first() else None


def _asked(
    model: harness.Model | None, config: ConfigDict, suite: Suite
) -> tuple[list[Said], float]:
    """The model's answers, and the seconds they took."""
    assert model is not None
    begun = time.perf_counter()
    said: list[Said] = [(one.text, one.cut) for one in score.answers(model, config, suite)]
    return said, time.perf_counter() - begun


def _fingerprint(
    config: ConfigDict, arm: str, step: int | None, suite: Suite, spec: Spec, tok: Tokenizer
) -> str:
    """Of everything that could change an answer, the prompts as they are sent among it."""
    kept = [
        (key, value)
        for key, value in counted(decisive(score.capped(config, suite))).items()
        if not key.startswith("eval.") or key.removeprefix("eval.") in _GENERATION
    ]
    digest = hashlib.sha256(json.dumps([kept, arm, step]).encode())
    for ids in loading.prompts(config, spec, tok, [case.conversation for case in suite.cases]):
        digest.update(len(ids).to_bytes(8, "little") + np.ascontiguousarray(ids).tobytes())
    return digest.hexdigest()[:12]


def _stored(
    path: Path, arm: str, suite: Suite, fingerprint: str
) -> tuple[list[Said], float] | None:
    """The answers of an earlier call and the seconds they took, if they are what is wanted."""
    result = compare.load(path, arm, suite.name)
    if result is None or result["fingerprint"] != fingerprint:
        return None
    return [(row["answer"], row.get("cut")) for row in result["cases"]], result["seconds"]
