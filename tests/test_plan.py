"""``sft plan`` without the TPU compiler: arithmetic, errors, the two outputs."""

import dataclasses
import importlib.util
import json
import math

import pytest
import tiny_run
from tiny import make_config

from sft import cli
from sft.commands import plan as planner
from sft.mesh import axes, slices
from sft.model import flops, specs
from sft.plan import compile as compiling
from sft.plan import roofline

registered = tiny_run.registered
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs the extra: scripts/env.sh plan"
)
TINY = specs.tiny()
GIB = slices.GIB


@pytest.fixture
def project(tmp_path):
    """A configuration file of the tiny model; no data, no weights."""
    values = tiny_run.VALUES | {"model.remat": "layer", "lora.targets": "q"}
    return tiny_run.write_config(tmp_path / "config.py", values)


@pytest.fixture
def fake(monkeypatch):
    """A compiler that says what a function of (config, slice) says: parts, or a refusal."""

    def install(answer):
        def compile_step(config, spec, slice_):
            found = answer(config, slice_)
            if isinstance(found, Exception):
                raise found
            return compiling.Compiled(found, 12.5)

        monkeypatch.setattr(compiling, "compile_step", compile_step)
        monkeypatch.setattr(compiling, "prepare", lambda: None)

    return install


MEMORY = compiling.Memory(
    weights=2 * GIB, adapters=GIB // 2, batch=0, padding=0, temporaries=3 * GIB, code=GIB // 4
)


def no_fit(gib, limit=15.75):
    refused = compiling.NoFit("refused", int(gib * GIB), int(limit * GIB))
    refused.memory, refused.seconds = MEMORY, 3.0
    return refused


def test_json_of_what_fits(project, fake, capsys):
    fake(lambda config, slice_: MEMORY)
    words = [f"--config={project}", "--slice=v5litepod-8", "--json"]
    assert cli.main(["sft", "plan", *words]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert out.count("\n") == 1 and "fits: needs 5.75 of 15.75 GiB" in err
    assert found["fits"] is True and found["slice"] == "v5e-8" and found["devices"] == 8
    gib = found["gib_per_device"]
    assert gib["total"] == 5.75 and gib["limit"] == 15.75
    parts = set(gib) - {"total", "limit"}
    assert parts == {"weights", "adapters", "batch", "padding", "temporaries", "code"}
    assert math.isclose(sum(gib[name] for name in parts), gib["total"])
    assert found["compile_seconds"] == 12.5 and found["tokens_per_step"] == 8 * 32
    config = make_config(model__remat="layer", lora__rank=4, lora__targets="q")
    counted = flops.train_step(tiny_run.SPEC, config, 8, 32, trained=256)
    assert found["flops_per_step"] == counted.model
    assert found["roofline"].keys() == {"compute", "memory", "interconnect"}
    assert found["roofline_seconds"] == max(found["roofline"].values())
    assert found["roofline"][found["bound"]] == found["roofline_seconds"]
    assert found["trained_share"] == 1.0 and "assumed" in found["trained_share_from"]


def test_parts_that_are_never_there_at_once_are_said_to_be_so(project, fake, capsys):
    """The compiler's peak is what must fit; it may be less than the sum."""
    said = []
    for peak in (0, 5 * GIB):
        fake(lambda config, slice_, peak=peak: dataclasses.replace(MEMORY, peak=peak))
        assert cli.main(["sft", "plan", f"--config={project}", "--slice=v5e-8"]) == 0
        said.append(capsys.readouterr().out)
    assert "needs 5.75 of" in said[0] and "code 0.25\n" in said[0]
    assert "needs 5.00 of" in said[1] and "code 0.25; not all at once\n" in said[1]


def test_what_does_not_fit_exits_with_3_and_says_what_would(project, fake, capsys):
    """Halving the rows of a microbatch is of no use here; dividing the weights by four is."""
    fake(lambda config, slice_: MEMORY if config.mesh.fsdp >= 4 else no_fit(20 / config.mesh.fsdp))
    words = [f"--config={project}", "--slice=v5e-4", "--config.train.batch_size=8"]
    assert cli.main(["sft", "plan", *words, "--json"]) == 3
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["fits"] is False and found["gib_per_device"]["total"] == 20.0
    assert [each["changes"] for each in found["tried"]] == [
        {"train.microbatches": 2},
        {"train.microbatches": 2, "mesh.data": -1, "mesh.fsdp": 2},
        {"train.microbatches": 2, "mesh.data": -1, "mesh.fsdp": 4},
    ]
    assert found["fitting"]["slice"] == "v5e-4"
    flags = "--config.train.microbatches=2 --config.mesh.data=-1 --config.mesh.fsdp=4"
    assert found["fitting"]["flags"] == flags
    assert f"What fits: --slice=v5e-4 {flags}\n" in err
    assert "does not fit: needs 20.00 of 15.75 GiB" in err


def test_trained_share(project, fake, tmp_path, capsys):
    """Of the run's audit, unless given."""
    fake(lambda config, slice_: MEMORY)
    run = tmp_path / "run"
    (run / "data").mkdir(parents=True)
    counts = {"sets": {"train": {"tokens": 200, "trained_tokens": 50}}}
    (run / "data" / "report.json").write_text(json.dumps(counts))
    words = ["plan", f"--config={project}", "--slice=v6e-8", "--json"]
    shares = []
    for more in ([], [f"--workdir={run}"], [f"--workdir={run}", "--trained_share=0.5"]):
        assert cli.main(["sft", *words, *more]) == 0
        shares.append(json.loads(capsys.readouterr().out)["trained_share"])
    assert shares == [1.0, 0.25, 0.5]


@pytest.mark.parametrize(
    "words, fragments",
    [
        (["C"], ["--slice=NAME is missing"]),
        (["--slice=v5e-8"], ["--config=FILE is missing"]),
        (["C", "--slice=v5e-7"], ["--slice=v5e-7", "v5e-8 or v5e-4"]),
        (["C", "--slice=v5e-8", "--trained_share=2"], ["--trained_share=2.0", "0 to 1"]),
        pytest.param(
            ["C", "--slice=v5e-8", "--config.mesh.fsdp=3"],
            ["mesh", "8 devices"],
            marks=needs_libtpu,
        ),
        pytest.param(
            ["C", "--slice=v5e-8", "--config.mesh.platform=gpu"],
            ["config.mesh.platform"],
            marks=needs_libtpu,
        ),
        (["C", "--slise=v5e-8"], ["--slice=NAME is missing"]),
    ],
)
def test_bad_command_lines(project, capsys, monkeypatch, words, fragments):
    for name in compiling.ENVIRONMENT:
        monkeypatch.setenv(name, compiling.ENVIRONMENT[name])  # restored when the test is over
    place = {"C": f"--config={project}"}
    assert cli.main(["sft", "plan", *(place.get(word, word) for word in words)]) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err and all(f in err.splitlines()[-1] for f in fragments), err


def test_without_the_compiler(project, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(["sft", "plan", f"--config={project}", "--slice=v5e-8"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "scripts/env.sh plan" in err and "--extra plan" in err


def test_other_commands_have_no_slice(project, tmp_path, capsys):
    words = [f"--config={project}", f"--workdir={tmp_path / 'run'}", "--slice=v5e-8"]
    assert cli.main(["sft", "data", *words]) == 2
    assert "--slice is of sft plan, sft recommend alone" in capsys.readouterr().err


REFUSED = "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total "


def test_refusals_are_read():
    text = f"{REFUSED}memory required (65.13G) exceeds available HBM (31.24G). HLO module: x.\nSee"
    found = compiling.refusal(text + " https://openxla.org/xla/errors/error_1000 for more details.")
    assert (found.needed, found.limit) == (int(65.13 * GIB), int(31.24 * GIB))
    assert found.reason.endswith("HLO module: x.")
    older = compiling.refusal("RESOURCE_EXHAUSTED: XLA:TPU: Used 41.5G of 31.25G hbm. Exceeded")
    assert (older.needed, older.limit) == (int(41.5 * GIB), int(31.25 * GIB))
    other = compiling.refusal("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem.")
    assert other.needed is None and "vmem" in other.reason


def test_roofline_by_hand():
    """One device, no adapters on anything but q, one chunk: every term is seen on paper."""
    config = make_config(
        model__remat="none", lora__targets="q", data__max_length=16, train__batch_size=2
    )
    found = roofline.traffic(TINY, config, axes.Layout(1, 1, 1, 1), trained_share=0.5)
    weights, table, tokens = 4 * (2 * 2048 + 2 * 1024 + 3 * 1536), 256 * 32, 32
    touched = 4 * (2 * (32 + 64) + 2 * (32 + 32) + 3 * (32 + 48) + 2 * (64 + 32))
    adapters = 4 * 2 * (32 + 64)
    assert found.memory == 4 * (2 * weights + table + 3 * tokens * touched + 9 * adapters)
    assert found.interconnect == 0


def test_roofline_of_a_mesh():
    """Gathers over fsdp, the adapters' all-reduce, tensor-parallel all-reduces."""
    config = make_config(
        model__remat="layer", lora__targets="q", data__max_length=16, train__batch_size=8,
        train__microbatches=2, mesh__fsdp=2, mesh__tensor=2,
    )  # fmt: skip
    found = roofline.traffic(TINY, config, axes.of(config, 8), trained_share=1.0)
    weights, table = 4 * (2 * 2048 + 2 * 1024 + 3 * 1536), 256 * 32
    gathers = 2 * (1 / 2) * (2 * weights + table) / 2 * 4
    adapters = 2 * (4 * 2 * (32 + 64)) * 4 * (1 / 2 + 1 / 2 * 2 * (1 / 2))
    reduced = 6 * 4 * (8 * 16 / 4) * 32 * 4 * 2 * (1 / 2)
    assert found.interconnect == gathers + adapters + reduced


def test_roofline_of_rows_over_devices():
    """Sharing the weights as fsdp does, and keys and values of the other three quarters."""
    config = make_config(
        model__remat="layer", lora__targets="q", data__max_length=64, train__batch_size=2,
        mesh__sequence=4,
    )  # fmt: skip
    found = roofline.traffic(TINY, config, axes.of(config, 8), trained_share=1.0)
    weights, table = 4 * (2 * 2048 + 2 * 1024 + 3 * 1536), 256 * 32
    gathers = (3 / 4) * (2 * weights + table) * 4
    adapters = (4 * 2 * (32 + 64)) * 4 * (3 / 4 + 1 / 4 * 2 * (1 / 2))
    keys_and_values = 3 * 4 * (2 * 64 / 8) * 3 * 2 * 32 * 4
    assert found.interconnect == gathers + adapters + keys_and_values
    # A device of four has as much to compute as one of a batch four times as large.
    rows = make_config(
        model__remat="layer", lora__targets="q", data__max_length=64, train__batch_size=2,
        mesh__fsdp=4,
    )  # fmt: skip
    of_rows = roofline.traffic(TINY, rows, axes.Layout(2, 4, 1, 1), trained_share=1.0)
    assert found.memory == of_rows.memory


def test_roofline_between_slices():
    """Only gradients go through the network: of what a device holds, with its peers there."""
    config = make_config(
        model__remat="layer", lora__targets="q", train__batch_size=16, mesh__fsdp=4
    )
    one, two = axes.of(config, 16), axes.of(config, 16, slices=2)
    found = roofline.traffic(TINY, config, two, trained_share=1.0)
    adapters = (4 * 2 * (32 + 64)) / 4 * 4
    assert found.network == 2 * adapters * (1 / 2)
    alone = roofline.traffic(TINY, config, one, trained_share=1.0)
    assert alone.network == 0 and alone.interconnect > found.interconnect
    for name, documented in (("2xv5e-8", True), ("2xv4-16", False), ("v5e-16", False)):
        roofs = roofline.seconds(TINY, config, slices.get(name), 1.0)
        assert ("network" in roofs) == documented
    roofs = roofline.seconds(TINY, config, slices.get("2xv5e-8"), 1.0)
    assert math.isclose(roofs["network"], found.network / (25e9 / 8))


def test_roofline_seconds_are_at_the_peaks():
    config = make_config(model__dtype="bfloat16", model__remat="layer", train__batch_size=8)
    slice_ = slices.get("v5e-8")
    seconds = roofline.seconds(specs.get("gemma3_1b"), config, slice_, 1.0)
    counted = flops.train_step(specs.get("gemma3_1b"), config, 8, 512, 8 * 512)
    assert math.isclose(seconds["compute"], counted.executed / (8 * 197e12))
    assert min(seconds.values()) > 0
    moved = roofline.traffic(specs.get("gemma3_1b"), config, axes.of(config, 8), trained_share=1.0)
    assert math.isclose(seconds["memory"], moved.memory / 819e9)
    assert math.isclose(seconds["interconnect"], moved.interconnect / 200e9)


def test_full_tuning_moves_masters_and_moments():
    config = make_config(lora__rank=0, model__remat="none", data__max_length=16)
    base = roofline.traffic(TINY, config, axes.Layout(1, 1, 1, 1), 1.0)
    split = roofline.traffic(TINY, config, axes.Layout(1, 4, 1, 1), 1.0)
    assert base.interconnect == 0 and split.interconnect > 0
    assert split.memory < base.memory


def test_share_is_of_the_run(tmp_path):
    assert planner._share("", None)[0] == planner._share(str(tmp_path), None)[0] == 1.0
