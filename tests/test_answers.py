"""Answers that are cut, stopped, or compared by their first line; what a result depends on."""

import json
from collections import Counter

import pytest
import tiny_run

from sft import session
from sft.data.sets import loading
from sft.eval import evalset, harness, limits

shared, registered = tiny_run.shared, tiny_run.registered


@pytest.fixture(scope="module")
def run(shared, tmp_path_factory):
    """A trained run of which nothing has been evaluated; each test uses settings of its own."""
    return shared.copy("done", tmp_path_factory.mktemp("answers") / "run")


def read(run, arm="best", name="test"):
    result = json.loads((run / "eval" / f"{arm}.{name}.json").read_text())
    lines = (run / "eval" / f"{arm}.{name}.predictions.jsonl").read_text().splitlines()
    return result, [json.loads(line) for line in lines]


def long_set(tmp_path, answers):
    rows = [{"input_text": "a", "output_text": text} for text in answers]
    return f"--config.data.test={tiny_run.write_rows(tmp_path / 'long.jsonl', rows)}"


def test_an_answer_without_room_for_its_end_is_cut_and_can_be_right(shared, run, capsys):
    assert shared.main("eval", run, "--config.eval.max_new_tokens=1") == 0
    out, err = capsys.readouterr()
    result, rows = read(run)
    assert result["cut"] == result["count"] == 12 and all(row["cut"] for row in rows)
    assert result["correct"] > 6  # one token is all that is asked for
    assert "cut at 1 tokens 100.0 % (12/12)" in out
    assert (
        "warning: test: all 12 expected answers are longer than config.eval.max_new_tokens = 1 "
        "tokens with the end of turn" in err
    )
    assert "--config.eval.max_new_tokens=2 holds all" in err
    # The remedy.
    assert shared.main("eval", run, "--config.eval.max_new_tokens=2") == 0
    out, err = capsys.readouterr()
    assert "warning" not in err and read(run)[0]["cut"] == 0 and "0.0 % (0/12)" in out


def test_answers_of_which_none_can_fit_are_refused_where_the_metric_needs_the_whole(
    shared, run, tmp_path, capsys
):
    words = [long_set(tmp_path, ["b c d", "a b c d"]), "--config.eval.max_new_tokens=2"]
    assert shared.main("eval", run, *words) == 2
    error = capsys.readouterr().err
    assert "all 2 expected answers" in error and "exact_match of long could only be 0" in error
    remedy = error.split("--config.eval.max_new_tokens=")[1].split(" ")[0]
    assert problems(shared, ["b c d", "a b c d"], max_new_tokens=int(remedy)) == []
    assert problems(shared, ["b c d", "a b c d"], max_new_tokens=int(remedy) - 1) != []
    # Another metric gives part of the credit.
    checked(shared, tmp_path / "long.jsonl", max_new_tokens=2, metrics="chrf,exact_match")
    assert "warning: long: all 2 expected" in capsys.readouterr().err


def test_the_warning_comes_before_training_and_with_the_audit(shared, tmp_path, capsys):
    words = [long_set(tmp_path, ["b c d e", "b"]), "--config.train.epochs=1"]
    said = "warning: long: 1 of 2 expected answers is longer than config.eval.max_new_tokens = 3"
    assert shared.main("data", tmp_path / "a", *words) == 0
    assert said in capsys.readouterr().err
    # Nothing is generated of the test set here; of validation there is.
    rows = [{"input_text": "a", "output_text": text} for text in ("b", "b c d e", "b")]
    validation = tiny_run.write_rows(tmp_path / "validation.jsonl", rows)
    words += [f"--config.data.validation={validation}", "--config.eval.during_training=2"]
    assert shared.main("train", tmp_path / "b", *words) == 0
    error = capsys.readouterr().err
    assert error.count(said) == 1
    assert "warning: validation: 1 of 3 expected answers is longer" in error


def checked(shared, path, **knobs):
    """The evaluated set of this file."""
    config = shared.values(**{f"eval__{key}": value for key, value in knobs.items()})
    config.data.test = str(path)
    tok = session.tokenizer(config, tiny_run.SPEC)
    (found,) = evalset.load(loading.Sets(config, tiny_run.SPEC, tok)).values()
    return found


def problems(shared, expected, **knobs):
    config = shared.values(**{f"eval__{key}": value for key, value in knobs.items()})
    tok = session.tokenizer(config, tiny_run.SPEC)
    return limits.problems(config, "test", expected, tok)


def test_limits(shared):
    assert problems(shared, ["b", "b c"], max_new_tokens=4) == []
    ((sentence, all_of_them),) = problems(shared, ["b", "b c d"], max_new_tokens=3)
    assert "1 of 2 expected answers is longer" in sentence and not all_of_them
    # What has room for all but the end of its turn can be right: no reason to refuse.
    ((_, all_of_them),) = problems(shared, ["b c"], max_new_tokens=3)
    assert not all_of_them
    assert problems(shared, ["b\nc d e"], max_new_tokens=3, compare="first_line") == []
    ((sentence, all_of_them),) = problems(shared, ["b\nc"], max_new_tokens=9, stop="\\n")
    assert "has a stop string" in sentence and r"'\n'" in sentence and all_of_them
    assert problems(shared, ["b\nc"], max_new_tokens=9, stop="\\n", compare="first_line") == []


def test_an_answer_ends_at_the_first_stop_string(shared):
    config = shared.values(eval__stop="c,\\n", eval__max_new_tokens=4)
    tok = session.tokenizer(config, tiny_run.SPEC)

    def ended(text):
        return harness.ended(tok, config, tok.encode(text)[:4])

    assert ended("a b") == harness.Answer("a b", cut=False)
    assert ended("a bc") == harness.Answer("a b", cut=False, stop="c")
    assert ended("b\ncc") == harness.Answer("b", cut=False, stop="\n")
    assert ended("a b d e f") == harness.Answer(tok.decode(tok.encode("a b d e f")[:4]), cut=True)


def test_generation_ends_where_all_answers_are_stopped(shared, run, monkeypatch):
    lengths = []
    generate = harness.generate.generate

    def spy(*args, **how):
        found = generate(*args, **how)
        lengths.append(max(map(len, found)))
        return found

    monkeypatch.setattr(harness.generate, "generate", spy)
    words = ["--checkpoint=base", "--config.eval.max_new_tokens=20", "--config.eval.batch_size=12"]
    assert shared.main("eval", run, *words) == 0
    _, rows = read(run, "base")
    letter, count = Counter("".join(row["predicted"] for row in rows)).most_common(1)[0]
    assert count and lengths[0] == 20
    assert shared.main("eval", run, *words, f"--config.eval.stop={letter}") == 0
    result, stopped = read(run, "base")
    for before, after in zip(rows, stopped, strict=True):
        assert after["predicted"] == before["predicted"].partition(letter)[0]
        assert after.get("stop", "") == (letter if letter in before["predicted"] else "")
        assert after["cut"] == (before["cut"] and letter not in before["predicted"])
    assert result["cut"] == sum(row["cut"] for row in stopped)


def test_first_lines_are_compared_and_the_whole_is_kept(shared, run, monkeypatch, capsys):
    tok = session.tokenizer(shared.values(), tiny_run.SPEC)
    said = ["b\nand so on", "\n b \nb", "c"]
    monkeypatch.setattr(
        harness, "sample", lambda *_, **__: [tok.encode(said[i % 3]) for i in range(12)]
    )
    words = ["--config.eval.max_new_tokens=99", "--config.eval.metrics=exact_match,chrf"]
    assert shared.main("eval", run, *words) == 0
    whole, _ = read(run)
    assert shared.main("eval", run, *words, "--config.eval.compare=first_line") == 0
    result, rows = read(run)
    assert [row["predicted"] for row in rows[:3]] == said
    assert [row["compared"] for row in rows[:3]] == ["b", "b", "c"]
    right = [row["expected"] == ("b" if i % 3 < 2 else "c") for i, row in enumerate(rows)]
    assert [row["correct"] for row in rows] == right and result["correct"] == sum(right)
    assert result["metrics"]["exact_match"]["value"] == sum(right) / 12 > whole["exact_match"]
    assert result["metrics"]["chrf"]["value"] > whole["metrics"]["chrf"]["value"]
    assert result["metrics"]["chrf"]["signature"].endswith("|first line")
    assert result["metrics"]["exact_match"]["signature"] == "first line"
    assert whole["errors"]["goes_on"] and "goes_on" not in result["errors"]


def test_a_result_is_made_again_only_for_a_setting_that_differs(shared, run, monkeypatch):
    calls, answer = [], harness.answer
    monkeypatch.setattr(harness, "answer", lambda *args: calls.append(1) or answer(*args))
    assert shared.main("eval", run, "--config.eval.max_new_tokens=5") == 0
    path, made = run / "eval" / "best.test.json", len(calls)
    result = json.loads(path.read_text())
    settings = result["settings"]
    assert settings["eval.max_new_tokens"] == 5 and "eval.cache" not in settings
    # A setting that is newer than the result had its default.
    del settings["eval.stop"], settings["eval.compare"]
    path.write_text(json.dumps(result))
    assert shared.main("eval", run, "--config.eval.max_new_tokens=5") == 0 and len(calls) == made
    settings["eval.top_k"] = 3
    path.write_text(json.dumps(result))
    assert shared.main("eval", run, "--config.eval.max_new_tokens=5") == 0
    assert len(calls) == made + 1
