"""Where every array lives: regular expressions to partition specs, over a named mesh.

The axes are those of ``sft.mesh.axes``. A leaf that no rule matches, or that its rule does not
divide evenly, is an error: silent replication is how memory plans go wrong.
"""

import math
import re
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from sft.errors import UserError
from sft.mesh import axes as layout
from sft.types import Array, Tree

P = PartitionSpec
AXES = ("data", "fsdp", "sequence", "tensor")
ROWS = ("data", "fsdp")
PLACES = P(ROWS, "sequence")  # of anything that is [B, L, …]
SHARED = ("fsdp", "sequence")  # what weights are gathered over

# The first rule whose pattern is found in the path of a leaf ("layers/q_SxNxHxD") decides. The last
# axis of a weight is left whole where it is the embedding: a part of that is seldom a multiple of
# 128, a TPU's lanes, and would be stored transposed and copied in every step.
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"embed_VxD$", P(("tensor", *SHARED), None)),
    (r"_Sx(N|K)xHxD$", P(None, "tensor", SHARED, None)),
    (r"(gate|up)_SxDxF$", P(None, SHARED, "tensor")),
    (r"down_SxFxD$", P(None, ("tensor", *SHARED), None)),
    (r"norm_(D|SxD|SxH)$", P()),
    # Adapters lie as the weights that they adapt, moments and gradients with them: replicated,
    # those of a 27B model take over 1 GiB a device at rank 16.
    (r"(^|/)(q|k|v|gate|up)/A$", P(None, SHARED, None)),
    (r"(^|/)(q|k|v)/B$", P(None, None, "tensor", SHARED)),
    (r"(^|/)(gate|up)/B$", P(None, None, ("tensor", *SHARED))),
    (r"(^|/)o/A$", P(None, "tensor", SHARED, None)),
    (r"(^|/)down/A$", P(None, ("tensor", *SHARED), None)),
    (r"(^|/)(o|down)/B$", P(None, None, SHARED)),
    (r"(^|/)(q|k|v|o|gate|up|down)/(m|gain)$", P()),
    (r"(^|/)(step|rng|count)$", P()),
)


def make_mesh(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of ``config.mesh`` over ``devices`` (all by default).

    Raises:
      UserError: not the platform asked for, another number of slices, or as ``layout.of``.
    """
    devices = list(jax.devices() if devices is None else devices)
    want = config.mesh.platform
    if want and devices[0].platform != want:
        raise UserError(
            f"config.mesh.platform = {want!r}, but JAX found {devices[0].platform!r} devices only. "
            f"Install the extra for it (uv sync --extra tpu | cuda12 | cuda13) or unset the key."
        )
    slices = _slices(config, devices)
    found = layout.of(config, len(devices), len(slices))
    own = (found.data // found.slices, *found.shape[1:])
    # Neighbours along the later axes, which talk most, are neighbours in the torus.
    parts = [
        mesh_utils.create_device_mesh(own, part, allow_split_physical_axes=True) for part in slices
    ]
    return Mesh(np.concatenate(parts), AXES)


def _slices(config: ConfigDict, devices: list[jax.Device]) -> list[list[jax.Device]]:
    """The devices of each slice. Other platforms have none, and are cut into as many as asked."""
    want = config.mesh.slices
    if devices[0].platform != "tpu":
        count = max(want, 1)
        if len(devices) % count:
            raise UserError(f"config.mesh.slices = {want} does not divide {len(devices)} devices.")
        own = len(devices) // count
        return [devices[i : i + own] for i in range(0, len(devices), own)]
    of: dict[int, list[jax.Device]] = {}
    for device in devices:
        of.setdefault(getattr(device, "slice_index", 0), []).append(device)
    if want not in (0, len(of)):
        raise UserError(
            f"config.mesh.slices = {want}, but the devices are in {len(of)} slice(s). Set it to 0, "
            "or ask for as many slices."
        )
    return [of[index] for index in sorted(of)]


def groups(mesh: Mesh) -> int:
    """Data-parallel parts of a batch."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def shares(mesh: Mesh) -> int:
    """Parts of a weight, besides those of ``tensor``."""
    return math.prod(mesh.shape[axis] for axis in SHARED)


def of_tree(tree: Tree, mesh: Mesh, rules=RULES) -> Tree:
    """A ``NamedSharding`` for each leaf (anything with a ``shape``) of ``tree``.

    Raises:
      UserError: a leaf without a rule, or a dimension its rule does not divide.
    """
    return jax.tree_util.tree_map_with_path(lambda path, x: _of_leaf(path, x, mesh, rules), tree)


def placed(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Keeps an activation, ``[B, L, …]``, where its positions are: weights come to it, not it to
    them."""
    return x if mesh is None else constrained(x, mesh, PLACES)


def whole_rows(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """``[B, L, …]`` with all positions of a row on each device that ``sequence`` gives a part."""
    if mesh is None or mesh.shape["sequence"] == 1:
        return x
    return constrained(x, mesh, P(ROWS, None, *[P.UNCONSTRAINED] * (x.ndim - 2)))


def rows_of(
    table_VxD: jax.Array, ids: Array, mesh: Mesh | None, spec: PartitionSpec = PLACES
) -> jax.Array:
    """``table_VxD[ids]``, laid out by ``spec``. Devices that share the rows of the table look up
    each other's ids in theirs, so that none needs the whole table."""
    found = table_VxD[ids]
    if mesh is None or shares(mesh) == 1:
        return found
    kept = [tuple(axis for axis in _axes(entry) if axis not in SHARED) for entry in spec]
    return constrained(constrained(found, mesh, P(*kept)), mesh, spec)


def constrained(x: jax.Array, mesh: Mesh, spec: PartitionSpec) -> jax.Array:
    """``x``, laid out by ``spec`` from here on."""
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def gathered(layer: Tree, mesh: Mesh | None, rules=RULES) -> Tree:
    """One layer's weights or adapters, a slice of each stacked leaf, with the parts that devices
    share put together. Inside the scan, so that one layer at a time is whole."""
    if mesh is None or shares(mesh) == 1:
        return layer

    def whole(path, x: jax.Array) -> jax.Array:
        name = _name(path)
        spec = next(spec for pattern, spec in rules if re.search(pattern, name))
        kept = [tuple(axis for axis in _axes(entry) if axis not in SHARED) for entry in spec[1:]]
        return constrained(x, mesh, P(*kept))

    return jax.tree_util.tree_map_with_path(whole, layer)


def _name(path) -> str:
    """As in ``"layers/q_SxNxHxD"``."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def _axes(entry: str | Sequence[str] | None) -> Sequence[str]:
    """Mesh axes of one entry of a partition spec."""
    return (entry,) if isinstance(entry, str) else entry or ()


def _of_leaf(path, leaf, mesh: Mesh, rules) -> NamedSharding:
    name = _name(path)
    spec = next((spec for pattern, spec in rules if re.search(pattern, name)), None)
    if spec is None:
        raise UserError(f"sharding: no rule matches {name} {tuple(leaf.shape)}. Add one to RULES.")
    for size, entry in zip(leaf.shape, spec, strict=False):
        axes = _axes(entry)
        parts = math.prod(mesh.shape[axis] for axis in axes)
        if size % parts:
            raise UserError(
                f"sharding: {name} {tuple(leaf.shape)} cannot be cut into {parts} along {entry!r} "
                f"(size {size}). Choose a config.mesh.{axes[0]} that divides it."
            )
    return NamedSharding(mesh, spec)
