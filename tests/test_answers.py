"""Answers that are cut, stopped, compared by their first line; labels that are ranked."""

import json
from collections import Counter

import pytest
import tiny_run

from sft import config as configs
from sft import inputs
from sft.eval import evalset, harness, limits
from sft.report import findings, terminal
from sft.report.load import load_run

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
    tok = inputs.tokenizer(config, tiny_run.SPEC)
    (found,) = evalset.load(config, tiny_run.SPEC, tok).values()
    return found


def problems(shared, expected, **knobs):
    config = shared.values(**{f"eval__{key}": value for key, value in knobs.items()})
    tok = inputs.tokenizer(config, tiny_run.SPEC)
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
    tok = inputs.tokenizer(config, tiny_run.SPEC)

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
    tok = inputs.tokenizer(shared.values(), tiny_run.SPEC)
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


LABELS = "--config.eval.labels=expected"


@pytest.fixture(scope="module")
def labelled(shared, tmp_path_factory):
    """Both arms with ranked labels."""
    run = shared.copy("done", tmp_path_factory.mktemp("labelled") / "run")
    words = [LABELS, "--config.eval.shots=2"]
    assert shared.main("eval", run, "--checkpoint=base", *words) == 0
    assert shared.main("eval", run, *words) == 0
    return run


def test_labels_are_ranked_for_every_arm(labelled):
    for arm in ("base", "base.2shot", "best"):
        result, rows = read(labelled, arm)
        assert result["labels"] == list("bcdefghi") and result["primary"] == "label_accuracy"
        right = 0
        for row in rows:
            assert len(row["log_likelihoods"]) == 8 == row["ranks"]
            best = max(range(8), key=row["log_likelihoods"].__getitem__)
            assert row["ranked"] == result["labels"][best]  # all labels have one letter
            assert row["ranked_norm"] == row["ranked"]
            right += row["ranked"] == row["expected"]
            assert row["scores"]["label_accuracy"] == (row["ranked"] == row["expected"])
        found = result["metrics"]["label_accuracy"]
        assert found["value"] == right / 12 and found["interval"][0] <= found["value"]
        assert {"label_macro_f1", "label_accuracy_norm"} <= result["metrics"].keys()
    assert read(labelled)[0]["metrics"]["label_accuracy"]["value"] > 0.5


def test_the_headline_is_the_metric_that_was_asked_for(labelled):
    text = terminal.render(load_run(labelled))
    found = findings.compare(load_run(labelled), "test")
    base, best = (
        read(labelled, a)[0]["metrics"]["label_accuracy"]["value"] for a in ("base", "best")
    )
    assert found.metric == "label_accuracy" and found.paired[0] == pytest.approx(best - base)
    assert found.verdict == "better" and f"label accuracy {100 * base:.1f} % →" in found.sentence
    assert "test: tuning helped, label accuracy" in text and "exact match" in text
    assert "base: cut at 3 tokens" in text and "without a model: always" in text


def test_constant_answers_are_of_training(shared, labelled, tmp_path, capsys):
    counts = Counter(row["output_text"] for row in tiny_run.toy_rows("train", 96))
    most = max(counts.values())
    result, _ = read(labelled)
    found = result["constant"]["majority"]
    assert found["known_from"] == "training"
    assert found["label"] == min(label for label, count in counts.items() if count == most)
    test = Counter(row["output_text"] for row in tiny_run.toy_rows("test", 12))
    assert found["metrics"]["label_accuracy"]["value"] == test[found["label"]] / 12
    # Without the training set it is that of the set itself, and this is said.
    run = shared.copy("done", tmp_path / "run")
    gone = "--config.data.train=/none.jsonl"
    assert shared.main("eval", run, "--checkpoint=base", gone, LABELS) == 2  # another run's
    (run / "config.json").unlink()
    assert shared.main("eval", run, "--checkpoint=base", gone, LABELS) == 0
    out, err = capsys.readouterr()
    assert "the labels are those of the evaluated sets alone: /none.jsonl" in err
    result, _ = read(run, "base")
    assert result["constant"]["majority"]["known_from"] == "set"
    assert result["labels"] == sorted(test) and "the most frequent answer of this set" in out


def test_labels_that_are_named(shared, run, capsys):
    words = ["--checkpoint=base", "--config.eval.labels=b,c,d,e,f,g,h"]
    missing = [row["output_text"] for row in tiny_run.toy_rows("test", 12)]
    assert "i" in missing
    assert shared.main("eval", run, *words) == 2
    error = capsys.readouterr().err
    assert f"test.jsonl:{missing.index('i') + 1}: the expected answer 'i' is not among" in error
    assert shared.main("eval", run, words[0], words[1] + ",i, z") == 0
    result, rows = read(run, "base")
    assert result["labels"] == [*"bcdefghi", "z"] and all(row["ranks"] == 9 for row in rows)


def test_answers_that_are_no_labels_are_not_ranked(shared, run, tmp_path, capsys):
    every = [f"{a}{b}" for a in "abcdef" for b in "abcde"]
    words = ["--checkpoint=base", "--config.eval.metrics=chrf"]
    assert shared.main("eval", run, *words, long_set(tmp_path, every), LABELS) == 2
    error = capsys.readouterr().err
    assert "long has 30 different answers in 30 rows, which are not labels" in error
    assert checked(shared, tmp_path / "long.jsonl", metrics="chrf").labels == ()  # the remedy


def test_a_set_of_different_answers_has_no_constant_ones(shared, tmp_path):
    long_set(tmp_path, ["b", "c", "b c"])
    found = checked(shared, tmp_path / "long.jsonl")
    assert found.majority is None and found.known_labels is None and found.labels == ()
    long_set(tmp_path, ["b", "c", "b", "c"])
    found = checked(shared, tmp_path / "long.jsonl")
    assert found.majority and {"b", "c"} <= found.known_labels


def test_training_chooses_by_ranked_labels(shared, tmp_path):
    words = ["--config.train.select=label_accuracy", "--config.eval.during_training=12", LABELS]
    assert shared.main("train", tmp_path, *words) == 0
    rows = shared.rows(tmp_path, "validation")
    assert all(
        {"label_accuracy", "label_macro_f1", "exact_match", "cut"} <= row.keys() for row in rows
    )
    chosen = json.loads((tmp_path / "selection.json").read_text())
    best = max(row["label_accuracy"] for row in rows[1:])
    tied = [row for row in rows[1:] if row["label_accuracy"] == best]
    assert chosen["step"] == min(tied, key=lambda row: row["loss"])["step"]
    assert chosen["metric"] == "label_accuracy" and best > 0.5


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


def test_answers_generated_otherwise_are_said_to_be(labelled, shared, tmp_path):
    run = shared.copy(labelled, tmp_path / "run")
    assert "generated with other settings" not in terminal.render(load_run(run))
    assert shared.main("eval", run, LABELS, "--config.eval.max_new_tokens=4") == 0
    text = terminal.render(load_run(run))
    assert "config.eval.max_new_tokens = 3 and 4. Run `sft eval` for both with the same." in text


def test_settings_of_labels_and_stops():
    config = configs.default()
    config.eval.stop, config.eval.labels = "\\n,Q:", "a\\,b,c"
    from sft.config_check import validate

    validate(config)
