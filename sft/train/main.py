"""``sft train``: from a configuration to checkpoints and a chosen epoch."""

from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from sft import inputs, sets, training_set
from sft import workdir as workdirs
from sft.data import pipeline
from sft.model import sharding, specs
from sft.train import loop, optim, selection, startup
from sft.train.steps import make_steps


def main(config: ConfigDict, workdir: str, trace: bool = False) -> dict[str, Any]:
    """Trains, or continues where the run in ``workdir`` stopped; a finished run is left alone.

    Args:
      trace: write a profile of some steps, see ``sft.train.profile``.

    Returns:
      The content of ``selection.json``.

    Raises:
      UserError, Preempted: see ``loop.run``.
    """
    spec = specs.get(config.model.name)
    path = workdirs.prepare(config, workdir)
    if (path / "DONE").exists():
        print(f"{path}: already trained.")
        return selection.choose(path)
    startup.use_cache(config.train.compilation_cache)
    mesh = sharding.make_mesh(config)
    if mesh.devices.flat[0].platform == "cpu":
        # Dispatching the next step while one runs gains nothing here, and doubles the memory.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    workdirs.write_environment(path, [str(d) for d in mesh.devices.flat])
    tok = inputs.tokenizer(config, spec)
    training_set.required(config, ("train", "validation"))
    found = training_set.everything(config, spec, tok, path / "data")
    splits = {name: found[name] for name in ("train", "validation")}
    training_set.gate(config, splits["train"])
    sets.write_report(path, splits)
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
    print(_describe(splits, plan, mesh.size))
    tx = optim.make(config.optim, plan.epoch_ends[-1], config.lora.plus)
    steps = make_steps(config, spec, tx, mesh)
    params = inputs.params(config, spec, steps.params_sharding)
    task = loop.Task(splits["train"].examples, splits["validation"].examples, plan)
    loop.run(config, workdir, task, steps, params, trace=trace)
    chosen = selection.choose(path)
    if jax.process_index() == 0:
        Path(path / "DONE").touch()
    print(f"{path}: epoch {chosen['epoch']} chosen ({chosen['why']}).")
    return chosen


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
