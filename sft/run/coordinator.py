"""How the hosts of a run find one another: JAX's coordinator, joined before any device is used."""

import contextlib
import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Generator, Mapping
from typing import Any

from ml_collections import ConfigDict

from sft.errors import BAD_INPUT, UserError

# Where the hosts meet: host:port of process 0, how many there are, which one this is. The first
# alone may be "auto": JAX then asks the platform (Slurm, Open MPI, Kubernetes, TPU).
VARIABLES = ("SFT_COORDINATOR", "SFT_PROCESSES", "SFT_PROCESS")
_HEARTBEAT = 60  # seconds without a sign of life after which a host counts as lost
_LEAVING = 120  # seconds in which all hosts must have ended once the first has


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The coordinator's client, and this process among all."""

    client: Any
    index: int
    count: int


ALONE = Hosts(None, 0, 1)


def join(config: ConfigDict) -> Hosts:
    """Joins the hosts where ``VARIABLES`` say so, or on a TPU VM, which knows the others itself.

    Nothing may have used a device before. A host that does not come within ``config.mesh.timeout``
    ends the process, with the exit code of a ``UserError``.

    Raises:
      UserError: the variables are incomplete, or the coordinator cannot be reached.
    """
    given = {name: os.environ.get(name, "") for name in VARIABLES}
    where = given["SFT_COORDINATOR"]
    if not any(given.values()) and not _on_tpu(config):
        return ALONE
    import jax
    from jax._src import distributed  # its client has no public name

    arguments: dict[str, Any] = {}
    if any(given.values()) and where != "auto":
        try:
            count, index = int(given["SFT_PROCESSES"]), int(given["SFT_PROCESS"])
        except ValueError:
            count, index = 0, 0
        if not 0 <= index < count or not where.rpartition(":")[2].isdigit():
            told = ", ".join(f"{name}={value!r}" for name, value in given.items())
            raise UserError(
                f"{told}: expected host:port, the number of processes, and which one this is, "
                "counted from 0."
            )
        arguments = {"coordinator_address": where, "num_processes": count, "process_id": index}
    if not jax.config.jax_cpu_collectives_implementation:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        with _deadline(config.mesh.timeout, arguments):
            jax.distributed.initialize(
                **arguments,
                initialization_timeout=config.mesh.timeout + 60,  # it aborts; ours explains
                heartbeat_timeout_seconds=_HEARTBEAT,
                shutdown_timeout_seconds=_LEAVING,
            )
    except Exception as error:  # of many kinds: of RPC, of the metadata server, of arguments
        if not any(given.values()) and "should be defined" in str(error):
            return ALONE  # a TPU VM that knows of no others
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the hosts cannot be joined ({reason}). Coordinator: {where or 'from the platform'}. "
            f"Is its port free, and are {', '.join(VARIABLES)} right?"
        ) from error
    # JAX took SIGTERM for a service of its own, which forgets one that comes before training.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    state = distributed.global_state
    return Hosts(state.client, state.process_id, state.num_processes)


def _on_tpu(config: ConfigDict) -> bool:
    if config.mesh.platform not in ("", "tpu"):
        return False
    import jax
    from jax._src import cloud_tpu_init

    asked = jax.config.jax_platforms or "tpu"
    return cloud_tpu_init.running_in_cloud_tpu_vm and "tpu" in asked.split(",")


@contextlib.contextmanager
def _deadline(seconds: int, arguments: Mapping[str, Any]) -> Generator[None]:
    """Ends the process when the block has not ended in time: JAX would abort without a reason."""
    where, here = "of the platform", ""
    if arguments:
        where = arguments["coordinator_address"]
        here = f" This is process {arguments['process_id']} of {arguments['num_processes']}."
    text = (
        f"sft: after config.mesh.timeout = {seconds} s not all hosts are there. Start the same "
        f"command on every host; each must reach the coordinator {where}.{here}"
    )

    def give_up() -> None:
        print(text, file=sys.stderr, flush=True)
        os._exit(BAD_INPUT)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
