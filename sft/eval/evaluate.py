"""Scores the base model, or a checkpoint of a run, on every file of the test set."""

import functools
from collections.abc import Callable
from typing import Any

from sft.data.sets import loading
from sft.eval import arms, evalset, harness, lines, results, shots
from sft.eval.arms import BASE, Arm
from sft.run import directory as workdirs
from sft.run import hosts
from sft.session import Session


def evaluate(session: Session, checkpoint: str) -> dict[str, Any] | None:
    """Evaluates and writes ``eval/<arm>.<set>.json``, one for each file of ``config.data.test``.

    A result that is there already for the same data, checkpoint and settings is not made again.

    Args:
      checkpoint: ``base``, ``best``, ``latest`` or a step.

    Returns:
      ``{set: result}``; ``None`` on other hosts than the first.
    """
    config = session.config
    hosts.compare("versions and configuration", workdirs.facts(config))
    arm = arms.which(session.path, config, checkpoint)
    given = evalset.load(session.sets)
    splits = {name: one.split for name, one in given.items()}
    hosts.compare("data", {f"rows of {name}": split.content for name, split in splits.items()})
    if hosts.is_first():
        loading.write_report(session.path, loading.told_apart(splits))
    found: list[harness.Model] = []

    def model() -> harness.Model:
        """Loaded once, whatever is asked of it."""
        if not found:
            found.append(arms.load(session, arm.step))
        return found[0]

    if arm == BASE:
        evaluated = baselines(session, given, model)
    else:
        evaluated = results.of_arm(config, session.path, arm, given, model)
        _print_constants(evaluated)
    return evaluated if hosts.is_first() else None


def baselines(
    session: Session,
    given: dict[str, evalset.EvalSet],
    model: Callable[[], harness.Model],
) -> dict[str, Any]:
    """Scores the base model as it is, and with ``config.eval.shots`` examples in its prompts.

    Returns:
      ``{set: result}``, zero-shot; those with examples under ``<set>, <k> shots``.
    """
    config, path = session.config, session.path
    evaluated = results.of_arm(config, path, BASE, given, model)
    plain = dict(evaluated)
    if config.eval.shots:
        arm = Arm(f"base.{config.eval.shots}shot", None)
        train = session.sets.load(["train"])["train"]
        put = functools.partial(
            shots.put, config, session.spec, session.tokenizer, train.conversations
        )
        more = results.of_arm(config, path, arm, given, model, put, drawn_from=train.content)
        evaluated |= {f"{name}, {config.eval.shots} shots": more[name] for name in more}
    _print_constants(plain)
    return evaluated


def _print_constants(evaluated: dict[str, results.Result]) -> None:
    """What no model is needed for, once for each set whose answers are labels."""
    for name, result in evaluated.items():
        if hosts.is_first() and (said := lines.constants(result)):
            print(f"{name} {said}")
