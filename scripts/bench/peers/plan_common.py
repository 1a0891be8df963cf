"""What the peers' programs of plan.py share: the slice, the compiler, the line of JSON.

    .venv-peers-tunix/bin/python scripts/bench/peers/plan_tunix.py --model gemma3_1b \
      --topology v5e:2x4 --host 2,4,1 --rows 8 --length 2048

Runs in each peer's own environment and imports nothing of ours. ``--layers 2`` cuts the model, to
try whether a program works at all.
"""

import argparse
import json
import os
import time

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# As in sft/plan/compile.py, for this process alone.
os.environ.update(TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="true")
jax.config.update("jax_platforms", "cpu")

AXES = ("fsdp", "tp")
BATCH = PartitionSpec("fsdp")


def arguments(variants: tuple[str, ...] = ("",)) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, choices=("gemma3_1b", "gemma3_4b"))
    parser.add_argument("--topology", required=True, help="as in v5e:2x4")
    parser.add_argument("--host", required=True, help="chips of a host along the axes: 2,4,1")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--layers", type=int, default=0, help="0 = all")
    parser.add_argument("--variant", default=variants[0], choices=variants)
    return parser.parse_args()


def mesh(args: argparse.Namespace) -> Mesh:
    """All devices along ``fsdp``."""
    bounds = tuple(int(n) for n in args.host.split(","))
    devices = topologies.get_topology_desc(
        args.topology, "tpu", chips_per_host_bounds=bounds
    ).devices
    return Mesh(np.array(devices).reshape(-1, 1), AXES)


def described(tree, mesh: Mesh, spec):
    """``tree`` as shapes with shardings; ``spec`` gives a leaf's partition."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec(x))),
        tree,
    )


def divided(mesh: Mesh):
    """Along the largest axis that ``fsdp`` divides; whole where none is."""

    def spec(x) -> PartitionSpec:
        able = [i for i, n in enumerate(x.shape) if n % mesh.shape["fsdp"] == 0]
        if not able or x.size < 2**16:
            return PartitionSpec()
        axis = max(able, key=lambda i: x.shape[i])
        return PartitionSpec(*("fsdp" if i == axis else None for i in range(x.ndim)))

    return spec


def compile_and_print(step, mesh: Mesh, *arrays) -> None:
    """Compiles a jitted step and prints what the compiler counted on a device, in bytes."""
    jax.config.update("jax_enable_compilation_cache", False)
    started = time.perf_counter()
    with jax.default_device(mesh.devices.flat[0]), mesh:
        try:
            found = step.lower(*arrays).compile().memory_analysis()
        except jax.errors.JaxRuntimeError as error:
            print(json.dumps({"error": " ".join(str(error).split())[:300]}))
            return
    result = {
        "arguments": found.argument_size_in_bytes,
        "temporaries": found.temp_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes,
        "code": found.generated_code_size_in_bytes,
        "total": found.peak_memory_in_bytes,
        "compile_seconds": time.perf_counter() - started,
    }
    print(json.dumps(result))
