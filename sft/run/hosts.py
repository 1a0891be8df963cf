"""Several hosts, one run: they start together, say the same, take turns, and end together.

In a single process everything here is done at once and does nothing. Nothing is compiled: hosts
talk through the key-value store of JAX's coordinator, so that they can be compared before the first
program is built, and a host that fails can say so while the others wait for it in a collective.
"""

import atexit
import contextlib
import hashlib
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Generator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from sft.errors import BAD_INPUT, BUG, PREEMPTED, Preempted, UserError
from sft.run import coordinator
from sft.run.coordinator import Hosts

if TYPE_CHECKING:
    from jax.sharding import Sharding

_POLL = 1.0  # seconds between looks for another host's failure
_VISIBLE = 60  # seconds in which a new file must be seen through a network file system
_AGAIN = 20.0  # seconds after which a signal that has ended nothing is sent again
_FAILED = "sft/failed"

_hosts = coordinator.ALONE
_interrupted: list[float] = []  # when a signal came that should have ended this process


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return _hosts.index == 0


@contextlib.contextmanager
def started(config: ConfigDict) -> Generator[None]:
    """Joins the hosts; inside, a failure on one of them ends all. Nothing may use a device before.

    Raises:
      UserError: see ``coordinator.join``.
    """
    global _hosts
    _hosts = coordinator.join(config)
    if _hosts.count == 1:
        yield
        return
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(_hosts, ended), daemon=True)
    watch.start()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except BaseException as error:
        ended.set()
        watch.join()
        if not isinstance(error, Preempted):  # which all of them are, at the same step
            _fail(_hosts, error)
        raise
    ended.set()
    watch.join()


def compare(what: str, ours: Mapping[str, Any]) -> None:
    """All hosts must say the same.

    Args:
      what: unlike that of any other comparison.
      ours: JSON values by what they are called in the message.

    Raises:
      UserError: on every host; names what differs, and each host's value.
    """
    text = json.dumps(ours)
    digest = hashlib.sha256(text.encode()).hexdigest()
    if set(_gather(f"digest/{what}", digest)) == {digest}:
        return
    everyone = [json.loads(text) for text in _gather(f"compare/{what}", text)]
    lines = []
    for name in {name: None for found in everyone for name in found}:
        where: dict[str, list[str]] = {}
        for host, found in enumerate(everyone):
            where.setdefault(json.dumps(found.get(name)), []).append(str(host))
        if len(where) > 1:
            said = ", ".join(f"{v[:80]} on host {' '.join(h)}" for v, h in where.items())
            lines.append(f"{name}: {said}")
    if lines:
        more = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise UserError(
            f"the hosts differ in {'; '.join(lines[:5])}{more}. Give all the same {what}."
        )


@contextlib.contextmanager
def in_turn(what: str) -> Generator[None]:
    """The block runs on the first host, then on the others, which find what it has written."""
    if not is_first():
        _wait(f"turn/{what}")
    yield
    if is_first() and _hosts.count > 1:
        _hosts.client.key_value_set(f"sft/turn/{what}", "done")


def barrier(what: str) -> None:
    """Returns when all hosts have come here."""
    _gather(f"barrier/{what}", "")


def check_shared(folder: Path) -> None:
    """All hosts must see the same directory: the first leaves a file, the others look for it.

    Raises:
      UserError: a host does not see it.
    """
    if _hosts.count == 1:
        return
    sign = folder / f".shared-{_gather('shared', uuid.uuid4().hex)[0]}"
    with in_turn("shared"):
        if is_first():
            sign.touch()
        end = time.monotonic() + _VISIBLE
        while not sign.exists():
            if time.monotonic() > end:
                raise UserError(
                    f"{folder}: host {_hosts.index} does not see what host 0 writes there. Give a "
                    "--workdir on a file system that all hosts share."
                )
            time.sleep(0.2)
            list(folder.glob(".shared-*"))  # a network file system looks again
    barrier("shared")
    if is_first():
        sign.unlink()


def share(sharding: "Sharding") -> tuple[int, int]:
    """Which part of a batch this host reads, and how many parts there are.

    Args:
      sharding: of rows and their positions. Hosts whose devices hold the same rows, because they
        divide weights or positions between them, read the same part.

    Raises:
      UserError: the hosts hold unequal parts, or overlapping ones.
    """
    held: dict[int, set[int]] = {}
    cells = (sharding.num_devices, sharding.num_devices)
    for device, (rows, _) in sharding.devices_indices_map(cells).items():
        held.setdefault(device.process_index, set()).add(rows.start or 0)
    parts = sorted({tuple(sorted(rows)) for rows in held.values()})
    overlap = sum(map(len, parts)) > len(set().union(*parts))
    if overlap or len({len(part) for part in parts}) > 1:
        raise UserError(
            f"config.mesh divides a batch unevenly among {len(held)} hosts (parts {parts}). Choose "
            "axes that the devices of one host fill, or that fill whole hosts."
        )
    here = next(iter(sharding.addressable_devices)).process_index
    return parts.index(tuple(sorted(held[here]))), len(parts)


def _gather(what: str, text: str) -> list[str]:
    """What each host says, in their order; the first reads it out to the others."""
    if _hosts.count == 1:
        return [text]
    _hosts.client.key_value_set(f"sft/{what}/{_hosts.index}", text)
    if is_first():
        said = [_wait(f"{what}/{host}") for host in range(_hosts.count)]
        _hosts.client.key_value_set(f"sft/{what}/all", json.dumps(said))
    return json.loads(_wait(f"{what}/all"))


def _wait(what: str) -> str:
    """Waits as long as it takes: a host that fails says so, and one that is lost ends all."""
    while True:  # by the second: Python sees no signal in between
        try:
            return _hosts.client.blocking_key_value_get(f"sft/{what}", 1000)
        except Exception as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def _watch(hosts: Hosts, ended: threading.Event) -> None:
    """Ends this process as soon as another says that it has failed, with its words and code.

    An exception that is raised for a signal can be lost, in a finaliser or in a callback from C++:
    then the signal comes again.
    """
    while not ended.wait(_POLL):
        if _interrupted and time.monotonic() > _interrupted[-1] + _AGAIN:
            _interrupted.clear()
            os.kill(os.getpid(), signal.SIGTERM)
        try:
            code, index, text = json.loads(hosts.client.key_value_try_get(_FAILED))
        except Exception:  # nobody has
            continue
        print(f"sft: host {index}: {text}", file=sys.stderr, flush=True)
        os._exit(code)


def _fail(hosts: Hosts, error: BaseException) -> None:
    """Tells the others, and has this process leave without waiting for them."""
    code, text = BUG, f"{type(error).__name__}: {error}"
    if isinstance(error, UserError):
        code, text = BAD_INPUT, str(error)
    elif isinstance(error, KeyboardInterrupt):
        code, text = PREEMPTED, "interrupted before there was anything to save."
    with contextlib.suppress(Exception):  # another has failed too, or the coordinator is gone
        hosts.client.key_value_set(_FAILED, json.dumps([code, hosts.index, text]))

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        if hosts.index == 0:
            time.sleep(3 * _POLL)  # it is the coordinator: the others must have heard
        os._exit(code)

    atexit.register(leave)  # before JAX's own, which would wait for the others and abort


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    _interrupted.append(time.monotonic())
    raise KeyboardInterrupt
