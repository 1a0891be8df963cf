"""Which files of a folder are the weights: what transformers reads, or a line that says why not."""

import json
import os

import hf_folders
import numpy as np
import pytest
import tiny_run
from safetensors.numpy import load_file, save_file
from weight_layouts import hf_tensors

from sft.errors import UserError
from sft.model import weights

registered = tiny_run.registered
SPEC = tiny_run.SPEC
NEW, OLD = hf_folders.tree(), hf_folders.tree(0.2)
INDEX = "model.safetensors.index.json"
FIRST, SECOND = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))


def put(folder, name, tree, **more):
    folder.mkdir(exist_ok=True)
    save_file(hf_tensors(SPEC, tree) | more, folder / name)


def put_shards(folder, tree, indexed=True):
    folder.mkdir(exist_ok=True)
    tensors = hf_tensors(SPEC, tree)
    files = {name: (FIRST, SECOND)[i % 2] for i, name in enumerate(tensors)}
    for file in (FIRST, SECOND):
        save_file({n: x for n, x in tensors.items() if files[n] == file}, folder / file)
    if indexed:
        (folder / INDEX).write_text(json.dumps({"weight_map": files}))


def read(path, **options):
    """Which weights were read."""
    found = np.asarray(weights.load(SPEC, str(path), dtype="float32", **options)["embed_VxD"])
    return next((x for x in ("NEW", "OLD") if np.array_equal(found, globals()[x]["embed_VxD"])), "")


def refused(path, **options):
    with pytest.raises(UserError) as error:
        weights.load(SPEC, str(path), dtype="float32", **options)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "beside",
    [
        "model_backup.safetensors",
        "original.safetensors",
        "consolidated.safetensors",
        "model.fp16.safetensors",
        "adapter_model.safetensors",
        "optimizer.safetensors",
        FIRST,
    ],
)
def test_model_safetensors_goes_before_every_other_file(tmp_path, beside):
    put(tmp_path / "w", "model.safetensors", NEW)
    put(tmp_path / "w", beside, OLD)
    (tmp_path / "w" / "pytorch_model.bin").write_bytes(b"PK")
    (tmp_path / "w" / "training_args.bin").write_bytes(b"PK")
    put(tmp_path / "w" / "original", "model.safetensors", OLD)
    assert read(tmp_path / "w") == "NEW"


def test_model_safetensors_goes_before_shards_of_before(tmp_path):
    put_shards(tmp_path / "w", OLD)
    assert read(tmp_path / "w") == "OLD"
    put(tmp_path / "w", "model.safetensors", NEW)
    assert read(tmp_path / "w") == "NEW"
    (tmp_path / "w" / FIRST).unlink()  # an index whose shards are gone
    assert read(tmp_path / "w") == "NEW"
    (tmp_path / "w" / "model.safetensors").unlink()
    assert f"{FIRST}: missing, and {INDEX} needs it" in refused(tmp_path / "w")


def test_shards_without_an_index(tmp_path):
    put_shards(tmp_path / "w", NEW, indexed=False)
    put(tmp_path / "w", "adapter_model.safetensors", OLD)
    assert read(tmp_path / "w") == "NEW"
    (tmp_path / "w" / SECOND).unlink()
    assert f"{SECOND}: missing, and {FIRST} needs it" in refused(tmp_path / "w")


def test_one_file_of_any_name(tmp_path):
    put(tmp_path / "w", "gemma.safetensors", NEW)
    assert read(tmp_path / "w") == "NEW"
    (tmp_path / "w" / "gemma.safetensors").rename(tmp_path / "w" / "model.fp16.safetensors")
    assert read(tmp_path / "w") == "NEW"


@pytest.mark.parametrize("names", [("a", "b"), ("model.bf16", "model.fp16")])
def test_two_sets_are_never_merged(tmp_path, names):
    for name, tree in zip(names, (OLD, NEW), strict=True):
        put(tmp_path / "w", f"{name}.safetensors", tree)
    message = refused(tmp_path / "w")
    assert f"{names[1]}.safetensors: tensor model." in message
    assert f"is also in {names[0]}.safetensors: these are two sets of tensors" in message
    assert read(tmp_path / "w" / f"{names[1]}.safetensors") == "NEW"  # as the message says


def test_a_tensor_in_two_shards(tmp_path):
    put_shards(tmp_path / "w", NEW)
    twice = load_file(tmp_path / "w" / FIRST)
    more = load_file(tmp_path / "w" / SECOND)
    save_file(more | dict([next(iter(twice.items()))]), tmp_path / "w" / SECOND)
    assert f"{SECOND}: tensor model.embed_tokens.weight is also in {FIRST}" in refused(
        tmp_path / "w"
    )


def test_links_as_in_the_cache_of_the_hub(tmp_path):
    """Files there are links to blobs without an ending."""
    put(tmp_path / "blobs", "0a1b", NEW)
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    os.symlink(tmp_path / "blobs" / "0a1b", snapshot / "model.safetensors")
    assert read(snapshot) == "NEW"
    assert f"in folders below it. Give {snapshot}." in refused(tmp_path)
    before = weights.stamps(snapshot)
    put(tmp_path / "blobs", "0a1b", OLD)
    assert weights.stamps(snapshot) != before
    (tmp_path / "blobs" / "0a1b").unlink()
    message = refused(snapshot)
    assert "model.safetensors: a link to a file that is not there. Download the folder" in message


def test_brackets_in_the_name_of_a_folder(tmp_path):
    put(tmp_path / "gemma [v1]*", "gemma.safetensors", NEW)
    assert read(tmp_path / "gemma [v1]*") == "NEW"
    assert len(weights.stamps(tmp_path / "gemma [v1]*")) == 1


@pytest.mark.parametrize(
    "index",
    [
        "[]",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": {"a": true}}',
        '{"weight_map": {"a": [1]}}',
        '{"weight_map": {"a": "."}}',
        '{"weight_map": {"a": ".."}}',
        '{"weight_map": {"a": ""}}',
        '{"weight_map": {"a": "../x.safetensors"}}',
        '{"weight_map": {"a": "/etc/passwd"}}',
        '{"weight_map": {"a": "x\\u0000.safetensors"}}',
        '{"weight_map": {"a": "config.json"}}',
        '{"weight_map": ' + '{"a":' * 50_000,
        "\xff\xfe",
    ],
)
def test_a_damaged_index_is_named(tmp_path, index):
    put(tmp_path / "w", "x.safetensors", NEW)
    (tmp_path / "w" / INDEX).write_text(index)
    assert f"w/{INDEX}: " in refused(tmp_path / "w")


def test_what_lies_there_instead(tmp_path):
    def folder(name, *files):
        (tmp_path / name).mkdir(parents=True)
        for file in files:
            (tmp_path / name / file).write_bytes(b"x")
        return tmp_path / name

    bin_only = refused(folder("bin", "config.json", "pytorch_model.bin"))
    assert "pytorch_model.bin is not read" in bin_only and "save_pretrained(DIR)" in bin_only
    assert "model.pth is not read" in refused(folder("pth", "model.pth"))
    adapters = refused(folder("adapter", "adapter_config.json", "adapter_model.safetensors"))
    assert f"Set config.lora.start = {tmp_path / 'adapter'}" in adapters
    run = folder("run", "config.json")
    (run / "checkpoints").mkdir()
    assert f"`sft export --workdir={run} --format=safetensors`" in refused(run)
    assert "Give " + str(tmp_path / "g" / "a.gguf") in refused(folder("g", "a.gguf"))
    put(folder("trainer") / "checkpoint-5", "model.safetensors", NEW)
    assert f"Give {tmp_path / 'trainer' / 'checkpoint-5'}." in refused(tmp_path / "trainer")
    assert "no weights there. Expected *.safetensors" in refused(folder("empty", "README.md"))
    pointer = folder("lfs") / "model.safetensors"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "Git LFS pointer" in refused(pointer.parent)
    inside = {f"base_model.{n}": x for n, x in hf_tensors(SPEC, NEW).items()}
    put(tmp_path / "unmerged", "model.safetensors", NEW, **inside)
    some = "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"
    put(tmp_path / "unmerged", "model.safetensors", NEW, **{some: np.ones(2, np.float32)})
    assert "merge_and_unload()" in refused(tmp_path / "unmerged")
