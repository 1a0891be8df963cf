"""``sft chat`` with lines from a pipe: the prompt of training, turns, and both models."""

import io
import json

import pytest
import tiny_run

from sft import config as configs
from sft.data import chat as chat_lib
from sft.errors import UserError
from sft.eval import chat

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


def test_the_instruction_that_all_training_rows_had(shared, tmp_path, monkeypatch, capsys):
    run, asked = shared.copy("done", tmp_path / "run"), []
    report = json.loads((run / "data" / "report.json").read_text())
    assert report["sets"]["train"]["system"] == {"same": True, "text": None}
    report["sets"]["train"]["system"]["text"] = "Be b."
    (run / "data" / "report.json").write_text(json.dumps(report))
    encode = chat_lib.encode_prompt

    def spy(conversation, *rest):
        asked.append(conversation.system)
        return encode(conversation, *rest)

    monkeypatch.setattr(chat_lib, "encode_prompt", spy)
    monkeypatch.setattr("sys.stdin", io.StringIO("a\n/system Be c.\nb\n/system\nc\n"))
    assert shared.main("chat", run) == 0
    assert asked == ["Be b.", "Be c.", "Be b."]


def test_what_is_typed_is_read_as_a_row():
    config = configs.default()
    config.data.reading.template = "Next: {prompt}!"
    config.data.reading.instruction = "Be brief."
    first = chat._turn(config, "a", "", first=True)
    assert [turn.text for turn in first.turns] == ["Next: a!"] and first.system == "Be brief."
    later = chat._turn(config, "b", "Be long.", first=False)
    assert [turn.text for turn in later.turns] == ["b"] and later.system == "Be long."
    given = {"path": "x.jsonl", "template": "{prompt}?", "instruction": "Be kind."}
    config.data.sources = {"mine": given}
    config.data.train = "mine"
    first = chat._turn(config, "a", "", first=True)
    assert [turn.text for turn in first.turns] == ["a?"] and first.system == "Be kind."
    config.data.train = ""
    config.data.reading.template = "{prompt} in {language}"
    with pytest.raises(UserError, match=r"'language'.* cannot be typed here"):
        chat._turn(config, "a", "", first=True)
