import json

import pytest

from sft.errors import UserError
from sft.run import log
from sft.train import selection


def write(workdir, losses, steps_per_epoch=10):
    with_start = [9.0, *losses]
    rows = [
        {"split": "validation", "step": i * steps_per_epoch, "epoch": float(i), "loss": loss,
         "token_accuracy": 0.5}
        for i, loss in enumerate(with_start)
    ]  # fmt: skip
    train = {"split": "train", "step": 5, "epoch": 0.5, "loss": 0.0, "token_accuracy": 1.0}
    text = "".join(json.dumps(row) + "\n" for row in [*rows, train])
    (workdir / "metrics.jsonl").write_text(text)


@pytest.mark.parametrize(
    "losses, epoch",
    [([3.0, 1.0, 2.0], 2), ([3.0, 2.0, 1.0], 3), ([1.0, 2.0], 1), ([2.0, 1.0, 1.0], 2)],
)
def test_lowest_loss_and_the_earlier_on_a_tie(tmp_path, losses, epoch):
    write(tmp_path, losses)
    chosen = selection.choose(tmp_path)
    assert (chosen["epoch"], chosen["step"]) == (epoch, 10 * epoch)
    assert chosen["checkpoint"] == f"checkpoints/{10 * epoch}"
    assert f"{min(losses):.4f}, of {len(losses)} epochs" in chosen["why"]
    assert ("2 have it, and this one is the earliest" in chosen["why"]) == (losses.count(1.0) > 1)
    assert "warning" not in chosen
    assert [row["loss"] for row in chosen["epochs"]] == losses
    assert json.loads((tmp_path / "selection.json").read_text()) == chosen


def test_the_untuned_model_is_no_epoch(tmp_path):
    write(tmp_path, [10.0, 11.0])
    assert selection.choose(tmp_path)["epoch"] == 1


EXACT = selection.Rule("exact_match", "higher")


def write_scores(workdir, scores, losses, cut=None):
    rows = [
        {"split": "validation", "step": 10 * i, "epoch": float(i), "loss": loss,
         "token_accuracy": 0.5, "exact_match": score} | ({} if cut is None else {"cut": cut})
        for i, (score, loss) in enumerate(zip(scores, losses, strict=True), start=1)
    ]  # fmt: skip
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


@pytest.mark.parametrize("scores, losses, epoch, why", [
    ([0.2, 0.5, 0.5, 0.4], [4, 3, 2, 1], 3,
     "highest validation exact match, 50.0 %, of 4 epochs; 2 have it, and this one is of lowest "
     "loss, 2.0000"),
    ([0.5, 0.5, 0.5, 0.4], [4, 2, 2, 1], 2,
     "highest validation exact match, 50.0 %, of 4 epochs; 3 have it, and this one is of lowest "
     "loss, 2.0000 and the earliest"),
    ([0.2, 0.5], [1, 2], 2, "highest validation exact match, 50.0 %, of 2 epochs"),
])  # fmt: skip
def test_ties_go_to_the_lowest_loss_and_are_named(tmp_path, scores, losses, epoch, why):
    write_scores(tmp_path, scores, losses)
    chosen = selection.choose(tmp_path, EXACT)
    assert (chosen["epoch"], chosen["why"]) == (epoch, why) and "warning" not in chosen


def test_a_metric_that_is_the_same_everywhere_is_not_chosen_from_in_silence(tmp_path):
    rows = write_scores(tmp_path, [0.0, 0.0, 0.0], [3, 1, 2], cut=1.0)
    chosen = selection.choose(tmp_path, EXACT)
    assert chosen["epoch"] == 2  # of lowest loss, rather than the least trained
    assert chosen["warning"] == (
        "exact match was 0.0 % at all 3 validations, so that it chose nothing; up to 100.0 % of "
        "the answers were cut. Raise config.eval.max_new_tokens. Choose by another metric, as "
        "config.train.select = loss, or validate on more prompts (config.eval.during_training)."
    )
    assert json.loads((tmp_path / "selection.json").read_text()) == chosen
    write_scores(tmp_path, [1.0, 1.0], [3, 1])
    assert "cut" not in selection.choose(tmp_path, EXACT)["warning"]
    write_scores(tmp_path, [0.0], [3])  # there was nothing to choose from
    assert "warning" not in selection.choose(tmp_path, EXACT)
    # Patience ranks as the choice does: a lower loss is better.
    assert not selection.patience_ended(rows[:2], EXACT, 1)
    assert selection.patience_ended(rows, EXACT, 1)


def test_no_finished_epoch(tmp_path):
    write(tmp_path, [])
    with pytest.raises(UserError, match=r"metrics\.jsonl: no finished epoch"):
        selection.choose(tmp_path)


def test_a_last_line_cut_short_is_left_out_and_damage_is_named(tmp_path):
    write(tmp_path, [1.0])
    path = tmp_path / "metrics.jsonl"
    whole = log.read(tmp_path)
    path.write_text(path.read_text() + '{"split": "val')
    assert log.read(tmp_path) == whole
    path.write_text("damaged\n" + path.read_text())
    with pytest.raises(UserError, match=r"metrics\.jsonl: damaged"):
        log.read(tmp_path)
