"""``sft train``: from a configuration to checkpoints and a chosen epoch."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sft.data.audit import findings
from sft.data.batches import pipeline
from sft.data.chat.encoding import CONTEXT
from sft.data.conversation import Conversation
from sft.data.sets import loading, training
from sft.eval import evalset, harness, limits, metrics
from sft.eval import evaluate as evaluation
from sft.mesh import sharding
from sft.model import flops, specs
from sft.run import directory as workdirs
from sft.run import hosts, lease
from sft.session import Session
from sft.train import loop, optim, selection, startup
from sft.train.selection import Rule
from sft.train.steps import Steps, make_steps
from sft.types import Tree


def main(config: ConfigDict, workdir: str, profile: bool) -> dict[str, Any] | None:
    """Trains, or continues where the run in ``workdir`` stopped; a finished run is left alone.

    Args:
      profile: write a trace of some steps, see ``sft.train.profile``.

    Returns:
      The content of ``selection.json``; ``None`` on other hosts than the first.

    Raises:
      UserError: another run is at work there; the hosts differ; see ``loop.run``.
      Preempted: see ``loop.run``.
    """
    with hosts.started(config), lease.held(workdir):
        return _train(Session(config, workdir), profile)


def _train(session: Session, trace: bool) -> dict[str, Any] | None:
    config = session.config
    hosts.compare("versions and configuration", workdirs.facts(config))
    path = session.path
    rule = metrics.chooses(config)
    if (path / "DONE").exists():
        return _chosen(config, path, rule, said="already trained.")
    local = jax.local_devices()
    hosts.compare("devices", {"local devices": [len(local), local[0].device_kind]})
    startup.use_cache(config.train.compilation_cache)
    mesh = sharding.make_mesh(config)
    if mesh.devices.flat[0].platform == "cpu":
        # Dispatching the next step while one runs gains nothing here, and doubles the memory.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    if hosts.is_first():
        workdirs.write_environment(path, [str(d) for d in mesh.devices.flat])
    splits = _read(session)
    origins, weights = loading.weights(splits["train"])
    plan = pipeline.plan_training(
        splits["train"].examples.lengths,
        max_length=config.data.max_length,
        batch_size=config.train.batch_size,
        epochs=config.train.epochs,
        seed=config.seed,
        packed=config.data.pack,
        origins=origins,
        weights=weights,
    )
    pipeline.check_eval_lengths(splits["validation"].examples, config.data.eval_max_length)
    if hosts.is_first():
        print(_describe(config, splits, plan, mesh.size))
        _warn(splits)
        startup.report_adapted(config, path)
    tx = optim.make(config.optim, plan.epoch_ends[-1], config.lora.plus)
    steps = make_steps(config, session.spec, tx, mesh)
    # What they refuse shows before the weights are read.
    at_start = _baseline(session, steps, _as_read(splits))
    generated = _generated(session, steps, splits)
    params = session.params(steps.params_sharding)
    task = loop.Task(
        splits["train"].examples,
        splits["validation"].examples,
        plan,
        rule,
        flops_per_step=_flops(config, session.spec, splits["train"], plan),
        at_start=at_start,
        generated=generated,
    )
    loop.run(config, session.workdir, task, steps, params, trace=trace)
    return _chosen(config, path, rule, plan.epoch_ends[-1])


def _baseline(
    session: Session, steps: Steps, train: list[Conversation] | None
) -> Callable[[Tree, Tree], None]:
    """What scores the model on the test set, as long as nothing has been tuned."""
    config = session.config
    if not config.train.baseline or not (config.data.test or config.data.split.test):
        return lambda trainable, frozen: None
    given = evalset.load(session.sets, train)  # now: bad test data must stop no run halfway

    def score(trainable: Tree, frozen: Tree) -> None:
        model = harness.Model(session.spec, steps, session.tokenizer, trainable, frozen)
        evaluation.baselines(session, given, lambda: model)

    return score


def _generated(
    session: Session, steps: Steps, splits: dict[str, loading.Split]
) -> Callable[[Tree, Tree], dict[str, float]]:
    """What answers the same prompts of the validation set each time, drawn by seed."""
    config = session.config
    if not config.eval.during_training:
        return lambda trainable, frozen: {}
    validation = {"validation": splits["validation"]}
    found = evalset.checked(session.sets, validation, _as_read(splits), "validation")
    given, rows = found["validation"], splits["validation"].conversations
    count = min(config.eval.during_training, len(rows))
    drawn = np.random.default_rng(config.seed).choice(len(rows), count, replace=False)
    chosen = [rows[i] for i in sorted(drawn)]

    def score(trainable: Tree, frozen: Tree) -> dict[str, float]:
        model = harness.Model(session.spec, steps, session.tokenizer, trainable, frozen)
        return harness.generated(model, config, given, chosen)

    return score


def _as_read(splits: dict[str, loading.Split]) -> list[Conversation] | None:
    """The training rows before deduplication, as ``sft eval`` finds them too."""
    planned = splits["train"].plan
    return planned.conversations if planned else None


def _read(session: Session) -> dict[str, loading.Split]:
    """Training and validation set. The first host makes the plan that the others then find."""
    config, path = session.config, session.path
    training.required(config, ("train", "validation"))
    with hosts.in_turn("data"):
        found = training.everything(session.sets, path / "data")
        splits = {name: found[name] for name in ("train", "validation")}
        training.gate(config, splits["train"])
        if hosts.is_first():
            loading.write_report(path, splits)
    if not config.train.baseline:  # which checks them too: before the training, not after it
        for name, split in found.items():
            if name not in splits:
                limits.warn(
                    config, name, evalset.expected(evalset.asked(config, split)), session.tokenizer
                )
    hosts.compare("data", {f"rows of {name}": split.content for name, split in splits.items()})
    return splits


def _chosen(
    config: ConfigDict, path: Path, rule: Rule, planned: int | None = None, said: str = ""
) -> dict[str, Any] | None:
    """Chooses the epoch and ends the run; the first host does, and the others wait for it."""
    chosen = None
    with hosts.in_turn("end"):
        if hosts.is_first():
            stored = path / "selection.json"
            if said and stored.exists():
                chosen = workdirs.read_json(stored)
            else:
                chosen = selection.choose(path, rule, planned)
            if not (path / "DONE").exists():
                (path / "DONE").touch()
            print(f"{path}: {said or _says(chosen)}")
            if chosen.get("warning"):
                print(f"warning: {path}: {chosen['warning']}", file=sys.stderr)
            print(_next(config, path))
    return chosen


def _says(chosen: dict[str, Any]) -> str:
    early = chosen.get("stopped_early")
    ended = (
        f" Ended at step {early['step']} of {early['planned']}: config.train.patience validations "
        "in a row were no better than one before."
        if early
        else ""
    )
    return f"epoch {chosen['epoch']:g} chosen ({chosen['why']}).{ended}"


def _next(config: ConfigDict, path: Path) -> str:
    """What there is to do with a finished run."""
    run = shlex.quote(str(path))
    todo = {
        f"sft report {run}": "curves, scores, and what stands out",
        f"sft chat --workdir={run}": "talk to it",
        f"sft export --workdir={run} --format=peft,safetensors": "for other libraries",
    }
    if config.data.test or config.data.split.test:
        todo = {f"sft eval --workdir={run}": "score it on the test set"} | todo
    width = max(map(len, todo))
    rows = [f"{command:<{width}}  {what}" for command, what in todo.items()]
    return "next: " + "\n      ".join(rows)


def _flops(
    config: ConfigDict, spec: specs.Spec, train: loading.Split, plan: pipeline.TrainPlan
) -> float:
    """Of a step, with the trained tokens that steps have on average."""
    trained = int(train.examples.trained.sum())
    if config.loss.prompt_weight:
        # Nothing is predicted where <bos> is the target.
        trained += int(np.sum(train.examples.kinds < CONTEXT)) - len(train.examples)
    per_step = trained * len(plan.epoch_ends) / plan.epoch_ends[-1]
    size = config.train.batch_size, config.data.max_length
    return flops.train_step(spec, config, *size, per_step).model


def _warn(splits: dict[str, loading.Split]) -> None:
    """Says what a person must know of the rows, who may not have run the audit."""
    for name, split in splits.items():
        for found in findings.of_reading(name, split.report):
            if found["severity"] == "warning":
                print(f"warning: {found['text']} {found['remedy']}", file=sys.stderr)


def _describe(
    config: ConfigDict, splits: dict[str, loading.Split], plan: pipeline.TrainPlan, devices: int
) -> str:
    train, validation = splits["train"].report, splits["validation"].report
    cells = len(plan.rows) * plan.max_length
    used = train["tokens"] * len(plan.epoch_ends)
    total = plan.epoch_ends[-1]
    warmup = optim.warmup_steps(config.optim, total)
    rising = f", {warmup} of them warm-up" if warmup else ""
    if config.optim.warmup and not warmup:
        rising = f" without a warm-up (config.optim.warmup = {config.optim.warmup} rounds to none)"
    return (
        f"train {train['rows']} examples, {train['trained_tokens']} of {train['tokens']} tokens "
        f"trained; validation {validation['rows']}; {total} steps{rising}, "
        f"{len(plan.epoch_ends)} epochs, {1 - min(used / cells, 1):.1%} padding, "
        f"{devices} device(s)"
    )
