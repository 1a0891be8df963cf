"""The training step compiled for a TPU slice on a machine without one: what memory it takes.

It is the very function that the loop calls, ``steps.train``, over the devices of a topology and
arrays that are only described. Nothing is run. That it compiles proves memory and legality, not
numerics and not speed.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
import sys
import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from sft.errors import UserError
from sft.mesh.slices import Slice

if TYPE_CHECKING:
    import jax

    from sft.model.specs import Spec

# For this process alone, and before JAX starts. Training must not have them: the second one turns
# off how a TPU machine finds its neighbours. The third lets several processes compile at a time.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
}
_SCHEDULE = 1000  # steps of the learning-rate schedule: part of the program, not of its memory
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device.

    Attributes:
      weights: of the base model; the float32 masters under full tuning.
      adapters: the other trainables and all optimiser moments.
      batch: the rows of a step.
      padding: what the compiler adds to those to align them.
      temporaries: what is set aside for activations, gradients, gathered weights, all else.
      code: the program.
      peak: at the worst moment; 0 = not known. It may be less than the sum of the parts, which are
        not all there at once. It may be more, by up to a TPU's VMEM (128 MiB on v5e and v6e): that
        of a small program was higher by exactly what was prefetched there.
    """

    weights: int
    adapters: int
    batch: int
    padding: int
    temporaries: int
    code: int
    peak: int = 0

    @property
    def parts(self) -> int:
        return sum(dataclasses.astuple(self)) - self.peak

    @property
    def total(self) -> int:
        """The peak, which is what must fit; the sum of the parts where it is not known."""
        return self.peak or self.parts


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A step that fits, and the wall-clock seconds of lowering and compiling it."""

    memory: Memory
    seconds: float


class NoFit(Exception):
    """The compiler refused.

    Attributes:
      reason: the compiler's words, one line; ``""`` where it was not asked, because what lies in
        memory between steps does not fit.
      needed, limit: bytes on a device; ``None`` where another memory than HBM ran out.
      memory: what is known of the parts.
      seconds: until the refusal.
    """

    def __init__(self, reason: str, needed: int | None, limit: int | None):
        super().__init__(reason)
        self.reason, self.needed, self.limit = reason, needed, limit
        self.memory: Memory | None = None
        self.seconds = 0.0


def prepare() -> None:
    """Sets the environment of a planning process. Call before anything imports JAX.

    Raises:
      UserError: libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "sft plan needs the TPU compiler, which is not installed (Linux on x86-64 only). Run "
            "source scripts/env.sh plan, or uv sync --extra plan."
        )
    os.environ.update(ENVIRONMENT)
    if "jax" in sys.modules:  # a configuration file may have imported it
        sys.modules["jax"].config.update("jax_platforms", "cpu")


def devices(slice_: Slice) -> Sequence["jax.Device"]:
    """The described devices of a slice, in the order of ``jax.devices()`` there."""
    from jax.experimental import topologies

    name, keywords = slice_.topology
    return topologies.get_topology_desc(name, "tpu", **keywords).devices


def compile_step(config: ConfigDict, spec: "Spec", slice_: Slice) -> Compiled:
    """Compiles the step of ``config`` for ``slice_``.

    Raises:
      NoFit: the compiler says that memory does not suffice.
      UserError: a mesh that does not suit the slice, the batch or the model.
    """
    from sft.mesh import sharding
    from sft.train import optim
    from sft.train.steps import make_steps

    mesh = sharding.make_mesh(config, devices(slice_))
    steps = make_steps(config, spec, optim.make(config.optim, _SCHEDULE), mesh)
    state, frozen, batch = arguments(config, spec, steps)
    resident = Memory(
        weights=_bytes(frozen or state.trainable),
        adapters=_bytes(state) - (0 if frozen else _bytes(state.trainable)),
        batch=_bytes(batch),
        padding=0,
        temporaries=0,
        code=0,
    )
    started, limit = time.perf_counter(), slice_.generation.hbm_bytes
    try:
        if resident.total > limit:
            raise NoFit("", resident.total, limit)
        program = compile_on(mesh.devices.flat[0], steps.train, state, frozen, batch)
    except NoFit as refused:
        rest = max((refused.needed or 0) - resident.total, 0)
        refused.memory = dataclasses.replace(resident, temporaries=rest)
        refused.seconds = time.perf_counter() - started
        raise
    stats = program.memory_analysis()
    memory = dataclasses.replace(
        resident,
        padding=stats.argument_size_in_bytes - resident.total,
        # The new state takes the place of the old one; what does not is a temporary here.
        temporaries=stats.temp_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
        peak=getattr(stats, "peak_memory_in_bytes", 0),
    )
    return Compiled(memory, time.perf_counter() - started)


def arguments(config: ConfigDict, spec: "Spec", steps: Any) -> tuple[Any, Any, Any]:
    """State, frozen weights and batch of ``steps.train``, described: shapes, dtypes, shardings."""
    import jax

    from sft.model import decoder
    from sft.types import Batch

    params = decoder.abstract_params(spec, steps.options.dtype)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state, frozen = jax.eval_shape(steps.init, key, params)
    cells = (config.train.batch_size, config.data.max_length)
    ids: Any = jax.ShapeDtypeStruct(cells, "int32", sharding=steps.batch_sharding)
    weights: Any = jax.ShapeDtypeStruct(cells, "float32", sharding=steps.batch_sharding)
    return (
        _placed(state, steps.state_sharding),
        _placed(frozen, steps.params_sharding) if frozen else frozen,
        Batch(ids, ids, weights, ids, ids),
    )


def compile_on(device: "jax.Device", function: Any, *described: Any) -> Any:
    """The program, lowered and compiled as if ``device`` were this machine's.

    Raises:
      NoFit: as ``compile_step``.
    """
    import jax

    # Kernels are chosen by the default device: without it a CPU's program would be measured.
    with _no_cache(), jax.default_device(device):
        try:
            return function.lower(*described).compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise refusal(str(error)) from None


def refusal(text: str) -> NoFit:
    """Reads what the compiler says: ``… (65.13G) exceeds available HBM (31.24G) …``."""
    line = " ".join(text.split("\nSee ")[0].split())
    found = re.search(
        r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)", line
    ) or re.search(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm", line)
    if not found:
        return NoFit(line, None, None)
    needed, unit, limit, limit_unit = found.groups()
    return NoFit(line, int(float(needed) * _UNITS[unit]), int(float(limit) * _UNITS[limit_unit]))


@contextlib.contextmanager
def _no_cache() -> Generator[None]:
    """Without the persistent cache, which a process that has no device can write and not read."""
    import jax

    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)


def _placed(tree: Any, shardings: Any) -> Any:
    import jax

    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
    )


def _bytes(tree: Any) -> int:
    """On one device."""
    import jax

    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )
