"""``sft plan`` with the TPU compiler: a tiny model really compiled for slices, and refused."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest
import tiny_run

from sft.config import default
from sft.mesh import slices
from sft.plan import compile as compiling

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs the extra: scripts/env.sh plan"
)
registered = tiny_run.registered
# The kernel wants longer rows and wider heads than tiny models have.
REFERENCE = {"model.attention": "reference"}
VALUES = tiny_run.VALUES | REFERENCE | {"model.dtype": "bfloat16", "train.batch_size": 8}


def plan(config, *words):
    """In a process of its own, as a user runs it; nothing of the tests' environment for JAX."""
    clean = {k: v for k, v in os.environ.items() if k not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    run = subprocess.run(
        [sys.executable, "-m", "sft", "plan", f"--config={config}", *words, "--json"],
        cwd=tiny_run.ROOT,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    return run, json.loads(run.stdout) if run.stdout else {}


@pytest.mark.slow
@pytest.mark.parametrize("name, devices", [("v6e-8", 8), ("tpu7x-8", 8)])
def test_a_tiny_model_fits(tmp_path, name, devices):
    config = tiny_run.write_config(tmp_path / "config.py", VALUES)
    run, found = plan(config, f"--slice={name}", "--config.mesh.fsdp=2")
    assert run.returncode == 0, run.stderr
    assert found["fits"] and found["devices"] == devices
    assert found["mesh"] == {
        "data": devices // 2, "fsdp": 2, "sequence": 1, "tensor": 1, "slices": 1,
    }  # fmt: skip
    gib = found["gib_per_device"]
    assert 0 < gib["weights"] < gib["total"] < 0.2 and gib["temporaries"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, words",
    [
        ("2xv5e-8", ["--config.mesh.fsdp=4"]),
        ("v5e-8", ["--config.mesh.sequence=4", "--config.data.max_length=512"]),
        ("v5e-8", ["--config.mesh.fsdp=8", "--config.model.remat=host"]),
        ("v5e-8", ["--config.mesh.tensor=2", "--config.mesh.sequence=2"]),
    ],
)
def test_every_way_to_divide_compiles(tmp_path, name, words):
    config = tiny_run.write_config(tmp_path / "config.py", VALUES | {"train.batch_size": 16})
    run, found = plan(config, f"--slice={name}", *words)
    assert run.returncode == 0, run.stderr
    assert found["fits"] and ("network" in found["roofline"]) == name.startswith("2x")


WIDE = """
import dataclasses

from sft.config import default
from sft.model import specs

specs.SPECS["wide"] = dataclasses.replace(specs.tiny(), num_layers=1, hidden=65536)


def get_config():
    config = default()
    config.model.name = "wide"
    config.model.attention = "reference"
    config.data.max_length = 256
    config.train.batch_size = 640
    return config
"""


@pytest.mark.slow
@pytest.mark.timeout(900)  # several compilations
def test_what_does_not_fit_is_made_to(tmp_path):
    """40,960 positions a device, 65,536 hidden units: 5 GiB an array, and there are several."""
    (tmp_path / "wide.py").write_text(WIDE)
    run, found = plan(tmp_path / "wide.py", "--slice=v5e-4")
    assert run.returncode == 3, run.stderr
    assert found["gib_per_device"]["total"] > found["gib_per_device"]["limit"] == 15.75
    last = found["tried"][-1]
    assert found["fitting"]["changes"] == last["changes"]
    assert last["changes"].keys() == {"train.microbatches"} and 0 < last["gib"] < 15.75
    assert all(each["gib"] > 15.75 for each in found["tried"][:-1])


@pytest.fixture
def environment(monkeypatch):
    for name in compiling.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)  # and so restored when the test is over
    compiling.prepare()


@pytest.mark.slow
def test_parts_of_the_memory_add_up(environment):
    """Weights and moments are counted from shapes and shardings; the compiler counts all."""
    config = default()
    values = {"model.name": "tiny_run", "mesh.fsdp": 4, "train.batch_size": 4}
    config.update_from_flattened_dict(values | REFERENCE | {"data.max_length": 64})
    memory = compiling.compile_step(config, tiny_run.SPEC, slices.get("v5e-4")).memory
    # bfloat16, a quarter of every matrix; norms are whole on every device.
    D, F, V, qo, kv = 32, 48, 512, 64, 32
    matrices = 3 * (2 * D * qo + 2 * D * kv + 3 * D * F) + V * D
    assert memory.weights == 2 * (matrices // 4 + 3 * (4 * D + 2 * 16) + D)
    rank8 = 3 * 8 * ((D + qo) * 2 + (D + kv) * 2 + (D + F) * 3)
    # Adapters and both moments, float32, are shared by the four devices too.
    moments_and_adapters, step_rng_counts = 3 * 4 * rank8 // 4, 4 + 8 + 2 * 4
    assert memory.adapters == moments_and_adapters + step_rng_counts
    assert memory.batch == 5 * 4 * 64 and memory.padding >= 0


def test_more_than_the_memory_is_refused_before_compiling(environment):
    """Float32 masters and moments of 27B on one chip: known from the shapes alone."""
    from sft.model import specs

    config = default()
    config.update_from_flattened_dict({"model.name": "gemma3_27b", "lora.rank": 0})
    config.train.batch_size = 1
    with pytest.raises(compiling.NoFit) as refused:
        compiling.compile_step(config, specs.get("gemma3_27b"), slices.get("v5e-1"))
    parameters = 27.0e9
    assert refused.value.reason == "" and refused.value.needed > 12 * parameters


@pytest.mark.slow
def test_no_stack_of_weights_is_copied():
    """4B on one chip: 34 layers. Stored in another order, the weights of q, k and v would be."""
    clean = {k: v for k, v in os.environ.items() if k not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    words = ["scripts/bench/cycles.py", "--row=4b", "--top=1000"]
    run = subprocess.run(
        [sys.executable, *words], cwd=tiny_run.ROOT, env=clean, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    *lines, result = run.stdout.splitlines()
    assert any("forward" in line and "dot_general" in line for line in lines)
    assert not [line for line in lines if re.search(r"once +copy\S* bf16\[34,", line)]
    assert 300e6 < json.loads(result)["ours"] < 500e6  # 521 with those copies
