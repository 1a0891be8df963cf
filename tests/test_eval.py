import json
import shutil

import jax.numpy as jnp
import pytest
import tiny_run

from sft.data.tokenizer import sentencepiece as tokenizer_lib
from sft.eval import arms, harness
from sft.model import decoder

shared, registered = tiny_run.shared, tiny_run.registered


@pytest.fixture(scope="module")
def run(shared, tmp_path_factory):
    """A trained run with its base and best arms evaluated."""
    path = shared.copy("done", tmp_path_factory.mktemp("eval") / "run")
    assert shared.main("eval", path, "--checkpoint=base") == 0
    assert shared.main("eval", path) == 0
    return path


def result(run, arm, name="test"):
    return json.loads((run / "eval" / f"{arm}.{name}.json").read_text())


def test_tuning_is_seen(run):
    base, best = result(run, "base"), result(run, "best")
    assert base["exact_match"] == 0 and best["exact_match"] > 0.5
    assert best["loss"] < base["loss"] and best["token_accuracy"] > base["token_accuracy"]
    assert (base["checkpoint"], best["checkpoint"]) == ("base", "checkpoints/24")
    assert base["fingerprint"] != best["fingerprint"]


def test_result_agrees_with_its_predictions(run):
    best = result(run, "best")
    lines = (run / "eval" / "best.test.predictions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == best["count"] == tiny_run.SIZES["test"]
    assert sum(row["correct"] for row in rows) == best["correct"]
    assert best["exact_match"] == best["correct"] / best["count"]
    for row in rows:
        assert row["expected"] == chr(ord(row["prompt"][0]) + 1)
        assert row["correct"] == (row["predicted"].strip() == row["expected"])
        assert row["source"].rpartition(":")[0].endswith("test.jsonl")
    low, high = best["exact_match_interval"]
    assert low < best["exact_match"] < high


def test_loss_of_base_and_best_is_that_of_the_log(shared, run):
    words = (f"--config.data.test={shared.path / 'validation.jsonl'}",)
    logged = {row["step"]: row["loss"] for row in shared.rows("done", "validation")}
    for arm, step in (("base", 0), ("best", 24)):
        assert shared.main("eval", run, f"--checkpoint={arm}", *words) == 0
        assert result(run, arm, "validation")["loss"] == pytest.approx(logged[step], rel=1e-6)


def copies(shared, run, tmp_path):
    """A run and a test set of its own."""
    data = shutil.copy(shared.path / "test.jsonl", tmp_path / "test.jsonl")
    mine = shutil.copytree(run, tmp_path / "run")
    words = (f"--config.data.test={data}", "--config.eval.max_examples=4")
    return data, mine, words


def test_nothing_is_generated_twice_and_nothing_stale_is_kept(shared, run, tmp_path, monkeypatch):
    data, mine, words = copies(shared, run, tmp_path)
    calls, answer = [], harness.answer
    monkeypatch.setattr(harness, "answer", lambda *args: calls.append(1) or answer(*args))

    def generated(*more):
        calls.clear()
        assert shared.main("eval", mine, *words, *more) == 0
        return len(calls)

    assert generated() == 1  # other settings than the stored result
    made = (mine / "eval" / "best.test.json").stat().st_mtime_ns
    assert generated() == 0
    assert (mine / "eval" / "best.test.json").stat().st_mtime_ns == made
    assert generated("--config.eval.max_new_tokens=2") == 1
    assert generated() == 1
    tiny_run.write_rows(data, tiny_run.toy_rows("other", 5))
    assert generated() == 1
    assert result(mine, "best")["count"] == 4


def test_the_chosen_epoch_is_evaluated(shared, run, tmp_path):
    _, mine, words = copies(shared, run, tmp_path)
    chosen = json.loads((mine / "selection.json").read_text())
    (mine / "selection.json").write_text(json.dumps(chosen | {"step": 16}))
    assert shared.main("eval", mine, *words) == 0
    assert result(mine, "best")["checkpoint"] == "checkpoints/16"
    for which, arm in (("16", "step16"), ("latest", "latest")):
        assert shared.main("eval", mine, *words, f"--checkpoint={which}") == 0
        same = result(mine, arm)["loss"] == result(mine, "best")["loss"]
        assert same == (which == "16")


@pytest.mark.parametrize(
    "words, fragments",
    [
        (["--checkpoint=newest"], ["--checkpoint=newest", "base, best, latest", "[16, 24]"]),
        (["--checkpoint=8"], ["checkpoints/8: not there", "[16, 24]"]),
        (["--checkpoint=²"], ["--checkpoint=²: expected base, best, latest or one of [16, 24]"]),
        (["--checkpoint=" + "9" * 5000], ["expected base, best, latest or one of [16, 24]"]),
        (["--config.data.test="], ["config.data.test is not set"]),
        (["--config.data.test=/none.jsonl"], ["/none.jsonl", "No such file"]),
        (["--config.data.test=a/t.jsonl,b/t.jsonl"], ["a/t.jsonl", "more than one", "Rename"]),
    ],
)
def test_errors(shared, run, capsys, words, fragments):
    assert shared.main("eval", run, *words) == 2
    error = capsys.readouterr().err
    assert all(fragment in error for fragment in fragments), error


def test_not_trained_yet(shared, tmp_path, capsys):
    assert shared.main("eval", tmp_path) == 2
    assert "checkpoints: none there. Run sft train first" in capsys.readouterr().err


def test_not_trained_to_the_end(shared, tmp_path, capsys):
    run = shared.copy("done", tmp_path / "run")
    (run / "selection.json").unlink()
    assert shared.main("eval", run) == 2
    error = capsys.readouterr().err
    assert "selection.json: missing" in error and "--checkpoint=latest" in error
    config = shared.values()
    assert arms.which(run, config, "latest") == ("latest", 24)  # the remedies
    (run / "selection.json").write_text("{}")
    assert shared.main("eval", run) == 2
    assert "selection.json: no step in it" in capsys.readouterr().err
    (run / "selection.json").unlink()
    assert shared.main("train", run) == 0 and arms.which(run, config, "best") == ("best", 24)


def test_ids_without_a_piece_are_left_out(shared, monkeypatch):
    config = shared.values()
    tok = tokenizer_lib.load(str(shared.path / "tokenizer.model"))
    monkeypatch.setattr(harness.generate, "generate", lambda *_, **__: [[*tok.encode("a"), 511]])

    class Steps:
        options = decoder.Options(dtype=jnp.dtype("float32"))
        model = staticmethod(lambda *_: ({}, {}))

    model = harness.Model(tiny_run.SPEC, Steps(), tok, {}, {})
    assert tok.vocab_size < 511 < tiny_run.SPEC.vocab
    assert harness.answer(model, config, [[1]]) == [harness.Answer("a", cut=False)]


@pytest.mark.parametrize(
    "predicted, expected, equal",
    [("a", "a", True), (" a\n", "a", True), ("é", "e\u0301", True), ("a b", "ab", False),
     ("A", "a", False), ("", "a", False)],
)  # fmt: skip
def test_exact_match(predicted, expected, equal):
    assert harness.exact_match(predicted, expected) is equal
