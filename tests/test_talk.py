"""``sft chat`` with lines from a pipe: the prompt of training, turns, and both models."""

import io
import json

import pytest
import tiny_run

from sft.data.chat import encoding as chat_lib

shared, registered = tiny_run.shared, tiny_run.registered


@pytest.fixture
def talk(shared, monkeypatch, capsys):
    def run(text, *words):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert shared.main("chat", "done", "--json", *words) == 0
        out, err = capsys.readouterr()
        return json.loads(out.splitlines()[-1])["exchanges"], err

    return run


def test_both_models_and_what_the_tuned_one_learnt(talk, shared, tmp_path):
    run = shared.copy("done", tmp_path / "run")
    assert shared.main("eval", run) == 0
    rows = (run / "eval" / "best.test.predictions.jsonl").read_text().splitlines()
    expected = {row["prompt"]: row["predicted"] for row in map(json.loads, rows)}
    lines = list(expected)[:3]
    found, err = talk("\n\n/new\n".join(lines) + "\n", "--beside")
    assert [one["prompt"] for one in found] == lines
    assert [one["answers"]["best"] for one in found] == [expected[line] for line in lines]
    assert all(set(one["answers"]) == {"best", "base"} for one in found)
    for one in found:
        for name, answer in one["answers"].items():
            assert f"[{name}] {answer}\n" in err


def test_turns_follow_each_other_until_it_starts_again(talk, monkeypatch):
    asked = []
    encode = chat_lib.encode_prompt

    def spy(conversation, *rest):
        asked.append(([turn.text for turn in conversation.turns], conversation.system))
        return encode(conversation, *rest)

    monkeypatch.setattr(chat_lib, "encode_prompt", spy)
    words = ["--system=Be b.", "--config.eval.max_new_tokens=2"]
    found, _ = talk("a a\nb\n/new\nc\n/system Be c.\nd\n/quit\ne\n", *words)
    first, second = (one["answers"]["best"] for one in found[:2])
    assert second is not None
    assert asked == [
        (["a a"], "Be b."),
        (["a a", first, "b"], "Be b."),
        (["c"], "Be b."),
        (["d"], "Be c."),
    ]


def rows_of(tmp_path, name, rows):
    return str(tiny_run.write_rows(tmp_path / f"{name}.jsonl", rows))


def said(monkeypatch, shared, run, typed, *words):
    """What reached the model, by turn and system instruction, and what was printed."""
    asked, encode = [], chat_lib.encode_prompt

    def spy(conversation, *rest):
        asked.append(([turn.text for turn in conversation.turns], conversation.system))
        return encode(conversation, *rest)

    monkeypatch.setattr(chat_lib, "encode_prompt", spy)
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert shared.main("chat", run, *words) == 0
    return asked


def test_the_instruction_that_all_training_rows_had(shared, tmp_path, monkeypatch, capsys):
    run = shared.copy("done", tmp_path / "run")
    report = json.loads((run / "data" / "report.json").read_text())
    assert report["sets"]["train"]["system"] == {"same": True, "text": None}
    report["sets"]["train"]["system"]["text"] = "Be b."
    (run / "data" / "report.json").write_text(json.dumps(report))
    asked = said(monkeypatch, shared, run, "a\n/system Be c.\nb\n/system\nc\n")
    assert asked == [(["a"], "Be b."), (["b"], "Be c."), (["c"], "Be b.")]
    out = capsys.readouterr().out
    assert "system instruction, as in training: 'Be b.'" in out
    assert "started again, with the system instruction 'Be c.'" in out
    said(monkeypatch, shared, run, "", "--system=Be d.")
    assert "system instruction, by --system: 'Be d.'" in capsys.readouterr().out


def test_training_rows_with_several_instructions(shared, tmp_path, monkeypatch, capsys):
    run = shared.copy("done", tmp_path / "run")
    report = json.loads((run / "data" / "report.json").read_text())
    report["sets"]["train"]["system"] = {"same": False, "text": None}
    (run / "data" / "report.json").write_text(json.dumps(report))
    assert said(monkeypatch, shared, run, "a\n") == [(["a"], None)]
    out = capsys.readouterr().out
    assert "no system instruction\n" in out
    assert "The training conversations had different system instructions" in out


def test_the_template_of_training_is_put_around_first_prompts(monkeypatch, shared, tmp_path):
    words = ["--config.data.reading.template=<{prompt}|{prompt}>", "--config.train.epochs=1"]
    words += ["--config.data.max_length=64", "--config.eval.max_new_tokens=1"]
    assert shared.main("train", tmp_path / "run", *words) == 0
    asked = said(monkeypatch, shared, tmp_path / "run", "a\nb\n/new\nc\n\u200b\n", *words)
    answer = asked[1][0][1]
    assert [turns for turns, _ in asked] == [["<a|a>"], ["<a|a>", answer, "b"], ["<c|c>"]]


def test_what_cannot_be_sent_is_said(talk):
    found, err = talk("\u200b\na\n")
    assert len(found) == 1 and "not sent: empty text: what is typed" in err


def test_a_run_with_category_and_instruction_is_talked_to(shared, tmp_path, monkeypatch, capsys):
    rows = [row | {"kind": "x"} for row in tiny_run.toy_rows("train", 16)]
    words = [
        f"--config.data.train={rows_of(tmp_path, 'rows', rows)}",
        "--config.data.reading.category=kind",
        "--config.data.reading.instruction=Next letter.",
        "--config.train.epochs=1",
        f"--config.data.validation={rows_of(tmp_path, 'validation', rows)}",
        "--config.data.test=",
        "--config.data.max_length=64",
    ]
    assert shared.main("train", tmp_path / "run", *words) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("a a\n"))
    capsys.readouterr()
    assert shared.main("chat", tmp_path / "run", *words) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path / 'run'}: step 1 (best) of tiny_run\n" in out
    assert "system instruction, as in training: 'Next letter.'" in out


def test_commands(talk):
    found, err = talk("/help\n/nothing here\n//new b\n/etc/passwd\n/quit\nc\n")
    assert [one["prompt"] for one in found] == ["/new b", "/etc/passwd"]
    assert "/system TEXT" in err and "no command /nothing; /help lists them" in err
    assert "step 24 (best) of tiny_run" in err and "at most 3 tokens an answer" in err


def test_what_is_cut_and_what_is_stopped_are_said(talk):
    found, err = talk("a\n", "--config.eval.max_new_tokens=1")
    assert found[0]["cut"] == ["best"] and "(cut at config.eval.max_new_tokens = 1)" in err
    whole, err = talk("a\n")
    assert whole[0]["cut"] == [] and "(cut at" not in err and whole[0]["answers"]["best"] == "b"
    found, err = talk("a\n", "--config.eval.stop=b")
    assert found[0]["answers"]["best"] == "" and "stopped by ['b']" in err
    found, _ = talk("a\n", "--config.eval.stop=bcdefg")  # held back, and shown in the end
    assert found[0]["answers"]["best"] == "b"


def test_an_unknown_checkpoint_names_those_there_are(shared, monkeypatch, capsys):
    assert shared.main("chat", "done", "--checkpoint=newest") == 2
    error = capsys.readouterr().err
    assert "expected base, best, latest or one of [16, 24]" in error
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert shared.main("chat", "done", "--checkpoint=16") == 0
    assert "step 16 (step16) of tiny_run" in capsys.readouterr().out
