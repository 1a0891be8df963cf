"""The least time a step can take: by arithmetic, by memory traffic, by traffic between chips and
between slices.

Williams et al. 2009 (doi:10.1145/1498765.1498785), with more roofs. Each is a lower bound at the
peak rates of ``sft.mesh.slices``, as if all overlapped perfectly and every device did as much; none
of it was measured on a TPU. What remat = host moves to the host and back is not counted: the rate
is not documented.
"""

import dataclasses
import math

from ml_collections import ConfigDict

from sft.mesh import axes
from sft.mesh.axes import Layout
from sft.mesh.slices import Slice
from sft.model import flops, lora
from sft.model.specs import Spec

FLOAT32 = 4


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes of one step on one device.

    Attributes:
      memory: read from and written to HBM.
      interconnect: received from other devices of the slice.
      network: received from other slices.
    """

    memory: float
    interconnect: float
    network: float


def seconds(
    spec: Spec, config: ConfigDict, slice_: Slice, trained_share: float
) -> dict[str, float]:
    """``{"compute", "memory", "interconnect"}`` seconds of one step; between slices also
    ``"network"``, where the rate is documented.

    Args:
      trained_share: of the positions, those with loss.
    """
    rows, length = config.train.batch_size, config.data.max_length
    counted = flops.train_step(spec, config, rows, length, trained_share * rows * length)
    parts = axes.of(config, slice_.devices, slice_.count)
    moved = traffic(spec, config, parts, trained_share)
    peak = slice_.generation
    roofs = {
        "compute": counted.executed / (slice_.devices * peak.flops),
        "memory": moved.memory / peak.hbm_bandwidth,
        # What is documented counts both directions; a device can receive at half of it.
        "interconnect": moved.interconnect / (peak.ici_bandwidth / 2),
    }
    if slice_.count > 1 and peak.dcn_bandwidth:
        roofs["network"] = moved.network / peak.dcn_bandwidth
    return roofs


def traffic(spec: Spec, config: ConfigDict, parts: Layout, trained_share: float) -> Traffic:
    """Counts the bytes of one step on one device."""
    full, again = not config.lora.rank, config.model.remat in ("layer", "host")
    width = 2 if config.model.dtype == "bfloat16" else FLOAT32
    micro, chunk = config.train.microbatches, config.loss.chunk
    names = () if full else lora.match(config.lora.targets)
    adapters = sum(flops.adapter_sizes(spec, names, config.lora.rank))
    table = spec.vocab * spec.embed
    sizes = [(math.prod(i), math.prod(o)) for i, o in lora.shapes(spec).values()]
    weights = spec.num_layers * sum(i * o for i, o in sizes)
    tokens = config.train.batch_size * config.data.max_length / (parts.groups * parts.sequence)
    passes = 3 if again else 2
    trained = (weights + table) / (parts.shared * parts.tensor) if full else adapters / parts.shared
    chunks = math.ceil(trained_share * tokens / micro / chunk)
    return Traffic(
        memory=(
            # Each pass over a microbatch reads the layers' weights, gathered from who shares them.
            micro * passes * weights / parts.tensor * width
            # Each chunk of trained positions reads the output embedding; its gradient, once more.
            + micro * chunks * (2 if full else 1) * table / parts.tensor * width
            + tokens * (4 if again else 3) * _touched(spec, sizes) / parts.tensor * width
            # Gradients are added up over microbatches; AdamW reads four arrays, and writes three.
            + (2 * micro + 7) * trained * FLOAT32
        ),
        interconnect=(
            # Gathered once forward and once backward, where what is computed again uses it too.
            micro * _others(parts.shared) * (2 * weights + (2 if full else 1) * table)
            / parts.tensor * width
            # An all-reduce after o and one after down; in the backward pass, where inputs were.
            + (6 if again else 4) * spec.num_layers * tokens * spec.embed * width
            * 2 * _others(parts.tensor)
            # Keys and values of the rest of the row, and back their gradients.
            + passes * spec.num_layers * tokens * (parts.sequence - 1)
            * 2 * spec.kv_heads * spec.head_dim / parts.tensor * width
            + micro * _gradients(parts, weights + table if full else adapters, full)
        ),
        # Each device sums what it holds with those of its place in the other slices.
        network=micro * 2 * trained * FLOAT32 * _others(parts.slices),
    )  # fmt: skip


def _gradients(parts: Layout, trained: float, full: bool) -> float:
    """Bytes of one reduction over the devices of a slice: scattered to who shares, then summed."""
    whole = trained / (parts.tensor if full else 1) * FLOAT32
    others = _others(parts.data // parts.slices)
    return whole * _others(parts.shared) + whole / parts.shared * 2 * others


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
