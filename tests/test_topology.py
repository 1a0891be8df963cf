import importlib.util
import re

import pytest

from sft.errors import UserError
from sft.mesh import slices

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs the extra: scripts/env.sh plan"
)


@pytest.mark.parametrize(
    "name, chips, hosts, devices, cloud",
    [
        ("v5e-1", 1, 1, 1, "v5litepod-1"),
        ("v5e-8", 8, 1, 8, "v5litepod-8"),
        ("v5e-256", 256, 64, 256, "v5litepod-256"),
        ("v6e-8", 8, 1, 8, "v6e-8"),
        ("v6e-16", 16, 4, 16, "v6e-16"),
        ("v4-8", 4, 1, 4, "v4-8"),
        ("v4-32", 16, 4, 16, "v4-32"),
        ("v5p-8", 4, 1, 4, "v5p-8"),
        ("v5p-12288", 6144, 1536, 6144, "v5p-12288"),
        ("tpu7x-8", 4, 1, 8, "tpu7x-8"),
        ("tpu7x-18432", 9216, 2304, 18432, "tpu7x-18432"),
    ],
)
def test_what_the_cloud_documents(name, chips, hosts, devices, cloud):
    slice_ = slices.get(name)
    assert (slice_.chips, slice_.hosts, slice_.devices) == (chips, hosts, devices)
    assert slice_.cloud == cloud and slices.get(cloud) == slice_


def test_every_entry_is_consistent():
    for name, slice_ in slices.SLICES.items():
        assert slice_.name == name
        assert all(n % h == 0 for n, h in zip(slice_.shape, slice_.host, strict=True))
        assert slice_.chips <= slice_.generation.pod_chips
    for generation in slices.GENERATIONS:
        sizes = [s.chips for s in slices.SLICES.values() if s.generation is generation]
        assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(
    "name, near",
    [
        ("v5e-7", "Did you mean v5e-8 or v5e-4?"),
        ("v5litepod-9", "v5e-8"),
        ("v6e-1024", "v6e-256"),
        ("v6-8", "v6e-8"),
        ("tpu-v6e-8", "v6e-8"),
        ("H100", "Generations: v4, v5e, v5p, v6e, tpu7x"),
    ],
)
def test_unknown_names_the_nearest(name, near):
    with pytest.raises(UserError, match=re.escape(near)):
        slices.get(name)


def test_larger_ones_of_the_generation():
    names = [s.name for s in slices.larger(slices.get("v6e-8"))]
    assert names == ["v6e-16", "v6e-32", "v6e-64", "v6e-128", "v6e-256"]


@pytest.fixture
def compiler(monkeypatch):
    from sft.plan import compile as compiling

    for name in compiling.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)  # and so restored when the test is over
    compiling.prepare()
    return compiling


@needs_libtpu
def test_libtpu_agrees_on_devices_and_hosts(compiler):
    for slice_ in slices.SLICES.values():
        devices = compiler.devices(slice_)
        assert len(devices) == slice_.devices, slice_.name
        assert len({d.process_index for d in devices}) == slice_.hosts, slice_.name


@needs_libtpu
@pytest.mark.parametrize("generation", slices.GENERATIONS, ids=lambda g: g.name)
def test_libtpu_agrees_on_memory(compiler, generation):
    """An array of twice the memory is refused, and the refusal says what there is."""
    import jax

    smallest = next(s for s in slices.SLICES.values() if s.generation is generation)
    device = compiler.devices(smallest)[0]
    where = jax.sharding.SingleDeviceSharding(device)
    rows = 2 * generation.hbm_bytes // 4096
    x = jax.ShapeDtypeStruct((rows, 1024), "float32", sharding=where)
    with pytest.raises(compiler.NoFit) as refused:
        compiler.compile_on(device, jax.jit(lambda x: x + 1, out_shardings=where), x)
    assert abs(refused.value.limit - generation.hbm_bytes) < 0.01 * slices.GIB
    assert refused.value.needed >= 2 * generation.hbm_bytes


def test_peaks_are_found_by_what_jax_calls_a_device():
    assert slices.peak_flops("TPU v5 lite") == slices.V5E.flops
    assert slices.peak_flops("cpu") is None


def test_several_slices():
    two = slices.get("2xv5e-16")
    assert two == slices.get("2xv5litepod-16") and two.count == 2
    assert (two.name, two.cloud) == ("2xv5e-16", "2xv5litepod-16")
    assert (two.chips, two.hosts, two.devices) == (32, 8, 32)
    assert slices.get("1xv5e-16") == slices.get("v5e-16")
    assert [s.name for s in slices.larger(two)][:2] == ["2xv5e-32", "2xv5e-64"]
    with pytest.raises(UserError, match=r"--slice=2xv5e-7: .*Did you mean"):
        slices.get("2xv5e-7")


@needs_libtpu
def test_libtpu_knows_slices_apart(compiler):
    for name in ("2xv5e-16", "2xv4-16", "3xtpu7x-8"):
        slice_ = slices.get(name)
        devices = compiler.devices(slice_)
        assert len(devices) == slice_.devices
        assert len({d.slice_index for d in devices}) == slice_.count
        assert len({d.process_index for d in devices}) == slice_.hosts


@needs_libtpu
@pytest.mark.parametrize(
    "name", [n for n, s in slices.SLICES.items() if 1 < s.devices <= 256] + ["2xv5e-16"]
)
def test_hosts_of_every_slice_read_equal_parts(compiler, name):
    """Whatever the axes: a mesh in the order of the torus leaves each host whole rows."""
    from jax.sharding import NamedSharding
    from tiny import make_config

    from sft.mesh import sharding
    from sft.run import hosts

    slice_ = slices.get(name)
    devices = compiler.devices(slice_)
    for axes in ((1, 1, 1), (None, 1, 1), (1, 4, 1), (1, 1, 4), (None, 2, 2)):
        fsdp, sequence, tensor = axes
        own = slice_.devices // slice_.count
        if own % (sequence * tensor):
            continue
        config = make_config(
            mesh__fsdp=fsdp or own // (sequence * tensor), mesh__sequence=sequence,
            mesh__tensor=tensor, train__batch_size=slice_.devices,
        )  # fmt: skip
        mesh = sharding.make_mesh(config, devices)
        parts = hosts.share(FromOutside(NamedSharding(mesh, sharding.PLACES)))[1]
        assert slice_.hosts % parts == 0 and mesh.size == slice_.devices


class FromOutside:
    """A sharding whose devices are on no machine: the first of them is taken to be here."""

    def __init__(self, sharding):
        self.sharding, self.num_devices = sharding, sharding.num_devices
        self.devices_indices_map = sharding.devices_indices_map
        self.addressable_devices = [sharding.mesh.devices.flat[0]]
