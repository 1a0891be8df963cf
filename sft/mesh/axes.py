"""How the devices of a run are divided: the axes of ``config.mesh``, checked. Knows no devices.

data      divides the batch; across slices, this axis alone
fsdp      divides the batch, and the weights, which are gathered layer by layer
sequence  divides the positions of every row, and the weights as fsdp does
tensor    divides heads, hidden units and the vocabulary
"""

import dataclasses

from ml_collections import ConfigDict

from sft.errors import UserError


@dataclasses.dataclass(frozen=True)
class Layout:
    """Devices along each axis, and the slices that ``data`` goes across."""

    data: int
    fsdp: int
    sequence: int
    tensor: int
    slices: int = 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.data, self.fsdp, self.sequence, self.tensor

    @property
    def devices(self) -> int:
        return self.data * self.fsdp * self.sequence * self.tensor

    @property
    def groups(self) -> int:
        """Parts of a batch."""
        return self.data * self.fsdp

    @property
    def shared(self) -> int:
        """Parts of a weight, besides those of ``tensor``."""
        return self.fsdp * self.sequence


def unchecked(config: ConfigDict, devices: int, slices: int = 1) -> Layout:
    """What ``config.mesh`` says; an axis of -1 takes what the others leave of the devices."""
    mesh = config.mesh
    within = mesh.fsdp * mesh.sequence * mesh.tensor
    data = devices // within if mesh.data == -1 else mesh.data
    return Layout(data, mesh.fsdp, mesh.sequence, mesh.tensor, slices)


def of(config: ConfigDict, devices: int, slices: int = 1) -> Layout:
    """Divides ``devices``, which are as many on each of the slices.

    Raises:
      UserError: the axes do not multiply to the device count, or do not divide slices, batch or
        rows.
    """
    mesh, rows = config.mesh, config.train.batch_size
    found = unchecked(config, devices, slices)
    data, within = found.data, found.shared * found.tensor
    if found.devices != devices:
        raise UserError(
            f"config.mesh: data {data} x fsdp {mesh.fsdp} x sequence {mesh.sequence} x tensor "
            f"{mesh.tensor} = {found.devices}, but there are {devices} devices. Set data = -1 or "
            "change the others."
        )
    if data % slices:
        raise UserError(
            f"config.mesh: data {data} cannot be divided among {slices} slices, and no other axis "
            f"goes across them. fsdp x sequence x tensor = {within} must divide the "
            f"{devices // slices} devices of a slice."
        )
    if rows % (found.groups * config.train.microbatches):
        raise UserError(
            f"config.train.batch_size = {rows} must be a multiple of mesh data {data} x fsdp "
            f"{mesh.fsdp} x microbatches {config.train.microbatches}."
        )
    if config.data.max_length % mesh.sequence:
        raise UserError(
            f"config.data.max_length = {config.data.max_length} must be a multiple of mesh "
            f"sequence {mesh.sequence}."
        )
    return found
