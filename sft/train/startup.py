"""What comes before the first step: the state, the compilation cache, and how long it all took."""

import functools
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import jax
from etils import epath

from sft.model import adapted, specs
from sft.model.weights import peft
from sft.run.directory import path_of, read_json, write_json
from sft.types import TrainState, Tree

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from sft.train.steps import Steps

_IMPORTED = time.monotonic()
_HIT = "/jax/compilation_cache/cache_hits"
_MISS = "/jax/compilation_cache/cache_misses"
_COMPILE = "/jax/core/compile/backend_compile_duration"
_seen: defaultdict[str, float] = defaultdict(float)  # how often, or for how many seconds


def begin(config: "ConfigDict", steps: "Steps", params: Tree) -> tuple[TrainState, Tree]:
    """State before the first step, and what stays as it is; with the adapters to go on with.

    Args:
      params: the pretrained weights.

    Raises:
      UserError: see ``sft.model.weights.peft.start``.
    """
    given = peft.start(config, specs.get(config.model.name)) if config.lora.start else None
    state, frozen = steps.init(jax.random.key(config.seed), params)
    if given:
        state = state.replace(trainable=jax.device_put(given, steps.state_sharding.trainable))
    return state, frozen


def report_adapted(config: "ConfigDict", workdir: Path) -> None:
    """Prints what is tuned, and adds it to ``environment.json`` as ``adapted``; see ``adapted``."""
    found = adapted.describe(specs.get(config.model.name), config)
    path = workdir / "environment.json"
    write_json(path, read_json(path) | {"adapted": found})
    print(adapted.said(found))


def use_cache(directory: str) -> None:
    """Keeps what is compiled in ``directory`` (``""`` = no), local or ``gs://…``, for later runs.

    Call it before the first compilation, and never in a process that compiles for devices it does
    not have. JAX's own setting (``JAX_COMPILATION_CACHE_DIR``) goes before ours. JAX makes the
    key of an entry of program, compiler version and flags, and device topology, which for CPUs
    lists the instruction set: hosts of different kinds can share a directory. Where it cannot be
    written, JAX warns and goes on; of several processes the first one writes.
    """
    _listen()
    if directory and not jax.config.jax_compilation_cache_dir:
        path = epath.Path(directory).expanduser()
        jax.config.update("jax_compilation_cache_dir", os.fspath(path))


@functools.cache
def _listen() -> None:
    """Counts compilations from here on; once per process, since listeners are for good."""

    def count(event: str, **_: str | int) -> None:
        if event in (_HIT, _MISS):
            _seen[event] += 1

    def add(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILE:
            _seen[event] += duration_secs

    jax.monitoring.register_event_listener(count)
    jax.monitoring.register_event_duration_secs_listener(add)


def report_first_step(workdir: str, step: int) -> None:
    """Prints how long it took from the start of the process until the end of this, its first step.

    Adds it to ``environment.json``: ``"first_step": {"step", "seconds", "compile_seconds",
    "cache_hits", "cache_misses"}``. In ``seconds`` are the imports, reading of data and weights,
    compilation and, in a new run, the validation before the first step; in ``compile_seconds`` the
    time of the compiler, or of reading from the cache instead. Programs that compile in less than
    a second are not kept, and neither hits nor misses.
    """
    found = {
        "step": step,
        "seconds": round(process_seconds(), 3),
        "compile_seconds": round(_seen[_COMPILE], 3),
        "cache_hits": int(_seen[_HIT]),
        "cache_misses": int(_seen[_MISS]),
    }
    path = path_of(workdir) / "environment.json"
    write_json(path, read_json(path) | {"first_step": found})
    print(
        f"step {step} finished {found['seconds']:.1f} s after the start of the process, "
        f"{found['compile_seconds']:.1f} s of them in the compiler "
        f"(cache: {found['cache_hits']} hits, {found['cache_misses']} misses)"
    )


def process_seconds() -> float:
    """Since this process was started, as Linux tells; elsewhere since this module was imported."""
    try:
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(after_name[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5)
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError):
        return time.monotonic() - _IMPORTED
