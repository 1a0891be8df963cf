"""What each setting can change: which may change while a run goes on, and what counts in prints."""

import json
import re

import pytest
import tiny_run

from sft import config as configs
from sft.config import default, effects, flatten
from sft.errors import UserError
from sft.run import directory as workdirs

shared, registered = tiny_run.shared, tiny_run.registered


def changed(**values):
    config = default()
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in values.items()})
    return config


def test_every_setting_has_one_effect():
    listed = [key for keys in effects._SETTINGS.values() for key in keys.split()]
    known = [key for key, _ in flatten(default())]
    assert sorted(listed) == sorted(known), "add a new setting to sft/config/effects.py"


def test_a_new_setting_changes_no_fingerprint():
    """If this fails because of a new setting: add it to LATER, with the value that changes
    nothing. If it fails because of a new default, runs without that setting are other runs."""
    config = default()
    config.model.name = "gemma3_270m"  # a run's is never empty
    assert configs.fingerprint(config) == "3fb941827317"
    assert configs.fingerprint(changed(seed=1)) != configs.fingerprint(default())


def test_a_later_setting_counts_only_where_it_does_something(monkeypatch):
    before = configs.fingerprint(default())
    monkeypatch.setitem(effects.LATER, "eval.tolerance", 0.0)
    values = dict(flatten(default()))
    assert "eval.tolerance" not in effects.counted(values)
    assert configs.fingerprint(default()) != before  # it is one fewer now
    other = changed(eval__tolerance=0.1)
    assert effects.counted(dict(flatten(other)))["eval.tolerance"] == 0.1


def test_decisive_settings_by_effect():
    found = effects.select(dict(flatten(default())), effects.SCORES, effects.CHOICE)
    assert "eval.shots" in found and "train.select" in found
    assert "seed" not in found and "data.cache" not in found


NEVER = {
    "train.save_every": 7,
    "train.log_every": 5,
    "train.keep_best": 3,
    "train.keep_latest": 9,
    "train.compilation_cache": "",
    "train.baseline": False,
    "data.cache": "",
    "data.workers": 2,
    "data.production": "x.jsonl",
    "data.max_rejected": 0.5,
    "data.eval_max_length": 4096,
    "data.dedup.engine": "suffix_array",
    "data.test": "other.jsonl",
    "eval.cache": "",
    "eval.batch_size": 1,
    "eval.shots": 4,
    "eval.max_examples": 5,
    "loss.chunk": 64,
    "mesh.fsdp": 2,
    "model.remat": "none",
    "model.attention": "reference",
    "judge.url": "http://x",
    "mine.share": 0.5,
}
ALWAYS = {
    "seed": 1,
    "data.train": "x",
    "data.validation": "x",
    "data.eval_on": "last",
    "data.max_length": 99,
    "data.dedup.case": True,
    "data.reading.instruction": "x",
    "loss.prompt_weight": 0.5,
    "lora.dropout": 0.1,
    "optim.final_scale": 0.5,
    "train.batch_size": 8,
    "train.epochs": 9,
    "train.validate_every": 3,
    "train.patience": 2,
}
GENERATED = {
    "eval.max_new_tokens": 4,
    "eval.temperature": 1.0,
    "eval.metrics": "exact_match,token_f1",
    "eval.during_training": 9,
    "eval.language": "ja",
    "eval.stop": "x",
    "eval.compare": "first_line",
    "eval.labels": "a,b",
}


@pytest.fixture
def run(tmp_path):
    path = workdirs.prepare(default(), str(tmp_path / "run"))
    (path / "metrics.jsonl").write_text("")
    return path


@pytest.mark.parametrize("key, value", (NEVER | GENERATED).items())
def test_what_cannot_change_a_result_never_locks(run, key, value):
    assert workdirs.prepare(changed(**{key: value}), str(run)) == run


@pytest.mark.parametrize("key, value", ALWAYS.items())
def test_what_is_learnt_or_chosen_by_does(run, key, value):
    with pytest.raises(UserError, match=f"{key}: .* there, {value!r} here"):
        workdirs.prepare(changed(**{key: value}), str(run))


@pytest.mark.parametrize("key, value", GENERATED.items())
def test_how_answers_are_generated_locks_where_the_epoch_is_chosen_by_them(tmp_path, key, value):
    ours = {"train.select": "exact_match", "eval.during_training": 8}
    run = workdirs.prepare(changed(**ours), str(tmp_path / "run"))
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=f"{key}: .* there, {value!r} here"):
        workdirs.prepare(changed(**ours | {key: value}), str(run))


@pytest.mark.parametrize("key, value", (GENERATED | {"train.select": "loss"}).items())
def test_what_was_chosen_may_be_scored_otherwise(tmp_path, key, value):
    """Nothing is chosen any more by the commands that score, talk to or export a checkpoint."""
    ours = {"train.select": "exact_match", "eval.during_training": 8}
    run = workdirs.prepare(changed(**ours), str(tmp_path / "run"))
    (run / "metrics.jsonl").write_text("")
    stored = (run / "config.json").read_text()
    assert workdirs.prepare(changed(**ours | {key: value}), str(run), only_scores=True) == run
    assert (run / "config.json").read_text() == stored
    with pytest.raises(UserError, match=r"lora\.rank: .* there, 3 here"):
        workdirs.prepare(changed(**ours | {"lora.rank": 3}), str(run), only_scores=True)


def test_a_source_locks_where_it_is_trained_on(tmp_path):
    def config(extra):
        found = changed(data__train="own,x.jsonl", data__test="held")
        found.data.sources = {"own": {"path": "a"}, "held": {"path": "b"}}
        for name, change in extra.items():
            found.data.sources[name].update(change)
        return found

    run = workdirs.prepare(config({}), str(tmp_path / "run"))
    (run / "metrics.jsonl").write_text("")
    assert workdirs.prepare(config({"held": {"path": "c"}}), str(run)) == run
    with pytest.raises(UserError, match=r"data\.sources\.own\.path: 'a' there, 'c' here"):
        workdirs.prepare(config({"own": {"path": "c"}}), str(run))


def test_the_way_on_with_other_values_is_shown_and_works(shared, tmp_path, capsys):
    """More epochs, other data, another batch size: what the message says is done word by word."""
    run = shared.copy("done", tmp_path / "run")
    more = ["--config.train.epochs=1", "--config.train.batch_size=16"]
    assert shared.main("train", run, *more) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "train.epochs: 3 there, 1 here" in error
    assert "train.batch_size: 8 there, 16 here" in error
    export, start = re.search(r"sft (export .*?), then sft train with (\S+) in", error).groups()
    assert tiny_run.cli.main(["sft", *export.split()]) == 0
    assert shared.main("train", tmp_path / "next", *more, start) == 0
    assert "steps without a warm-up (config.optim.warmup = 0.03 rounds" in capsys.readouterr().out
    losses = [
        [row["loss"] for row in shared.rows(path, "validation")]
        for path in (run, tmp_path / "next")
    ]
    chosen = json.loads((run / "selection.json").read_text())
    best = next(row["loss"] for row in chosen["epochs"] if row["step"] == chosen["step"])
    assert losses[1][0] == pytest.approx(best, rel=1e-5)  # where the first run had come to


def test_no_way_is_shown_where_there_is_none(shared, tmp_path, capsys):
    """Adapters of another rank, or of another model, are of no use to the new run."""
    run = shared.copy("done", tmp_path / "run")
    for change in ("--config.lora.rank=2", "--config.data.chat=gemma2"):
        assert shared.main("train", run, change, "--config.train.epochs=1") == 2
        assert "go on from" not in capsys.readouterr().err
