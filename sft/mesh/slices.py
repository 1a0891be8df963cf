"""The table of Cloud TPU slices: names, shapes, memory, peak rates. No I/O.

Names are the cloud's: the number counts TensorCores for v4, v5p and TPU7x (two a chip), and chips
for v5e and v6e. A *device* is what JAX shows: a chip, but on TPU7x one of its two halves.

Sources: the pages v4, v5e, v5p, v6e and tpu7x of docs.cloud.google.com/tpu/docs for shapes, peak
rates, bandwidths and pod sizes; for v4's interconnect Jouppi et al. 2023 (arXiv:2304.01433): six
links of 50 GB/s each way. For the network between slices, v5e and v6e give that of a pod (6.4 and
25.6 Tb/s), and v4 gives nothing. The memory limit is what libtpu 0.0.50.1 says it has when a
program does not fit, net of what the system reserves; ``tests/test_topology.py`` asks libtpu again.
"""

import dataclasses
import difflib
import math
import re

from sft.errors import UserError

Shape = tuple[int, int, int]
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Generation:
    """What the slices of one generation share. Rates are peaks, a second and *per device*.

    Attributes:
      name: ours, in the names of slices and in topologies: ``v5e``.
      cloud: of accelerator types: ``v5litepod``.
      kind: what JAX calls a device, ``Device.device_kind``.
      chip_config: how libtpu presents a chip; ``""`` = its default.
      per_chip: what the number in the name counts on a chip.
      devices_per_chip: JAX devices.
      hbm_bytes: what a program may use of a device's memory.
      flops: bfloat16 operations.
      hbm_bandwidth: bytes.
      ici_bandwidth: bytes over all links to other chips, both directions together.
      dcn_bandwidth: bytes through the network that joins slices; 0 = not documented.
      pod_chips: in the largest pod.
    """

    name: str
    cloud: str
    kind: str
    chip_config: str
    per_chip: int
    devices_per_chip: int
    hbm_bytes: int
    flops: float
    hbm_bandwidth: float
    ici_bandwidth: float
    dcn_bandwidth: float
    pod_chips: int


@dataclasses.dataclass(frozen=True)
class Slice:
    """One size of one generation, or several of it, joined by the data-centre network.

    Attributes:
      shape: chips along the three axes.
      host: chips of one host along them, all in one shape: ``shape / host`` hosts.
      count: of slices.
    """

    generation: Generation
    shape: Shape
    host: Shape
    count: int = 1

    @property
    def chips(self) -> int:
        return math.prod(self.shape) * self.count

    @property
    def hosts(self) -> int:
        return self.chips // math.prod(self.host)

    @property
    def devices(self) -> int:
        return self.chips * self.generation.devices_per_chip

    @property
    def name(self) -> str:
        """As in ``v5e-8``, or ``2xv5e-8``."""
        return f"{self._times}{self.generation.name}-{self._number}"

    @property
    def cloud(self) -> str:
        """The accelerator type, as in ``v5litepod-8``."""
        return f"{self._times}{self.generation.cloud}-{self._number}"

    @property
    def _times(self) -> str:
        return f"{self.count}x" if self.count > 1 else ""

    @property
    def _number(self) -> int:
        return math.prod(self.shape) * self.generation.per_chip

    @property
    def topology(self) -> tuple[str, dict]:
        """Name and keywords for ``jax.experimental.topologies.get_topology_desc``."""
        flat = self.generation in (V5E, V6E)
        text = "x".join(str(n) for n in self.shape[: 2 if flat else 3])
        keywords: dict = {"chips_per_host_bounds": self.host, "num_slices": self.count}
        if self.generation.chip_config:
            keywords["chip_config_name"] = self.generation.chip_config
        return f"{self.generation.name}:{text}", keywords


# fmt: off
V4 = Generation("v4", "v4", "TPU v4", "megacore", per_chip=2, devices_per_chip=1,
                hbm_bytes=int(30.75 * GIB), flops=275e12, hbm_bandwidth=1200e9,
                ici_bandwidth=600e9, dcn_bandwidth=0, pod_chips=4096)
V5E = Generation("v5e", "v5litepod", "TPU v5 lite", "", per_chip=1, devices_per_chip=1,
                 hbm_bytes=int(15.75 * GIB), flops=197e12, hbm_bandwidth=819e9,
                 ici_bandwidth=400e9, dcn_bandwidth=25e9 / 8, pod_chips=256)
V5P = Generation("v5p", "v5p", "TPU v5", "", per_chip=2, devices_per_chip=1,
                 hbm_bytes=int(95.73 * GIB), flops=459e12, hbm_bandwidth=2765e9,
                 ici_bandwidth=1200e9, dcn_bandwidth=50e9 / 8, pod_chips=8960)
V6E = Generation("v6e", "v6e", "TPU v6 lite", "", per_chip=1, devices_per_chip=1,
                 hbm_bytes=int(31.24 * GIB), flops=918e12, hbm_bandwidth=1638e9,
                 ici_bandwidth=800e9, dcn_bandwidth=100e9 / 8, pod_chips=256)
TPU7X = Generation("tpu7x", "tpu7x", "TPU7x", "", per_chip=2, devices_per_chip=2,
                   hbm_bytes=int(94.74 * GIB), flops=2307e12 / 2, hbm_bandwidth=7380e9 / 2,
                   ici_bandwidth=1200e9 / 2, dcn_bandwidth=100e9 / 8 / 2, pod_chips=9216)
# fmt: on

# One machine holds up to eight chips of v5e and v6e; larger slices are made of machines of four,
# as all slices of the other generations are.
_ONE_HOST = ((1, 1, 1), (2, 2, 1), (2, 4, 1))
_FLAT = ((4, 4, 1), (4, 8, 1), (8, 8, 1), (8, 16, 1), (16, 16, 1))
_SOLID = (
    *((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8)),
    *((8, 8, 16), (8, 16, 16)),
)
_HOST = (2, 2, 1)


def peak_flops(device_kind: str) -> float | None:
    """bfloat16 operations a second of one device, for what ``Device.device_kind`` says; ``None``
    for what is not a TPU of the table."""
    known = {g.kind: g.flops for g in (V4, V5E, V5P, V6E, TPU7X)}
    return known.get(device_kind)


def _slices(generation: Generation) -> list[Slice]:
    if generation in (V5E, V6E):
        one_host, shapes = _ONE_HOST, _FLAT
    elif generation is V4:
        one_host, shapes = (), _SOLID
    elif generation is V5P:
        one_host, shapes = (), (*_SOLID, (16, 16, 16), (16, 16, 24))
    else:
        one_host, shapes = ((1, 1, 1),), (*_SOLID, (16, 16, 16), (16, 16, 24), (16, 24, 24))
    single = [Slice(generation, shape, shape) for shape in one_host]
    return single + [Slice(generation, shape, _HOST) for shape in shapes]


GENERATIONS = (V4, V5E, V5P, V6E, TPU7X)
SLICES: dict[str, Slice] = {s.name: s for generation in GENERATIONS for s in _slices(generation)}


def get(name: str) -> Slice:
    """The slice called ``name``, by our name or the cloud's; ``2x`` before it, two of them.

    Raises:
      UserError: no such slice; names the nearest ones.
    """
    known = SLICES | {s.cloud: s for s in SLICES.values()}
    several = re.fullmatch(r"([1-9]\d*)x(.+)", name)
    count, one = (int(several[1]), several[2]) if several else (1, name)
    if one in known:
        return dataclasses.replace(known[one], count=count)
    family, _, size = one.rpartition("-")
    sizes = [s.name for s in SLICES.values() if family in (s.generation.name, s.generation.cloud)]
    if sizes and size.isdigit():
        distance = {n: abs(math.log2(max(int(size), 1) / int(n.rpartition("-")[2]))) for n in sizes}
        near = sorted(sizes, key=lambda n: distance[n])[:2]
    else:
        near = difflib.get_close_matches(one, known, n=2, cutoff=0.4)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    generations = ", ".join(g.name for g in GENERATIONS)
    raise UserError(
        f"--slice={name}: no such TPU slice.{hint} Generations: {generations}; sft/mesh/slices.py "
        "has all sizes."
    )


def larger(than: Slice) -> list[Slice]:
    """The slices of the same generation with more chips, as many at a time, smallest first."""
    same = [
        dataclasses.replace(s, count=than.count)
        for s in SLICES.values()
        if s.generation is than.generation
    ]
    return sorted((s for s in same if s.chips > than.chips), key=lambda s: s.chips)
