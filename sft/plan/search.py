"""What to change when a step does not fit: an ordered list of attempts, each tried in turn.

    microbatches  ->  remat  ->  mesh.fsdp  ->  mesh.tensor  ->  a larger slice

A change is kept when the next is tried, unless it made things worse. Knows nothing of
compilers: ``attempt`` is a function.
"""

import dataclasses
from collections.abc import Callable, Iterator

from ml_collections import ConfigDict

from sft import topology
from sft.errors import UserError
from sft.plan.roofline import layout
from sft.topology import Slice

REMAT = ("none", "projections", "layer")  # least memory last

Changes = dict[str, int | str]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of one attempt.

    Attributes:
      fits: whether it compiled.
      needed: bytes on a device; ``None`` where unknown.
      at_least: ``needed`` is without temporaries, which were not worth compiling for.
      why: it could not be tried, or what the compiler said besides numbers.
    """

    fits: bool
    needed: int | None
    at_least: bool = False
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Tried:
    """An attempt: the slice, what was changed in the configuration, what came of it."""

    slice_: Slice
    changes: Changes
    outcome: Outcome


Attempt = Callable[[ConfigDict, Slice], Outcome]


def search(config: ConfigDict, slice_: Slice, first: Outcome, attempt: Attempt) -> Iterator[Tried]:
    """Yields attempts; the last one fits, or nothing does.

    Args:
      first: of ``config`` itself on ``slice_``, which does not fit.
      attempt: compiles; may raise UserError where a mesh suits neither batch nor model.
    """
    kept, best = {}, first
    for stage in (_microbatches, _remat, _fsdp, _tensor):
        start = _changed(config, kept)
        for changes in stage(start, slice_.devices):
            tried = _try(config, slice_, kept | changes, attempt)
            yield tried
            if tried.outcome.fits:
                return
            if tried.outcome.needed is not None and not _worse(tried.outcome, best):
                kept, best = tried.changes, tried.outcome
    for larger in topology.larger(slice_):
        changes = kept | spread(_changed(config, kept), larger.devices)
        tried = _try(config, larger, changes, attempt)
        yield tried
        if tried.outcome.fits:
            return


def _try(config: ConfigDict, slice_: Slice, changes: Changes, attempt: Attempt) -> Tried:
    try:
        return Tried(slice_, changes, attempt(_changed(config, changes), slice_))
    except UserError as error:
        return Tried(slice_, changes, Outcome(False, None, why=f"not possible: {error}"))


def _changed(config: ConfigDict, changes: Changes) -> ConfigDict:
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(changes)
    return changed


def _worse(outcome: Outcome, than: Outcome) -> bool:
    known = outcome.needed is not None and than.needed is not None
    return known and not than.at_least and outcome.needed > than.needed


def _microbatches(config: ConfigDict, devices: int) -> Iterator[Changes]:
    rows = config.train.batch_size // layout(config, devices).groups
    parts = config.train.microbatches * 2
    while parts <= rows and rows % parts == 0:
        yield {"train.microbatches": parts}
        parts *= 2


def _remat(config: ConfigDict, devices: int) -> Iterator[Changes]:
    del devices
    for name in REMAT[REMAT.index(config.model.remat) + 1 :]:
        yield {"model.remat": name}


def _fsdp(config: ConfigDict, devices: int) -> Iterator[Changes]:
    fsdp, groups = config.mesh.fsdp * 2, devices // config.mesh.tensor
    while fsdp <= groups and groups % fsdp == 0:
        yield {"mesh.data": -1, "mesh.fsdp": fsdp}
        fsdp *= 2


def _tensor(config: ConfigDict, devices: int) -> Iterator[Changes]:
    """Takes devices from the batch: rows are kept, so parts of the batch get more of them."""
    tensor = config.mesh.tensor * 2
    while tensor <= devices and devices % tensor == 0:
        groups = devices // tensor
        yield {"mesh.data": -1, "mesh.fsdp": min(config.mesh.fsdp, groups), "mesh.tensor": tensor}
        tensor *= 2


def spread(config: ConfigDict, devices: int) -> Changes:
    """All devices share the weights: as many as the batch has rows for divide it, the rest heads.

    One row a device and microbatch is the least there is.
    """
    rows = config.train.batch_size
    groups = max(n for n in range(1, devices + 1) if devices % n == 0 and rows % n == 0)
    return {
        "train.microbatches": max(1, rows // groups),
        "mesh.data": -1,
        "mesh.fsdp": groups,
        "mesh.tensor": devices // groups,
    }
