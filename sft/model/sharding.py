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
    (r"(^|/)(q|k|v|o|gate|up|down)/[ABm]$", P()),  # adapters are small
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


def _of_leaf(path, leaf, mesh: Mesh, rules) -> NamedSharding:
    name = "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)
    spec = next((spec for pattern, spec in rules if re.search(pattern, name)), None)
    if spec is None:
        raise UserError(f"sharding: no rule matches {name} {tuple(leaf.shape)}. Add one to RULES.")
    for size, axes in zip(leaf.shape, spec, strict=False):
        names = [axes] if isinstance(axes, str) else list(axes or ())
        parts = math.prod(mesh.shape[a] for a in names)
        if size % parts:
            raise UserError(
                f"sharding: {name} {tuple(leaf.shape)} cannot be cut into {parts} along {axes!r} "
                f"(size {size}). Choose a config.mesh.{names[0]} that divides it."
            )
    return NamedSharding(mesh, spec)
