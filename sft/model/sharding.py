"""Where every array lives: regular expressions to partition specs, over a named mesh.

Mesh axes: ``data`` divides the batch; ``fsdp`` divides the batch and the weights; ``tensor``
divides heads, hidden units and the vocabulary. A leaf that no rule matches, or that its rule does
not divide evenly, is an error: silent replication is how memory plans go wrong.
"""

import math
import re
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from sft.errors import UserError
from sft.types import Tree

P = PartitionSpec
AXES = ("data", "fsdp", "tensor")
BATCH = P(("data", "fsdp"))

# The first rule whose pattern is found in the path of a leaf ("layers/q_SxDxNxH") decides.
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"embed_VxD$", P("tensor", "fsdp")),
    (r"(^|/)(q_SxDxNxH|k_SxDxKxH|v_SxDxKxH)$", P(None, "fsdp", "tensor", None)),
    (r"o_SxNxHxD$", P(None, "tensor", None, "fsdp")),
    (r"(gate|up)_SxDxF$", P(None, "fsdp", "tensor")),
    (r"down_SxFxD$", P(None, "tensor", "fsdp")),
    (r"norm_(D|SxD|SxH)$", P()),
    # Adapters lie as the weights that they adapt, moments and gradients with them: replicated,
    # those of a 27B model take over 1 GiB a device at rank 16.
    (r"(^|/)(q|k|v|gate|up)/A$", P(None, "fsdp", None)),
    (r"(^|/)(q|k|v)/B$", P(None, None, "tensor", "fsdp")),
    (r"(^|/)(gate|up)/B$", P(None, None, ("tensor", "fsdp"))),
    (r"(^|/)o/A$", P(None, "tensor", "fsdp", None)),
    (r"(^|/)down/A$", P(None, ("tensor", "fsdp"), None)),
    (r"(^|/)(o|down)/B$", P(None, None, "fsdp")),
    (r"(^|/)(q|k|v|o|gate|up|down)/(m|gain)$", P()),
    (r"(^|/)(step|rng|count)$", P()),
)


def make_mesh(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of ``config.mesh`` over ``devices`` (all by default).

    Raises:
      UserError: not the platform asked for, or the axes do not multiply to the device count.
    """
    devices = list(jax.devices() if devices is None else devices)
    want = config.mesh.platform
    if want and devices[0].platform != want:
        raise UserError(
            f"config.mesh.platform = {want!r}, but JAX found {devices[0].platform!r} devices only. "
            f"Install the extra for it (uv sync --extra tpu | cuda12 | cuda13) or unset the key."
        )
    fsdp, tensor, data = config.mesh.fsdp, config.mesh.tensor, config.mesh.data
    if data == -1:
        data = len(devices) // (fsdp * tensor)
    if data * fsdp * tensor != len(devices):
        raise UserError(
            f"config.mesh: data {data} x fsdp {fsdp} x tensor {tensor} = {data * fsdp * tensor}, "
            f"but there are {len(devices)} devices. Set data = -1 or change the others."
        )
    if config.train.batch_size % (data * fsdp * config.train.microbatches):
        raise UserError(
            f"config.train.batch_size = {config.train.batch_size} must be a multiple of mesh data "
            f"{data} x fsdp {fsdp} x microbatches {config.train.microbatches}."
        )
    return Mesh(np.array(devices).reshape(data, fsdp, tensor), AXES)


def groups(mesh: Mesh) -> int:
    """Data-parallel parts of a batch."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def of_tree(tree: Tree, mesh: Mesh, rules=RULES) -> Tree:
    """A ``NamedSharding`` for each leaf (anything with a ``shape``) of ``tree``.

    Raises:
      UserError: a leaf without a rule, or a dimension its rule does not divide.
    """
    return jax.tree_util.tree_map_with_path(lambda path, x: _of_leaf(path, x, mesh, rules), tree)


def rows(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Keeps an activation, ``[B, …]``, where its rows are: weights come to it, not it to them."""
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, BATCH))


def gathered(layer: Tree, mesh: Mesh | None, rules=RULES) -> Tree:
    """One layer's weights or adapters, a slice of each stacked leaf, with the parts that ``fsdp``
    shares put together. Inside the scan, so that one layer at a time is whole."""
    if mesh is None or mesh.shape["fsdp"] == 1:
        return layer

    def whole(path, x: jax.Array) -> jax.Array:
        name = _name(path)
        spec = next(spec for pattern, spec in rules if re.search(pattern, name))
        kept = [tuple(axis for axis in _axes(entry) if axis != "fsdp") for entry in spec[1:]]
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(*kept)))

    return jax.tree_util.tree_map_with_path(whole, layer)


def _name(path) -> str:
    """As in ``"layers/q_SxDxNxH"``."""
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
