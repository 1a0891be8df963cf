import json

import pytest

from sft.errors import UserError
from sft.train import log, selection


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
    assert [row["loss"] for row in chosen["epochs"]] == losses
    assert json.loads((tmp_path / "selection.json").read_text()) == chosen


def test_the_untuned_model_is_no_epoch(tmp_path):
    write(tmp_path, [10.0, 11.0])
    assert selection.choose(tmp_path)["epoch"] == 1


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
