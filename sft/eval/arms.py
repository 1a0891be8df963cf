"""Arms: the models of a run that can be evaluated, the base model and its checkpoints."""

import re
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from sft.errors import UserError
from sft.eval import harness
from sft.mesh import sharding
from sft.run import directory as workdirs
from sft.session import Session
from sft.train import optim, startup
from sft.train.checkpoint import Checkpoints
from sft.train.steps import make_steps


class Arm(NamedTuple):
    """Its name in file names, and the step of its checkpoint; ``None`` = the base model."""

    name: str
    step: int | None


BASE = Arm("base", None)


def which(path: Path, config: ConfigDict, checkpoint: str) -> Arm:
    """The arm that ``--checkpoint`` means.

    Args:
      path: of the run.
      checkpoint: ``base``, ``best``, ``latest`` or a step.

    Raises:
      UserError: there is no such checkpoint; names those that are kept.
    """
    if checkpoint == "base":
        return BASE
    steps = (
        Checkpoints(path, config, read_only=True).steps() if (path / "checkpoints").exists() else []
    )
    if not steps:
        raise UserError(f"{path}/checkpoints: none there. Run sft train first.")
    if checkpoint == "latest":
        return Arm("latest", steps[-1])
    if checkpoint == "best":
        chosen = path / "selection.json"
        if not chosen.exists():
            raise UserError(
                f"{chosen}: missing. Run sft train to its end, or use --checkpoint=latest."
            )
        found = workdirs.read_json(chosen)
        step = found.get("step") if isinstance(found, dict) else None
        if not isinstance(step, int):
            raise UserError(f"{chosen}: no step in it. Remove it and run sft train again.")
    elif is_step(checkpoint):
        step = int(checkpoint)
    else:
        raise UserError(
            f"--checkpoint={checkpoint}: expected base, best, latest or one of {steps}."
        )
    if step not in steps:
        raise UserError(f"{path}/checkpoints/{step}: not there. Kept: {steps}.")
    return Arm("best" if checkpoint == "best" else f"step{step}", step)


def is_step(checkpoint: str) -> bool:
    """Whether ``--checkpoint`` is the number of a step."""
    return re.fullmatch("[0-9]{1,18}", checkpoint) is not None


def load(session: Session, step: int | None) -> harness.Model:
    """The weights, with what the checkpoint of that step has learnt (``None`` = nothing)."""
    config = session.config
    startup.use_cache(config.train.compilation_cache)
    mesh = sharding.make_mesh(config)
    steps = make_steps(config, session.spec, optim.make(config.optim, 1), mesh)
    params = session.params(steps.params_sharding)
    state, frozen = startup.begin(config, steps, params)
    if step is not None:
        state, _ = Checkpoints(session.path, config, read_only=True).restore(step, state)
    return harness.Model(session.spec, steps, session.tokenizer, state.trainable, frozen)
