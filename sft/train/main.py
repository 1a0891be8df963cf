"""``sft train``: from a configuration to checkpoints and a chosen epoch."""

from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from sft import hosts, inputs, lock, sets, training_set
from sft import workdir as workdirs
from sft.data import pipeline
from sft.model import flops, sharding, specs
from sft.train import loop, optim, selection, startup
from sft.train.steps import make_steps


def main(config: ConfigDict, workdir: str, trace: bool = False) -> dict[str, Any] | None:
    """Trains, or continues where the run in ``workdir`` stopped; a finished run is left alone.

    Args:
      trace: write a profile of some steps, see ``sft.train.profile``.

    Returns:
      The content of ``selection.json``; ``None`` on other hosts than the first.

    Raises:
      UserError: another run is at work there; the hosts differ; see ``loop.run``.
      Preempted: see ``loop.run``.
    """
    with hosts.started(config), lock.held(workdir):
        return _train(config, workdir, trace)


def _train(config: ConfigDict, workdir: str, trace: bool) -> dict[str, Any] | None:
    hosts.compare("versions and configuration", workdirs.facts(config))
    spec = specs.get(config.model.name)
    path = workdirs.prepare(config, workdir)
    if (path / "DONE").exists():
        return _chosen(path, "already trained.")
    local = jax.local_devices()
    hosts.compare("devices", {"local devices": [len(local), local[0].device_kind]})
    startup.use_cache(config.train.compilation_cache)
    mesh = sharding.make_mesh(config)
    if mesh.devices.flat[0].platform == "cpu":
        # Dispatching the next step while one runs gains nothing here, and doubles the memory.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    if hosts.is_first():
        workdirs.write_environment(path, [str(d) for d in mesh.devices.flat])
    splits = _read(config, spec, path)
    origins, weights = sets.weights(splits["train"])
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
        print(_describe(splits, plan, mesh.size))
    tx = optim.make(config.optim, plan.epoch_ends[-1], config.lora.plus)
    steps = make_steps(config, spec, tx, mesh)
    params = inputs.params(config, spec, steps.params_sharding)
    task = loop.Task(
        splits["train"].examples,
        splits["validation"].examples,
        plan,
        flops_per_step=_flops(config, spec, splits["train"], plan),
    )
    loop.run(config, workdir, task, steps, params, trace=trace)
    return _chosen(path)


def _read(config: ConfigDict, spec: specs.Spec, path: Path) -> dict[str, sets.Split]:
    """Training and validation set. The first host makes the plan that the others then find."""
    training_set.required(config, ("train", "validation"))
    with hosts.in_turn("data"):
        tok = inputs.tokenizer(config, spec)
        found = training_set.everything(config, spec, tok, path / "data")
        splits = {name: found[name] for name in ("train", "validation")}
        training_set.gate(config, splits["train"])
        if hosts.is_first():
            sets.write_report(path, splits)
    hosts.compare("data", {f"rows of {name}": split.content for name, split in splits.items()})
    return splits


def _chosen(path: Path, said: str = "") -> dict[str, Any] | None:
    """Chooses the epoch and ends the run; the first host does, and the others wait for it."""
    chosen = None
    with hosts.in_turn("end"):
        if hosts.is_first():
            chosen = selection.choose(path)
            if not (path / "DONE").exists():
                (path / "DONE").touch()
            print(f"{path}: {said or f'epoch {chosen["epoch"]} chosen ({chosen["why"]}).'}")
    return chosen


def _flops(
    config: ConfigDict, spec: specs.Spec, train: sets.Split, plan: pipeline.TrainPlan
) -> float:
    """Of a step, with the trained tokens that steps have on average."""
    trained = int(train.examples.trained.sum()) * len(plan.epoch_ends) / plan.epoch_ends[-1]
    size = config.train.batch_size, config.data.max_length
    return flops.train_step(spec, config, *size, trained).model


def _describe(splits: dict[str, sets.Split], plan: pipeline.TrainPlan, devices: int) -> str:
    train, validation = splits["train"].report, splits["validation"].report
    cells = len(plan.rows) * plan.max_length
    used = train["tokens"] * len(plan.epoch_ends)
    return (
        f"train {train['rows']} examples, {train['trained_tokens']} of {train['tokens']} tokens "
        f"trained; validation {validation['rows']}; {plan.epoch_ends[-1]} steps, "
        f"{len(plan.epoch_ends)} epochs, {1 - min(used / cells, 1):.1%} padding, "
        f"{devices} device(s)"
    )
