"""``sft export`` on a tiny run: what is there afterwards, and that nothing wrong or half is."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import tiny_run
from safetensors.numpy import load_file, save_file

from sft import cli
from sft.export import formats, hub
from sft.model import weights
from sft.model.weights import peft

shared, registered = tiny_run.shared, tiny_run.registered


@pytest.fixture
def export(shared, tmp_path):
    """Runs the command; the exports go to ``tmp_path``."""

    def run(*words, workdir="done"):
        return shared.main("export", workdir, f"--out={tmp_path / 'out'}", *words)

    return run


def test_every_format_of_a_run(export, tmp_path, capsys):
    names = list(formats.FORMATS)
    assert export(f"--format={','.join(names)}", "--dtype=float32", "--json") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(found) == names
    for name in names:
        folder = tmp_path / "out" / name
        (apart,) = found[name]["checked"].values()
        assert apart["agreement"] == 1 and apart["largest"] < 1e-4
        card = (folder / "README.md").read_text()
        assert "license: gemma" in card and "Not evaluated: run `sft eval" in card
        assert "| `lora.rank` | `4` | `8` |" in card
        assert "ai.google.dev/gemma/terms" in (folder / "NOTICE").read_text()
        assert all(file.stat().st_mode & 0o444 == 0o444 for file in folder.iterdir())
    assert sorted(os.listdir(tmp_path / "out")) == sorted(names)  # and no temporary ones
    modelfile = (tmp_path / "out" / "gguf" / "Modelfile").read_text()
    assert "FROM ./model.gguf" in modelfile and "PARAMETER repeat_penalty 1.0" in modelfile


def test_the_merged_export_is_a_model_to_start_from(shared, export, tmp_path):
    run = shared.copy("done", tmp_path / "run")
    assert shared.main("eval", run) == 0
    assert export("--format=safetensors", "--dtype=float32", workdir=run) == 0
    merged = tmp_path / "out" / "safetensors"
    tuned = json.loads((run / "eval" / "best.test.json").read_text())
    share = f"| test | exact match | – | {100 * tuned['exact_match']:.1f} % |"
    assert share in (merged / "README.md").read_text()
    words = [f"--config.model.weights={merged}", "--config.model.tokenizer="]
    assert shared.main("eval", tmp_path / "other", "--checkpoint=base", *words) == 0
    again = json.loads((tmp_path / "other" / "eval" / "base.test.json").read_text())
    assert again["correct"] == tuned["correct"] > 0
    assert again["loss"] == pytest.approx(tuned["loss"], rel=1e-5)


def test_an_export_is_not_overwritten_by_chance(export, tmp_path, capsys):
    assert export("--format=peft") == 0
    file = tmp_path / "out" / "peft" / peft.FILE
    before = file.stat().st_ino
    assert export("--format=peft,safetensors") == 2
    assert "there already. Give --overwrite" in capsys.readouterr().err
    assert file.stat().st_ino == before and not (tmp_path / "out" / "safetensors").exists()
    assert export("--format=peft", "--overwrite") == 0
    assert file.stat().st_ino != before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format=onnx"], "--format=onnx: expected peft, safetensors"),
        (["--format=peft", "--dtype=bfloat16"], "--dtype=bfloat16: peft is written as float32"),
        (["--format=peft,orbax", "--dtype=q8_0"], "orbax is written as bfloat16, float32"),
        (["--format=peft", "--checkpoint=base"], "the base model is there already"),
        (["--format=peft", "--config.lora.rank=2"], "the run there has another configuration"),
        (["--format=peft", "--checkpoint=7"], "checkpoints/7: not there. Kept:"),
        (["--format=gguf", "--dtype=q8_0"], "no whole blocks of 32. Choose float16"),
        ([], "--format=NAME is missing"),
    ],
)
def test_what_cannot_be_is_said(export, tmp_path, capsys, words, said):
    assert export(*words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []


def test_without_a_checkpoint(shared, tmp_path, capsys):
    run = shared.copy("done", tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    assert shared.main("export", run, "--format=peft") == 2
    assert "checkpoints: none there. Run sft train first" in capsys.readouterr().err
    assert not (run / "export").exists()


def test_a_half_written_checkpoint(shared, tmp_path, capsys):
    run = shared.copy("done", tmp_path / "run")
    step = json.loads((run / "selection.json").read_text())["step"]
    for file in (run / "checkpoints" / str(step)).rglob("*"):
        if file.is_file() and file.stat().st_size > 200:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert shared.main("export", run, "--format=peft") == 2
    assert f"checkpoints/{step}: cannot be restored" in capsys.readouterr().err
    assert not (run / "export").exists() or os.listdir(run / "export") == []


def test_a_full_disk_leaves_nothing(export, tmp_path, capsys, monkeypatch):
    def full(held, folder, number):
        (folder / "part").write_bytes(b"half")
        raise RuntimeError("I/O error: No space left on device (os error 28)")  # as safetensors

    monkeypatch.setattr(hub, "_write_part", full)
    assert export("--format=safetensors") == 2
    assert "the disk is full; nothing was left there" in capsys.readouterr().err
    assert os.listdir(tmp_path / "out") == []


def test_a_wrong_export_is_not_published(export, tmp_path, capsys, monkeypatch):
    """Two tensors of one shape that changed places: only the model itself shows it."""
    right = formats.FORMATS["peft"]

    def write(tuned, folder, dtype, base):
        right.write(tuned, folder, dtype, base)
        named = load_file(folder / peft.FILE)
        layer = "base_model.model.model.layers.0.self_attn.{}_proj.lora_B.weight"
        k, v = layer.format("k"), layer.format("v")
        save_file(named | {k: named[v], v: named[k]}, folder / peft.FILE)

    monkeypatch.setitem(formats.FORMATS, "peft", dataclasses.replace(right, write=write))
    assert export("--format=peft") == 2
    assert "read back, it is not the model that was tuned" in capsys.readouterr().err
    assert os.listdir(tmp_path / "out") == []


def test_a_checkpoint_that_has_learnt_nothing_is_refused(shared, tmp_path, capsys):
    words = ["--config.optim.learning_rate=1e-12", "--config.train.epochs=1"]
    assert shared.main("train", tmp_path / "run", *words) == 0
    assert cli.main(["sft", "export", f"--workdir={tmp_path / 'run'}", "--format=peft"]) == 2
    assert "nothing has been learnt" in capsys.readouterr().err
    assert not (tmp_path / "run" / "export").exists()


def test_dora_is_for_peft_alone(shared, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["--config.lora.dora=True", "--config.train.epochs=1"]
    assert shared.main("train", run, *words) == 0
    stored = ["sft", "export", f"--workdir={run}", "--dtype=float32"]
    assert cli.main([*stored, "--format=peft,orbax,gguf"]) == 0
    said = capsys.readouterr().out
    assert said.count("merged weights only: its library knows no DoRA") == 2
    assert json.loads((run / "export" / "peft" / peft.CONFIG).read_text())["use_dora"]
    for name in ("orbax", "gguf"):
        assert "adapter" not in " ".join(os.listdir(run / "export" / name))
        assert "adapters" not in (run / "export" / name / "README.md").read_text().split("## ")[1]


def test_full_tuning_has_merged_weights_only(shared, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["--config.lora.rank=0", "--config.train.epochs=1", "--config.optim.learning_rate=1e-3"]
    assert shared.main("train", run, *words) == 0
    stored = ["sft", "export", f"--workdir={run}"]  # the run's own configuration
    assert cli.main([*stored, "--format=peft"]) == 2
    assert "there are no adapters" in " ".join(capsys.readouterr().err.split())
    assert cli.main([*stored, "--format=safetensors,gguf", "--dtype=float32"]) == 0
    params = weights.load(tiny_run.SPEC, str(run / "export" / "safetensors"), dtype="float32")
    assert np.isfinite(np.asarray(params["embed_VxD"])).all()
    assert not (run / "export" / "gguf" / "adapter.gguf").exists()
