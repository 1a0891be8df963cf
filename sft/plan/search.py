"""What to change when a step does not fit: an ordered list of attempts, each tried in turn.

    microbatches -> remat -> mesh.fsdp -> mesh.sequence -> mesh.tensor -> remat = host -> a larger
    slice

A change is kept when the next is tried, unless it made things worse; a larger slice need not keep
activations on the host. Knows nothing of compilers: ``attempt`` is a function.
"""

import dataclasses
from collections.abc import Callable, Iterator

from ml_collections import ConfigDict

from sft.errors import UserError
from sft.mesh import axes, slices
from sft.mesh.slices import Slice

REMAT = ("none", "projections", "layer")  # least memory last
LANES = 128  # parts of a row must be a multiple of it: see sft.model.attention

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
    for stage in (_microbatches, _remat, _fsdp, _sequence, _tensor):
        for changes in stage(_changed(config, kept), slice_):
            tried = _try(config, slice_, kept | changes, attempt)
            yield tried
            if tried.outcome.fits:
                return
            if tried.outcome.needed is not None and not _worse(tried.outcome, best):
                kept, best = tried.changes, tried.outcome
    if _changed(config, kept).model.remat != "host":
        tried = _try(config, slice_, kept | {"model.remat": "host"}, attempt)
        yield tried
        if tried.outcome.fits:
            return
    for larger in slices.larger(slice_):
        changes = kept | spread(_changed(config, kept), larger)
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


def _microbatches(config: ConfigDict, slice_: Slice) -> Iterator[Changes]:
    rows = config.train.batch_size // axes.unchecked(config, slice_.devices).groups
    parts = config.train.microbatches * 2
    while parts <= rows and rows % parts == 0:
        yield {"train.microbatches": parts}
        parts *= 2


def _remat(config: ConfigDict, slice_: Slice) -> Iterator[Changes]:
    del slice_
    if config.model.remat in REMAT:
        for name in REMAT[REMAT.index(config.model.remat) + 1 :]:
            yield {"model.remat": name}


def _fsdp(config: ConfigDict, slice_: Slice) -> Iterator[Changes]:
    fsdp = config.mesh.fsdp * 2
    most = slice_.devices // slice_.count // config.mesh.sequence // config.mesh.tensor
    while fsdp <= most and most % fsdp == 0:
        yield {"mesh.data": -1, "mesh.fsdp": fsdp}
        fsdp *= 2


def _sequence(config: ConfigDict, slice_: Slice) -> Iterator[Changes]:
    """Takes devices from the batch, and gives each of them a part of every row."""
    for changes in _doubled("sequence", config, slice_):
        if _cuts_rows(config, int(changes["mesh.sequence"])):
            yield changes


def _tensor(config: ConfigDict, slice_: Slice) -> Iterator[Changes]:
    """Takes devices from the batch, and gives each of them a part of every layer."""
    yield from _doubled("tensor", config, slice_)


def _doubled(axis: str, config: ConfigDict, slice_: Slice) -> Iterator[Changes]:
    """Rows are kept, so parts of the batch get more of them."""
    size = config.mesh[axis] * 2
    most = slice_.devices // slice_.count * config.mesh[axis]
    most //= config.mesh.sequence * config.mesh.tensor
    while size <= most and most % size == 0:
        fsdp = min(config.mesh.fsdp, most // size)
        yield {"mesh.data": -1, "mesh.fsdp": fsdp, f"mesh.{axis}": size}
        size *= 2


def _cuts_rows(config: ConfigDict, parts: int) -> bool:
    return config.data.max_length % (parts * LANES) == 0


def spread(config: ConfigDict, slice_: Slice) -> Changes:
    """All devices of a slice share the weights: as many as the batch has rows for divide it, the
    rest divide rows, or heads where rows are too short.

    One row a device and microbatch is the least there is.
    """
    rows, devices = config.train.batch_size // slice_.count, slice_.devices // slice_.count
    groups = max(n for n in range(1, devices + 1) if devices % n == 0 and rows % n == 0)
    rest = devices // groups
    sequence = rest if _cuts_rows(config, rest) else 1
    return {
        "train.microbatches": max(1, rows // groups),
        "mesh.data": -1,
        "mesh.fsdp": groups,
        "mesh.sequence": sequence,
        "mesh.tensor": rest // sequence,
    }
