"""``sft plan``: does the training step fit a TPU slice, what does it cost, and what to change.

JAX is imported only after the environment of a planning process is set: see ``compile.prepare``.
"""

from typing import Any

from ml_collections import ConfigDict

from sft.errors import DoesNotFit, UserError
from sft.mesh import axes, slices
from sft.mesh.slices import Slice
from sft.model import specs
from sft.plan import compile as compiling
from sft.report import plan
from sft.run.directory import path_of, read_json


def main(
    config: ConfigDict, slice: str, workdir: str, trained_share: float | None
) -> dict[str, Any]:
    """Compiles the step of ``config`` for a slice; where it does not fit, looks for what does.

    Args:
      workdir: of a run whose audit says which share of the tokens is trained; may be empty.
      trained_share: share of the positions with loss; ``None`` = the audit's, or 1.

    Returns:
      What ``report.result`` describes.

    Raises:
      DoesNotFit: with the same, and in it what was tried.
      UserError: no such slice, no compiler, a mesh that suits neither slice nor model.
    """
    slice_ = slices.get(slice)
    spec = specs.get(config.model.name)
    # An audit counts what is trained of the answers.
    share, source = _share("" if config.loss.prompt_weight else workdir, trained_share)
    compiling.prepare()
    from sft.plan import roofline, search

    parts = axes.of(config, slice_.devices, slice_.count)
    print(plan.head(spec.name, config, slice_, parts), flush=True)
    memory, seconds, first = _attempt(config, spec, slice_)
    costs = plan.costs(spec, config, share, source, roofline.seconds(spec, config, slice_, share))
    found = plan.result(slice_, parts, memory, seconds, first, costs)
    print("\n".join(plan.lines(found, first)), flush=True)
    if first.fits:
        return found

    def attempt(changed: ConfigDict, on: Slice) -> search.Outcome:
        return _attempt(changed, spec, on)[2]

    tried = []
    for each in search.search(config, slice_, first, attempt):
        tried.append(each)
        print(f"  {plan.tried_line(each, slice_)}", flush=True)
    found |= plan.advice(tried)
    print(plan.advice_line(found))
    raise DoesNotFit(f"{spec.name} does not fit {slice_.name}.", found)


def _attempt(config: ConfigDict, spec: specs.Spec, slice_: Slice):
    """Parts of the memory, seconds, and the outcome."""
    from sft.plan.search import Outcome

    try:
        compiled = compiling.compile_step(config, spec, slice_)
    except compiling.NoFit as no:
        assert no.memory
        outcome = Outcome(False, no.needed, at_least=not no.reason, why=no.reason)
        return no.memory, no.seconds, outcome
    return compiled.memory, compiled.seconds, Outcome(True, compiled.memory.total)


def _share(workdir: str, given: float | None) -> tuple[float, str]:
    """Share of the positions with loss, and where it comes from.

    Raises:
      UserError: not a share.
    """
    if given is not None:
        if not 0 <= given <= 1:
            raise UserError(f"--trained_share={given}: expected a number from 0 to 1.")
        return given, "--trained_share"
    path = path_of(workdir) / "data" / "report.json"
    if workdir and path.exists():
        train = read_json(path).get("sets", {}).get("train", {})
        if train.get("tokens"):
            return train["trained_tokens"] / train["tokens"], str(path)
    return 1.0, "assumed; --trained_share changes it"
