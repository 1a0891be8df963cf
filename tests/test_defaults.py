"""A whole life with the default settings, on folders of weights as others leave them.

From the audit to exports that are where the next run starts. Only sizes and rates are cut.
"""

import dataclasses
import io
import json
from pathlib import Path

import hf_folders
import numpy as np
import pytest
import tiny_run
from safetensors.numpy import load_file

from sft import cli
from sft.model import specs

registered = tiny_run.registered
# The text model of an image model, as the planner and PEFT's names have to know.
WITH_IMAGES = dataclasses.replace(tiny_run.SPEC, has_images=True)
CUT = {
    "data.max_length": 32,
    "data.eval_max_length": 64,
    "data.max_over_long": 0.0,
    "optim.learning_rate": 2e-2,
    "train.epochs": 2,
    "train.batch_size": 8,
    "eval.batch_size": 8,
    "eval.max_new_tokens": 3,
}


@pytest.fixture
def project(kind, tmp_path, monkeypatch):
    if kind == "shards":
        monkeypatch.setitem(specs.SPECS, "tiny_run", WITH_IMAGES)
    weights = hf_folders.write(tmp_path / "weights", kind)
    for name, count in tiny_run.SIZES.items():
        tiny_run.write_rows(tmp_path / f"{name}.jsonl", tiny_run.toy_rows(name, count))
    sets = {f"data.{name}": str(tmp_path / f"{name}.jsonl") for name in tiny_run.SIZES}
    values = CUT | sets | {"model.weights": str(weights)}
    tiny_run.write_config(tmp_path / "config.py", values)
    if kind == "shards":  # the file registers the model too
        text = (tmp_path / "config.py").read_text()
        changed = text.replace("vocab=512\n", "vocab=512, has_images=True\n")
        (tmp_path / "config.py").write_text(changed)
    return tiny_run.Project(tmp_path)


def sft(project, command, *more, run="run"):
    assert project.main(command, run, *more) == 0


def result(project, name):
    return json.loads((project.path / "run" / "eval" / f"{name}.test.json").read_text())


@pytest.mark.parametrize("kind", ["json"])
def test_a_folder_is_scored_once(project, capsys):
    """The model is found, and its scores are kept for other runs until a file of it changes."""
    folder = project.path / "weights"
    sft(project, "eval", "--checkpoint=base")
    scored = {p.name for p in (Path.home() / ".cache" / "gemma-sft" / "eval").iterdir()}
    sft(project, "eval", "--checkpoint=base", "--config.lora.rank=2", run="other")
    assert {p.name for p in (Path.home() / ".cache" / "gemma-sft" / "eval").iterdir()} == scored
    (folder / "config.json").touch()
    sft(project, "eval", "--checkpoint=base", run="third")
    assert len(list((Path.home() / ".cache" / "gemma-sft" / "eval").iterdir())) == 2
    config = json.loads((project.path / "run" / "config.json").read_text())["config"]
    assert (config["model.name"], config["model.tokenizer"]) == ("tiny_run", "")


@pytest.mark.slow
@pytest.mark.parametrize("kind", hf_folders.KINDS)
def test_a_whole_life(project, capsys, monkeypatch):
    sft(project, "data")
    sft(project, "train")
    said = capsys.readouterr().out
    assert "train adapters of rank 8" in said and "13,440 parameters" in said
    sft(project, "eval", "--checkpoint=base")
    sft(project, "eval")
    assert result(project, "best")["loss"] < result(project, "base")["loss"]
    monkeypatch.setattr("sys.stdin", io.StringIO("a a\n"))
    sft(project, "chat", "--json")
    (exchange,) = json.loads(capsys.readouterr().out.splitlines()[-1])["exchanges"]
    assert exchange["prompt"] == "a a" and exchange["answers"]["best"]
    sft(project, "export", "--format=peft,safetensors")
    assert cli.main(["sft", "report", str(project.path / "run")]) == 0
    config = json.loads((project.path / "run" / "config.json").read_text())["config"]
    assert config["model.name"] == "tiny_run" and config["data.cache"] == "~/.cache/gemma-sft"
    assert (Path.home() / ".cache" / "gemma-sft" / "eval").is_dir()
    adapted = json.loads((project.path / "run" / "environment.json").read_text())["adapted"]
    assert adapted["projections"] == ["q", "k", "v", "o", "gate", "up", "down"]
    assert adapted["trained"] == 13_440 and adapted["parameters"] == 49_152
    _goes_on(project, capsys)


def _goes_on(project, capsys):
    """The merged export is weights, and the adapters are where a run starts."""
    export = project.path / "run" / "export"
    merged = f"--config.model.weights={export / 'safetensors'}"
    dtypes = {
        str(x.dtype) for x in load_file(export / "peft" / "adapter_model.safetensors").values()
    }
    assert dtypes == {str(np.dtype("float32"))}
    sft(project, "eval", merged, "--checkpoint=base", run="merged")
    adapted = [f"--config.lora.start={export / 'peft'}", "--checkpoint=base"]
    sft(project, "eval", *adapted, run="adapted")
    losses = []
    for run in ("merged", "adapted"):
        text = (project.path / run / "eval" / "base.test.json").read_text()
        losses.append(json.loads(text)["loss"])
    best = result(project, "best")["loss"]
    assert losses[1] == best  # the same adapters on the same weights
    assert losses[0] == pytest.approx(best, rel=0.05)  # rounded once to bfloat16
