"""The least time a step can take: by arithmetic, by memory traffic, by traffic between chips.

Williams et al. 2009 (doi:10.1145/1498765.1498785), with the interconnect as a third roof. Each is a
lower bound at the peak rates of ``sft.topology``, as if the three overlapped perfectly; none of it
was measured on a TPU.
"""

import dataclasses
import math

from ml_collections import ConfigDict

from sft.model import flops, lora
from sft.model.specs import Spec
from sft.topology import Slice

FLOAT32 = 4


@dataclasses.dataclass(frozen=True)
class Layout:
    """Devices along the axes of the mesh."""

    data: int
    fsdp: int
    tensor: int

    @property
    def devices(self) -> int:
        return self.data * self.fsdp * self.tensor

    @property
    def groups(self) -> int:
        """Parts of a batch."""
        return self.data * self.fsdp


def layout(config: ConfigDict, devices: int) -> Layout:
    """As ``sft.model.sharding.make_mesh`` divides the devices."""
    fsdp, tensor = config.mesh.fsdp, config.mesh.tensor
    data = devices // (fsdp * tensor) if config.mesh.data == -1 else config.mesh.data
    return Layout(data, fsdp, tensor)


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes of one step on one device.

    Attributes:
      memory: read from and written to HBM.
      interconnect: received from other devices.
    """

    memory: float
    interconnect: float


def seconds(
    spec: Spec, config: ConfigDict, slice_: Slice, trained_share: float
) -> dict[str, float]:
    """``{"compute", "memory", "interconnect"}`` seconds of one step.

    Args:
      trained_share: of the positions, those with loss.
    """
    rows, length = config.train.batch_size, config.data.max_length
    counted = flops.train_step(spec, config, rows, length, trained_share * rows * length)
    moved = traffic(spec, config, layout(config, slice_.devices), trained_share)
    peak = slice_.generation
    return {
        "compute": counted.executed / (slice_.devices * peak.flops),
        "memory": moved.memory / peak.hbm_bandwidth,
        # What is documented counts both directions; a device can receive at half of it.
        "interconnect": moved.interconnect / (peak.ici_bandwidth / 2),
    }


def traffic(spec: Spec, config: ConfigDict, parts: Layout, trained_share: float) -> Traffic:
    """Counts the bytes of one step on one device."""
    full, again = not config.lora.rank, config.model.remat == "layer"
    width = 2 if config.model.dtype == "bfloat16" else FLOAT32
    micro, chunk = config.train.microbatches, config.loss.chunk
    names = () if full else lora.match(config.lora.targets)
    adapters = sum(flops.adapter_sizes(spec, names, config.lora.rank))
    table = spec.vocab * spec.embed
    sizes = [(math.prod(i), math.prod(o)) for i, o in lora.shapes(spec).values()]
    weights = spec.num_layers * sum(i * o for i, o in sizes)
    tokens = config.train.batch_size * config.data.max_length / parts.groups
    chunks = math.ceil(trained_share * tokens / micro / chunk)
    trained = (weights + table) / (parts.fsdp * parts.tensor) if full else adapters

    memory = (
        # Each pass over a microbatch reads the layers' weights, gathered from the fsdp axis.
        micro * (3 if again else 2) * weights / parts.tensor * width
        # Each chunk of trained positions reads the output embedding; its gradient, once more.
        + micro * chunks * (2 if full else 1) * table / parts.tensor * width
        + tokens * (4 if again else 3) * _touched(spec, sizes) / parts.tensor * width
        # Gradients are added up over microbatches; AdamW reads four arrays and writes three.
        + (2 * micro + 7) * trained * FLOAT32
    )
    interconnect = (
        # Gathered once forward and once backward, where what is computed again uses it too.
        micro * _others(parts.fsdp) * (2 * weights + table) / parts.tensor * width
        # An all-reduce after o and one after down; in the backward pass, where their inputs were.
        + (6 if again else 4)
        * spec.num_layers
        * tokens
        * spec.embed
        * width
        * 2
        * _others(parts.tensor)
    )
    if full:
        whole = (weights + table) / parts.tensor * FLOAT32
        interconnect += micro * whole * _others(parts.fsdp)
        interconnect += micro * whole / parts.fsdp * 2 * _others(parts.data)
    else:
        interconnect += micro * adapters * FLOAT32 * 2 * _others(parts.groups)
    return Traffic(memory, interconnect)


def _touched(spec: Spec, sizes: list[tuple[int, int]]) -> int:
    """Numbers read and written for one position by the products of all layers, in one pass.

    An estimate: every product reads its input and writes its output, attention reads queries,
    keys and values once and writes its output, as flash attention does; all else is fused into
    them. The backward pass counts twice this.
    """
    attention = 2 * (spec.heads + spec.kv_heads) * spec.head_dim
    return spec.num_layers * (sum(i + o for i, o in sizes) + attention)


def _others(parts: int) -> float:
    """What a device lacks of something divided evenly."""
    return (parts - 1) / parts
