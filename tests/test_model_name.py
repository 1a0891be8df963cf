"""``config.model.name`` is found for commands that read weights, and compared where it is given."""

import json

import hf_folders
import pytest
import tiny_run
from hf_folders import change_json
from test_weights_naming import refused

from sft import cli, session
from sft.config import default
from sft.model import specs
from sft.tune import points

registered = tiny_run.registered


def configured(**values):
    config = default()
    config.model.update(values)
    return config


def test_the_name_is_found_for_every_command_that_needs_it(tmp_path):
    weights = str(hf_folders.write(tmp_path / "w"))
    config = configured(weights=weights)
    session.name_model(config)
    assert config.model.name == "tiny_run"
    config = configured(weights=weights, name="gemma3_1b")
    assert "num_hidden_layers is 3, and gemma3_1b has 26" in refused(session.name_model, config)
    assert "Names: gemma2_2b" in refused(session.name_model, configured())
    missing = configured(weights=str(tmp_path / "none"))
    assert "no such file or directory" in refused(session.name_model, missing)
    # A name without weights is enough for what does not read them.
    session.name_model(configured(weights=str(tmp_path / "none"), name="gemma3_1b"))
    session.name_model(missing, required=False)
    assert missing.model.name == ""
    assert "config.model.name is not set" in refused(specs.get, "")


def test_a_run_knows_its_model_without_the_weights(tmp_path):
    project = tiny_run.build(tmp_path)
    assert project.main("data", "run") == 0
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert stored["model.name"] == "tiny_run"
    config = project.values(model__name="")
    (tmp_path / "weights.safetensors").unlink()
    session.name_model(config, str(tmp_path / "run"), required=False)
    assert config.model.name == "tiny_run"
    config = project.values(model__name="", model__weights="elsewhere")
    session.name_model(config, str(tmp_path / "run"), required=False)
    assert config.model.name == ""


@pytest.mark.parametrize("stored", [None, ""])
def test_a_run_that_was_stored_without_a_name(tmp_path, stored):
    project = tiny_run.build(tmp_path)
    assert project.main("data", "run") == 0
    (tmp_path / "run" / "DONE").touch()
    file = tmp_path / "run" / "config.json"
    kept = json.loads(file.read_text())
    kept["config"].pop("model.name")
    if stored is not None:
        kept["config"]["model.name"] = stored
    file.write_text(json.dumps(kept))
    assert project.main("data", "run") == 0
    words = ["data", f"--workdir={tmp_path / 'run'}"]  # by what is stored alone
    assert cli.main(["sft", *words]) == 0
    weights = hf_folders.write(tmp_path / "w")
    assert project.main("data", "run", f"--config.model.weights={weights}") == 2


def test_the_planner_needs_a_name_or_weights(tmp_path, capsys):
    config = tiny_run.write_config(tmp_path / "c.py", {"data.train": "x"})
    assert cli.main(["sft", "plan", f"--config={config}", "--slice=v5e-8"]) == 2
    assert "config.model.name is not set, and there are no weights" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["data", "train"])
def test_a_mismatch_is_one_line(tmp_path, capsys, command):
    project = tiny_run.build(tmp_path)
    weights = hf_folders.write(tmp_path / "w")
    change_json(weights / "config.json", final_logit_softcapping=30.0)
    words = [f"--config.model.weights={weights}", "--config.model.tokenizer="]
    assert project.main(command, "run", *words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "final_logit_softcapping 30.0, not None" in err
    assert project.main(command, "run", *words, "--config.model.name=tiny_run") == 2
    assert "final_logit_softcapping is 30.0, and tiny_run has None" in capsys.readouterr().err


def test_points_of_a_sweep_have_models_of_their_own(tmp_path, monkeypatch):
    """The driver knows each as its own run will find it, and elsewhere leaves it to the run."""
    weights = str(hf_folders.write(tmp_path / "w"))
    config = configured(weights=weights)
    wanted = [{}, {"model.weights": "GEMMA3_1B_IT"}, {"model.weights": str(tmp_path / "none")}]
    found = points.check(config, wanted, "test")
    assert [point.config.model.name for point in found] == ["tiny_run", "gemma3_1b", ""]
    assert config.model.name == ""
