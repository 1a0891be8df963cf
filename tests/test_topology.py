import importlib.util
import re

import pytest

from sft import topology
from sft.errors import UserError

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
    slice_ = topology.get(name)
    assert (slice_.chips, slice_.hosts, slice_.devices) == (chips, hosts, devices)
    assert slice_.cloud == cloud and topology.get(cloud) is slice_


def test_every_entry_is_consistent():
    for name, slice_ in topology.SLICES.items():
        assert slice_.name == name
        assert all(n % h == 0 for n, h in zip(slice_.shape, slice_.host, strict=True))
        assert slice_.chips <= slice_.generation.pod_chips
    for generation in topology.GENERATIONS:
        sizes = [s.chips for s in topology.SLICES.values() if s.generation is generation]
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
        topology.get(name)


def test_larger_ones_of_the_generation():
    names = [s.name for s in topology.larger(topology.get("v6e-8"))]
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
    for slice_ in topology.SLICES.values():
        devices = compiler.devices(slice_)
        assert len(devices) == slice_.devices, slice_.name
        assert len({d.process_index for d in devices}) == slice_.hosts, slice_.name


@needs_libtpu
@pytest.mark.parametrize("generation", topology.GENERATIONS, ids=lambda g: g.name)
def test_libtpu_agrees_on_memory(compiler, generation):
    """An array of twice the memory is refused, and the refusal says what there is."""
    import jax

    smallest = next(s for s in topology.SLICES.values() if s.generation is generation)
    device = compiler.devices(smallest)[0]
    where = jax.sharding.SingleDeviceSharding(device)
    rows = 2 * generation.hbm_bytes // 4096
    x = jax.ShapeDtypeStruct((rows, 1024), "float32", sharding=where)
    with pytest.raises(compiler.NoFit) as refused:
        compiler.compile_on(device, jax.jit(lambda x: x + 1, out_shardings=where), x)
    assert abs(refused.value.limit - generation.hbm_bytes) < 0.01 * topology.GIB
    assert refused.value.needed >= 2 * generation.hbm_bytes


def test_peaks_are_found_by_what_jax_calls_a_device():
    assert topology.peak_flops("TPU v5 lite") == topology.V5E.flops
    assert topology.peak_flops("cpu") is None
