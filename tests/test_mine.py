import dataclasses
import json
import shlex

import jax
import numpy as np
import pytest
import tiny_run

from sft import cli, session
from sft.commands import parsing
from sft.config.check import validate
from sft.data.read.records import Conversation, Turn
from sft.data.sets import loading
from sft.eval import arms, mine
from sft.train import validation

shared, registered = tiny_run.shared, tiny_run.registered

TOPICS = {
    "data.reading.category": "topic",
    "data.reading.group": "author",
    "data.reading.group_regex": r"^(\w+) ",
    "data.reading.template": "Next of {prompt}",
    "data.reading.instruction": "Be brief.",
    "data.max_length": 64,
}


def sft_mine(shared, workdir, *words):
    line = ["data", "mine", f"--config={shared.config}", f"--workdir={workdir}", *words]
    return cli.main(["sft", *line])


def words_of(values):
    return [f"--config.{key}={value}" for key, value in values.items()]


def summary(workdir, arm="base"):
    return json.loads((workdir / "mine" / f"{arm}.summary.json").read_text())


def lines(workdir, name):
    return [json.loads(line) for line in (workdir / "mine" / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def mined(shared, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("mine") / "run"
    assert sft_mine(shared, workdir) == 0
    return workdir


@pytest.fixture(scope="module")
def base(shared):
    """The training set and the base model."""
    config = shared.values()
    tok = session.tokenizer(config, tiny_run.SPEC)
    split = loading.Sets(config, tiny_run.SPEC, tok).load(["train"])["train"]
    return config, split, arms.load(session.Session(config), None)


def test_every_row_has_its_own_loss(mined, base):
    config, split, model = base
    rows = {row["source"]: row for row in lines(mined, "base.ranked.jsonl")}
    assert list(rows) != [c.source for c in split.conversations]
    lengths = split.examples.lengths
    for i in (int(np.argmin(lengths)), int(np.argmax(lengths)), 0, 50, len(lengths) - 1):
        alone = validation.validate(
            config, model.steps, model.trainable, model.frozen, split.examples.select([i])
        )
        row = rows[split.conversations[i].source]
        assert row["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert row["token_accuracy"] == alone["token_accuracy"]
        assert row["trained_tokens"] == alone["weight"] == split.examples.trained[i]


def test_the_whole_is_what_validation_gives(mined, base):
    config, split, model = base
    whole = validation.validate(config, model.steps, model.trainable, model.frozen, split.examples)
    found = summary(mined)["all"]
    assert found["count"] == tiny_run.SIZES["train"]
    assert found["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert found["token_accuracy"] == pytest.approx(whole["token_accuracy"], rel=1e-6)
    losses = [row["loss"] for row in lines(mined, "base.ranked.jsonl")]
    assert found["quantiles"] == {
        str(q): pytest.approx(np.quantile(losses, q)) for q in (0.1, 0.5, 0.9, 1.0)
    }


def test_ranking_and_files(mined):
    rows, found = lines(mined, "base.ranked.jsonl"), summary(mined)
    assert [row["rank"] for row in rows] == list(range(1, tiny_run.SIZES["train"] + 1))
    assert [row["loss"] for row in rows] == sorted((r["loss"] for r in rows), reverse=True)
    assert list(rows[0])[1:5] == ["source", "origin", "group", "category"]
    assert "predicted" not in rows[0] and "exact_match" not in rows[0]
    chosen, sizes = rows[:19], [found["chosen"][f"{name}_rows"] for name in ("train", "evaluate")]
    assert sum(sizes) == found["chosen"]["count"] == 19  # a fifth of 96
    tokens = [row["trained_tokens"] for row in chosen]
    expected = np.average([row["loss"] for row in chosen], weights=tokens)
    assert found["chosen"]["loss"] == pytest.approx(expected) and expected > found["all"]["loss"]
    for name, count in zip(("train", "evaluate"), sizes, strict=True):
        assert len(lines(mined, f"base.{name}.jsonl")) == count > 0
    assert not list((mined / "mine").glob("*.tmp"))


def write_topics(path):
    """40 rows of five authors; the third and the eighth, of one author, say the same."""
    rows = [
        {
            "input_text": " ".join("abcdefgh"[i % 8] * (i // 8 + 1)),
            "output_text": "bcdefghi"[i % 8],
            "topic": f"topic {i % 5 % 2}",
            "author": f"author{i % 5} of {i}",
        }
        for i in range(40)
    ]
    rows[7] = rows[2]
    return tiny_run.write_rows(path, rows)


def plain(conversation):
    return dataclasses.replace(conversation, source="", origin="")


def test_the_files_are_read_back_as_the_same_conversations(shared, tmp_path, capsys):
    data = write_topics(tmp_path / "rows.jsonl")
    values = TOPICS | {"data.train": str(data), "data.test": "", "data.split.test": 0.2}
    more = ("--config.data.augment.copies=2", "--config.mine.share=0.5")
    more += ("--config.mine.evaluate=0.3",)
    assert sft_mine(shared, tmp_path / "run", *words_of(values), *more) == 0
    printed = capsys.readouterr().out
    config = shared.values()
    config.update_from_flattened_dict(values)
    tok = session.tokenizer(config, tiny_run.SPEC)
    whole = loading.Sets(config, tiny_run.SPEC, tok).load(["train"])["train"].conversations
    by_source = {row.source: plain(row) for row in whole}
    expected = [by_source[row["source"]] for row in lines(tmp_path / "run", "base.ranked.jsonl")]
    assert len(expected) == len(whole) == 32  # no augmented copies, and none of the test group
    assert expected[0].system == "Be brief." and expected[0].category.startswith("topic ")
    assert expected[0].group in {f"author{i}" for i in range(5)}

    advice = next(line for line in printed.splitlines() if line.startswith("next: "))
    parsing.override(config, [word for word in shlex.split(advice) if word.startswith("--config.")])
    validate(config)
    paths = {"train": config.data.train, "test": config.data.test}
    found = {}
    for name, config.data.train in paths.items():  # a test set is read without its groups
        again = loading.Sets(config, tiny_run.SPEC, tok).load(["train"])["train"]
        found[name] = [plain(c) for c in again.conversations]
    train, test = found["train"], found["test"]
    assert sorted(map(repr, [*train, *test])) == sorted(map(repr, expected[:16]))
    assert train == [row for row in expected[:16] if row in train]  # hardest first
    assert not {row.group for row in train} & {row.group for row in test}
    assert {row.group for row in test}


def test_nothing_is_scored_twice_and_nothing_stale_is_kept(shared, tmp_path, monkeypatch):
    data = write_topics(tmp_path / "rows.jsonl")
    words = [*words_of(TOPICS | {"data.train": str(data)}), "--config.mine.evaluate=0.3"]
    calls, run = [], tmp_path / "run"

    def score(model, config, split):  # by the length of the prompt
        calls.append(1)
        return [
            {"source": c.source, "origin": c.origin, "group": c.group, "category": c.category}
            | {"loss": len(c.turns[0].text) / 7, "token_accuracy": 0.0, "trained_tokens": 2}
            for c in split.conversations
        ]

    monkeypatch.setattr(mine, "score", score)
    monkeypatch.setattr(mine.arms, "load", lambda *_: None)

    def scored(*more):
        calls.clear()
        assert sft_mine(shared, run, *words, *more) == 0
        return len(calls)

    assert scored() == 1
    ranked = lines(run, "base.ranked.jsonl")
    first = lines(run, "base.train.jsonl")
    assert scored() == 0
    assert lines(run, "base.ranked.jsonl") == ranked and lines(run, "base.train.jsonl") == first
    assert scored("--config.mine.share=0.6", "--config.mine.evaluate=0.0") == 0
    assert len(lines(run, "base.train.jsonl")) == 24
    assert not (run / "mine" / "base.evaluate.jsonl").exists()
    assert scored("--config.mine.select=band", "--config.mine.high=0.5") == 0
    last = [row["contents"][-1]["parts"] for row in lines(run, "base.train.jsonl")]
    assert summary(run)["chosen"]["loss"] < summary(run)["all"]["loss"] and last
    assert scored("--config.mine.exact_match=True") == 1
    assert scored() == 1
    data.write_text("\n" + data.read_text())  # the same rows, one line further down
    assert scored() == 1
    moved = {int(row["source"].rpartition(":")[2]) for row in lines(run, "base.ranked.jsonl")}
    assert moved == set(range(2, 42))
    data.write_text(data.read_text().replace("topic 0", "topic 2"))  # the ids stay the same
    assert scored() == 1
    assert {row["category"] for row in lines(run, "base.ranked.jsonl")} == {"topic 1", "topic 2"}
    (run / "mine" / "base.ranked.jsonl").write_text("{}\n")
    assert scored() == 1
    assert len(lines(run, "base.ranked.jsonl")) == 40


def test_a_checkpoint_and_its_answers(shared, mined, tmp_path):
    run = shared.copy("done", tmp_path / "run")
    words = ("--checkpoint=best", "--config.mine.exact_match=True", "--config.mine.share=0.5")
    assert sft_mine(shared, run, *words) == 0
    rows, found = lines(run, "best.ranked.jsonl"), summary(run, "best")
    given = (shared.path / "train.jsonl").read_text().splitlines()
    for row in rows:
        expected = json.loads(given[int(row["source"].rpartition(":")[2]) - 1])["output_text"]
        assert row["exact_match"] == (row["predicted"].strip() == expected)
    right = [row["exact_match"] for row in rows]
    assert right == sorted(right) and sum(right) > 48  # it has learnt them
    assert found["all"]["exact_match"] == sum(right) / 96 > found["chosen"]["exact_match"]
    assert found["checkpoint"] == "checkpoints/24" and found["chosen"]["count"] == 48
    assert found["all"]["loss"] < summary(mined)["all"]["loss"]


@pytest.mark.parametrize(
    "words, fragments",
    [
        (["--config.mine.share=0.0"], ["config.mine.share = 0.0: selects none of 96"]),
        (["--config.mine.evaluate=1.0"], ["config.mine.evaluate = 1.0", "none is left to train"]),
        (["--config.mine.per_category=True"], ["train.jsonl:1", "no category"]),
        (["--config.data.train="], ["config.data.train is not set"]),
        (["--checkpoint=best"], ["checkpoints: none there. Run sft train first"]),
        (["--config.mine.select=hard"], ["config.mine.select = 'hard'", "hardest"]),
    ],
)
def test_errors(shared, tmp_path, capsys, monkeypatch, words, fragments):
    if "evaluate" not in words[0]:
        monkeypatch.setattr(mine, "score", lambda *_: pytest.fail("scored before it was checked"))
    assert sft_mine(shared, tmp_path, *words) == 2
    error = capsys.readouterr().err
    assert all(fragment in error for fragment in fragments), error
    assert error.count("\n") == 1


def test_a_loss_that_is_not_a_number_names_the_row(base):
    config, split, model = base
    broken = jax.tree.map(lambda x: x * np.nan, model.frozen)
    with pytest.raises(mine.UserError, match=r"train\.jsonl:1: the loss of this row is nan"):
        mine.score(dataclasses.replace(model, frozen=broken), config, split)


def test_a_column_that_some_rows_have_is_written_for_all(tmp_path):
    turns = (Turn("user", "a"), Turn("model", "b"))
    rows = [Conversation(turns, None, "a:1", "a", "one"), Conversation(turns, None, "a:2", "a")]
    mine._write_parts(tmp_path, "base", {"train": rows[1:], "evaluate": rows[:1]})
    for name, group in (("train", ""), ("evaluate", "one")):
        row = json.loads((tmp_path / f"base.{name}.jsonl").read_text())
        assert row["group"] == group and "category" not in row
