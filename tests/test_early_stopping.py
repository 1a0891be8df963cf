"""Runs that overfit: which validation is chosen, what is kept of it, and when the run ends."""

import json

import pytest
import tiny_run

from sft.eval import arms
from sft.run import directory
from sft.session import Session
from sft.train import validation

shared, registered = tiny_run.shared, tiny_run.registered

# Six rows, learnt by heart in a few passes: what is not among them gets worse.
FEW = {
    "train.epochs": 12,
    "train.batch_size": 8,
    "optim.learning_rate": 5e-2,
    "optim.schedule": "constant",
    "data.leakage.action": "report",
}


@pytest.fixture(scope="module")
def few(shared):
    data = tiny_run.write_rows(shared.path / "few.jsonl", tiny_run.toy_rows("few", 6))
    return [f"--config.data.train={data}", *(f"--config.{k}={v}" for k, v in FEW.items())]


@pytest.fixture(scope="module")
def overfitted(shared, few, tmp_path_factory):
    run = tmp_path_factory.mktemp("overfitted") / "run"
    assert shared.main("train", run, *few) == 0
    return run


def chosen_of(run):
    return json.loads((run / "selection.json").read_text())


def test_a_run_that_overfits_keeps_its_best_epoch_to_the_digit(shared, overfitted):
    rows = shared.rows(overfitted, "validation")[1:]
    losses = [row["loss"] for row in rows]
    best, chosen = min(rows, key=lambda row: row["loss"]), chosen_of(overfitted)
    trained = [row["loss"] for row in shared.rows(overfitted, "train")]
    # It does overfit: what it learnt by heart does not carry over.
    assert trained[-1] < trained[0] - 1 and losses[-1] > min(losses) + 0.2
    assert 0 < losses.index(min(losses)) < len(losses) - 3
    assert chosen["step"] == best["step"] and chosen["metric"] == "loss"
    kept = sorted(int(p.name) for p in (overfitted / "checkpoints").iterdir() if p.name.isdigit())
    assert kept == [best["step"], rows[-2]["step"], rows[-1]["step"]]

    config = directory.stored_config(str(overfitted))
    opened = Session(config, str(overfitted), only_scores=True)
    found = opened.sets.load(["validation"])["validation"].examples
    model = arms.load(opened, chosen["step"])
    again = validation.validate(config, model.steps, model.trainable, model.frozen, found)
    assert again == {key: best[key] for key in again}


def test_patience_ends_a_run_that_is_as_the_full_one_until_then(shared, few, overfitted, tmp_path):
    run = tmp_path / "run"
    assert shared.main("train", run, *few, "--config.train.patience=2") == 0
    full, ours = shared.rows(overfitted), shared.rows(run)
    assert ours == full[: len(ours)] and len(ours) < len(full)
    losses = [row["loss"] for row in ours if row["split"] == "validation"][1:]
    assert min(losses[-2:]) >= min(losses[:-2])
    assert all(min(losses[i - 2 : i]) < min(losses[: i - 2]) for i in range(3, len(losses)))
    chosen = chosen_of(run)
    assert chosen["step"] == chosen_of(overfitted)["step"]
    assert chosen["stopped_early"] == {"step": ours[-1]["step"], "planned": full[-1]["step"]}
    assert "stopped_early" not in chosen_of(overfitted)
    # Started again, it is done; without its end, it has nothing left to do.
    for name in ("DONE", "selection.json"):
        (run / name).unlink()
    assert shared.main("train", run, *few, "--config.train.patience=2") == 0
    assert shared.rows(run) == ours and chosen_of(run) == chosen


def test_validation_between_epochs_can_be_chosen(shared, tmp_path):
    more = ["--config.train.validate_every=3", "--config.train.keep_latest=1"]
    assert shared.main("train", tmp_path, *more) == 0
    rows = shared.rows(tmp_path, "validation")
    assert [row["step"] for row in rows] == [0, 3, 6, 8, 9, 12, 15, 16, 18, 21, 24]
    at_ends = {row["step"]: row for row in shared.rows("done", "validation")}
    assert all(row == at_ends[row["step"]] for row in rows if row["step"] in at_ends)
    chosen, best = chosen_of(tmp_path), min(rows[1:], key=lambda row: row["loss"])
    assert chosen["step"] == best["step"] and len(chosen["epochs"]) == 10
    assert (tmp_path / "checkpoints" / str(best["step"])).is_dir()


def test_a_generated_metric_chooses_in_its_own_direction(shared, tmp_path):
    more = ["--config.eval.during_training=12", "--config.train.select=exact_match"]
    assert shared.main("train", tmp_path, *more) == 0
    rows = shared.rows(tmp_path, "validation")
    shares = [row["exact_match"] for row in rows]
    assert shares[0] == 0 and max(shares) > 0.5
    assert all(round(12 * share, 6).is_integer() for share in shares)
    chosen = chosen_of(tmp_path)
    assert chosen["better"] == "higher"
    ties = [row for row in rows[1:] if row["exact_match"] == max(shares)]
    assert chosen["step"] == min(ties, key=lambda row: (row["loss"], row["step"]))["step"]
    assert [row["exact_match"] for row in chosen["epochs"]] == shares[1:]
    assert all(round(12 * row["cut"], 6).is_integer() for row in rows)
    generated = ("exact_match", "cut")
    without = [{k: v for k, v in row.items() if k not in generated} for row in rows]
    assert without == shared.rows("done", "validation")


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["--config.train.select=los"], ["train.select = 'los'", "Did you mean 'loss'"]),
        (["--config.train.select=exact_match"], ["needs generated answers", "during_training"]),
        (
            ["--config.train.select=bleu", "--config.eval.during_training=2"],
            ["train.select = 'bleu'", "config.eval.metrics = 'exact_match'"],
        ),
        (["--config.train.patience=-1"], ["train.patience = -1", "0 or more"]),
    ],
)
def test_what_cannot_choose(shared, tmp_path, capsys, words, fragments):
    assert shared.main("train", tmp_path, *words) == 2
    error = capsys.readouterr().err
    assert all(fragment in error for fragment in fragments), error
    assert not (tmp_path / "metrics.jsonl").exists()
