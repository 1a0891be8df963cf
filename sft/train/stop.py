"""SIGTERM and Ctrl-C: a run stops after a whole step, on all hosts after the same one."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sft.run.signals import Signals


class Stop(Signals):
    """Remembers a signal, to stop at the next step boundary.

    With several hosts, whether any has got one is a maximum over the devices of ``mesh``, computed
    between two steps: what all read of the same program is the same. (JAX's preemption service
    agrees on a step too, but knows SIGTERM only, forgets it after a restart if it comes before the
    first step, and Orbax reports steps of its own to it.)
    """

    def __init__(self, mesh: Mesh):
        super().__init__()
        self._several = jax.process_count() > 1
        self._asked: jax.Array | None = None
        self._split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._any = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def soon(self) -> bool:
        """Whether to stop. With several hosts, as of the step before: nothing is waited for."""
        asked, self._asked = self._asked, self._ask() if self._several else None
        return bool(self.caught) if not self._several else asked is not None and bool(asked)

    def now(self) -> bool:
        """Whether to stop; waits for the steps that are under way."""
        return bool(self._ask()) if self._several else bool(self.caught)

    def _ask(self) -> jax.Array:
        here = np.full(len(self._split.addressable_devices), bool(self.caught), np.int32)
        return self._any(jax.make_array_from_process_local_data(self._split, here))
