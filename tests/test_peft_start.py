"""A PEFT adapter as where a run starts: evaluated as it is, and tuned further."""

import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest
import tiny_run

from sft.errors import UserError
from sft.model.weights import peft

shared, registered = tiny_run.shared, tiny_run.registered


@pytest.fixture(scope="module")
def adapter(shared, tmp_path_factory):
    """The export of the whole run."""
    out = tmp_path_factory.mktemp("out")
    assert shared.main("export", "done", "--format=peft", f"--out={out}") == 0
    return out / "peft"


def test_it_is_evaluated_as_the_checkpoint_it_came_from(shared, adapter, tmp_path):
    run = shared.copy("done", tmp_path / "run")
    assert shared.main("eval", run) == 0
    start = f"--config.lora.start={adapter}"
    assert shared.main("eval", tmp_path / "other", "--checkpoint=base", start) == 0
    ours = json.loads((run / "eval" / "best.test.json").read_text())
    theirs = json.loads((tmp_path / "other" / "eval" / "base.test.json").read_text())
    assert theirs["correct"] == ours["correct"] > 0 and theirs["loss"] == ours["loss"]


def test_training_goes_on_from_it(shared, adapter, tmp_path):
    words = [f"--config.lora.start={adapter}", "--config.train.epochs=1"]
    assert shared.main("train", tmp_path / "run", *words) == 0
    before = shared.rows("done", "validation")
    after = shared.rows(tmp_path / "run", "validation")
    assert after[0]["loss"] == pytest.approx(min(row["loss"] for row in before), rel=1e-5)
    assert after[0]["loss"] < before[0]["loss"] - 0.1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config.lora.rank=8"], "set config.lora.rank = 4, as it is there"),
        (["--config.lora.alpha=4"], "Set config.lora.alpha = 8 and config.lora.rslora = False"),
        (["--config.lora.rslora=True"], "multiplied by 2, ours by 4"),
        (["--config.lora.targets=q|v"], "Set it to 'q|k|v|o|gate|up|down'"),
        (["--config.lora.dora=True"], "set config.lora.dora = False"),
        (["--config.lora.rank=0"], "config.lora.start"),
    ],
)
def test_other_settings_than_its_own_are_refused(shared, adapter, tmp_path, capsys, words, said):
    start = f"--config.lora.start={adapter}"
    assert shared.main("eval", tmp_path / "run", "--checkpoint=base", start, *words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_layers": 2}, "tiny_run has 2. Adapters must be on every layer"),
        ({"embed": 48}, "needs 48 inputs: an adapter of another model. Set config.model.name"),
        ({"kv_heads": 1}, "needs 16 outputs: an adapter of another model"),
    ],
)
def test_an_adapter_of_another_base_is_refused(adapter, change, said):
    with pytest.raises(UserError, match=re.escape(said)):
        peft.read(adapter, dataclasses.replace(tiny_run.SPEC, **change))


@pytest.mark.parametrize("kept", [0, 100, 20_000])
def test_a_half_copied_adapter_is_refused(shared, adapter, tmp_path, capsys, kept):
    folder = tmp_path / "half"
    shutil.copytree(adapter, folder)
    content = (folder / peft.FILE).read_bytes()
    assert kept < len(content)
    (folder / peft.FILE).write_bytes(content[:kept])
    start = f"--config.lora.start={folder}"
    assert shared.main("eval", tmp_path / "run", "--checkpoint=base", start) == 2
    assert str(folder / peft.FILE) in capsys.readouterr().err


def test_an_adapter_under_other_names(shared, adapter, tmp_path):
    """As saved from inside PEFT or by a trainer: with the adapter's name, or without the prefix."""
    from safetensors.numpy import load_file, save_file

    named = load_file(adapter / peft.FILE)
    expected, _ = peft.read(adapter, tiny_run.SPEC)
    for i, rename in enumerate(
        (
            lambda name: name.replace(".weight", ".default.weight"),
            lambda name: name.removeprefix("base_model.model."),
            lambda name: name.replace("model.layers", "model.language_model.layers"),
        )
    ):
        folder = tmp_path / str(i)
        shutil.copytree(adapter, folder)
        save_file({rename(name): values for name, values in named.items()}, folder / peft.FILE)
        found, _ = peft.read(folder, tiny_run.SPEC)
        assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))
