"""The guide's table of starting points, and the command that reads an audit by it."""

import json
import math

import pytest
import tiny_run

from sft import cli
from sft.config import default
from sft.errors import UserError
from sft.model import specs
from sft.tune import recommend, table

# The guide's table: tier, modality, examples, mean context: epochs, multiplier, adapter size.
# None = the default. Both sides of every threshold.
GUIDE = [
    ("pro", "text", 999, 499, 20, 10, 4),
    ("pro", "text", 1000, 499, 10, 5, 4),
    ("pro", "text", 999, 500, 10, 5, 4),
    ("pro", "text", 1, 1, 20, 10, 4),
    ("pro", "text", 9_999, 100, 10, 5, 4),
    ("pro", "text", 10_000, 100, 10, 1, 4),
    ("pro", "image", 1000, 100, 15, 5, 4),
    ("pro", "image", 1000, 900, 15, 5, 4),
    ("pro", "audio", 10, 10, 20, 1, 4),
    ("pro", "audio", 100_000, 900, 20, 1, 4),
    ("flash", "text", 999, 499, None, 10, 4),
    ("flash", "text", 1000, 499, None, 1, 8),
    ("flash", "text", 999, 500, None, 1, 8),
    ("flash", "image", 999, 499, 15, 5, 16),
    ("flash", "image", 1000, 499, 15, 1, 4),
    ("flash", "image", 999, 500, 15, 1, 4),
    ("flash", "audio", 10, 10, 20, 1, 4),
    ("flash", "audio", 100_000, 900, 20, 1, 4),
]


@pytest.mark.parametrize("row", GUIDE, ids=str)
def test_every_row_on_both_sides_of_every_threshold(row):
    tier, modality, examples, context, epochs, multiplier, adapter = row
    found = table.look_up(tier, modality, examples, context)
    assert (found.epochs, found.multiplier, found.adapter) == (epochs, multiplier, adapter)
    assert found.row.tier == tier and found.row.modality == modality


def test_images_have_more_epochs_when_fewer_and_fewer_when_more():
    assert [table.look_up("pro", "image", n, 1).epochs for n in (100, 250, 1000, 4000, 10**6)] == [
        *(45, 30, 15, 8, 5)
    ]
    assert table.look_up("flash", "image", 250, 1).epochs == 30
    assert table.look_up("flash", "image", 250, 600).epochs == 15  # at most, as the set is large
    assert table.look_up("flash", "image", 4000, 1).epochs == 8
    rules = table.look_up("pro", "image", 250, 1).rules
    assert len(rules) == 1 and "square root" in rules[0]
    assert "default" in table.look_up("pro", "text", 5000, 1).rules[0]
    assert table.look_up("flash", "text", 5000, 1).rules == ()


def test_tiers_and_base_rates_of_the_models():
    tiers = {name: table.tier(specs.get(name)) for name in specs.SPECS}
    pro = {name for name, tier in tiers.items() if tier == "pro"}
    assert pro == {"gemma2_9b", "gemma2_27b", "gemma3_12b", "gemma3_27b"}
    rates = {name: table.base_rate(specs.get(name)) for name in ("gemma3_270m", "gemma3_27b")}
    assert rates == {"gemma3_270m": 1.8e-4, "gemma3_27b": 6.1e-5}
    for name in specs.SPECS:
        spec = specs.get(name)
        assert 5 * table.base_rate(spec) == pytest.approx(
            5e-4 * math.sqrt(2000 / spec.embed), rel=0.05
        )


@pytest.mark.parametrize(
    ("examples", "modality", "said"), [(0, "text", "no training"), (5, "video", "'video'")]
)
def test_what_nothing_can_be_said_of(examples, modality, said):
    with pytest.raises(UserError, match=said):
        table.look_up("pro", modality, examples, 10)


def audited(path, rows=300, mean=50.0):
    (path / "data").mkdir(parents=True)
    train = {"rows": rows, "tokens": round(rows * mean), "mean_tokens": mean}
    train["trained_tokens"] = round(rows * mean / 4)
    (path / "data" / "report.json").write_text(json.dumps({"sets": {"train": train}}))
    return path


def command(path, *words):
    return cli.main(
        ["sft", "recommend", "--config=configs/quickstart.py", f"--workdir={path}", *words]
    )


def test_the_command_prints_flags_that_sft_takes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tiny_run.__file__.rsplit("/tests/", 1)[0])
    path = audited(tmp_path / "run")
    assert command(path, "--slice=v5e-1", "--json") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found == json.loads((path / "recommendation.json").read_text())
    assert found["changes"] == {
        "train.epochs": default().train.epochs,
        "optim.learning_rate": 1.8e-3,
        "lora.rank": 4,
        "lora.alpha": 32.0,
        "lora.rslora": False,
    }
    assert found["row"] == "flash, text, < 1,000 examples and mean context < 500"
    assert (found["steps"], found["tokens"]) == (3 * 30, 3 * 15_000)  # 59 packed rows, two a step
    assert 0 < found["hours"] < 1 and found["warnings"] == []
    flags = [line.split()[0] for line in err.splitlines() if line.startswith("  --config.")]
    assert len(flags) == 5 and command(path, *flags) == 0
    again = capsys.readouterr().out
    assert again.count("(as it is)") == 5 and "10 x 0.00018, the base rate of gemma3_270m" in again


@pytest.mark.parametrize(
    ("rows", "epochs", "batch", "said"),
    [
        (12, 3, 1, ["12 examples: fewer than 20"]),
        (60, 20, 1, ["near 100", "20 epochs of 60 examples: they will be known by heart"]),
        (300, 3, 64, ["steps in all: lower train.batch_size (now 64)"]),
        (300, 3, 2, []),
    ],
)
def test_a_set_too_small_for_what_is_asked(rows, epochs, batch, said):
    config = default()
    config.train.epochs, config.train.batch_size, config.data.max_length = epochs, batch, 60
    train = {"rows": rows, "tokens": 50 * rows, "mean_tokens": 50}
    found = [w for w in recommend.warnings(config, train) if "steps in all" not in w or batch > 1]
    assert len(found) == len(said) and all(s in w for s, w in zip(said, found, strict=True))


def test_without_an_audit_it_says_which_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tiny_run.__file__.rsplit("/tests/", 1)[0])
    assert command(tmp_path) == 2
    assert "Run sft data with the same --workdir first" in capsys.readouterr().err
    audited(tmp_path / "empty", rows=0)
    assert command(tmp_path / "empty") == 2
    assert "no training rows" in capsys.readouterr().err
    audited(tmp_path / "run")
    assert command(tmp_path / "run", "--slice=v5e-3") == 2
    assert "v5e-3" in capsys.readouterr().err
