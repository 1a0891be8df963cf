"""``sft chat`` with lines from a pipe: the prompt of training, turns, and both models."""

import io
import json

import pytest
import tiny_run

from sft import config as configs
from sft.data import chat as chat_lib
from sft.eval import served

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


PAIR = {"input_text": "a", "output_text": "b"}


def served_of(train="", **reading):
    config = configs.default()
    config.data.train = train
    config.data.reading.update(reading)
    return served.find(config)


def test_what_is_typed_is_put_as_training_rows_are(tmp_path):
    rows = rows_of(tmp_path, "rows", [PAIR] * 3)
    found = served_of(rows, template="Next: {prompt}!", instruction="Be brief.")
    first = found.conversation("a", found.system)
    assert [turn.text for turn in first.turns] == ["Next: a!"] and first.system == "Be brief."
    said = " ".join(found.notes)
    assert "system instruction of the first 3 training rows: 'Be brief.'" in said
    assert "'Next: {prompt}!'" in said
    # Where the rows are not, the settings are all there is.
    found = served_of("/none.jsonl", instruction="Be brief.")
    assert found.system == "Be brief." and "the training rows are not here" in " ".join(found.notes)
    assert served_of(rows) == served.Served(None, "", ("no system instruction, as in training",))


def test_rows_with_a_system_instruction_of_their_own(tmp_path):
    def row(system):
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        return {"messages": [{"role": "system", "content": system}, *turns]}

    same = rows_of(tmp_path, "same", [row("Be b.")] * 3)
    found = served_of(same, instruction="Not this.")
    assert found.system == "Be b." and "first 3 training rows: 'Be b.'" in found.notes[0]
    several = rows_of(tmp_path, "several", [row("Be b."), row("Be c.")])
    found = served_of(several)
    assert found.system is None
    assert "training rows have 2 different system instructions; choose one" in found.notes[0]
    column = rows_of(tmp_path, "column", [PAIR | {"how": "Be d."}] * 2)
    assert served_of(column, system="how").system == "Be d."


def test_sources_with_readings_of_their_own(tmp_path):
    config = configs.default()
    rows = rows_of(tmp_path, "rows", [PAIR])
    config.data.sources = {
        "one": {"path": rows, "template": "1: {prompt}", "instruction": "Be e."},
        "two": {"path": rows, "template": "2: {prompt}", "instruction": "Be e."},
    }
    config.data.train = "one"
    found = served.find(config)
    assert (found.system, found.template) == ("Be e.", "1: {prompt}")
    config.data.train = "one,two"
    found = served.find(config)
    assert (found.system, found.template) == ("Be e.", "")
    assert "training has several ('1: {prompt}', '2: {prompt}')" in " ".join(found.notes)


def test_columns_that_cannot_be_typed_refuse_nothing(tmp_path):
    rows = rows_of(tmp_path, "rows", [PAIR | {"kind": "x", "language": "fr", "who": "y"}])
    found = served_of(rows, category="kind", group="who", group_regex="(y)")
    assert [turn.text for turn in found.conversation("a", None).turns] == ["a"]
    found = served_of(rows, template="{prompt} in {language}")
    assert [turn.text for turn in found.conversation("a in fr", None).turns] == ["a in fr"]
    assert "needs language, which cannot be typed. Type the whole prompt" in " ".join(found.notes)


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
    assert "system instruction of the first 16 training rows: 'Next letter.'" in out


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
