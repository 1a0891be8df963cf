"""One file for everything: the sets are cut from it, and every command agrees on which is which."""

import json

import pytest
import tiny_run

shared, registered = tiny_run.shared, tiny_run.registered


@pytest.fixture(scope="module")
def words(shared, tmp_path_factory):
    rows = tiny_run.toy_rows("one file", 80)
    path = tiny_run.write_rows(tmp_path_factory.mktemp("cut") / "all.jsonl", rows)
    values = {"train": path, "validation": "", "test": ""}
    values |= {"split.validation": 0.15, "split.test": 0.1, "augment.copies": 1}
    values |= {"augment.casing": 1.0, "train_on": "last"}
    return [f"--config.data.{key}={value}" for key, value in values.items()]


def test_data_train_and_eval_see_the_same_sets(shared, tmp_path, capsys, words):
    words = [*words, "--config.train.epochs=1", "--json"]
    assert shared.main("data", tmp_path, *words) == 0
    told = json.loads(capsys.readouterr().out)["sets"]
    assert [told[name]["rows"] for name in ("validation", "test")] == [14, 8]  # whole groups
    assert told["train"]["augmented"]["made"] > 0
    assert shared.main("train", tmp_path, *words) == 0
    assert shared.main("eval", tmp_path, *words) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["test"]["count"] == 8
    kept = json.loads((tmp_path / "data" / "report.json").read_text())
    assert {name: part["content"] for name, part in kept["sets"].items()} == {
        name: part["content"] for name, part in told.items()
    }
    assert "skew" in kept  # nothing that training or evaluation read was another set
    validation = shared.rows(tmp_path, "validation")[0]
    assert validation["weight"] == told["validation"]["trained_tokens"]
    epoch = shared.rows(tmp_path, "train")
    assert sum(row["trained_tokens"] for row in epoch) == told["train"]["trained_tokens"]
