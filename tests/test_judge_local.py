"""A checkpoint loaded here as judge. A random model gives no verdict: that is counted."""

import json

import numpy as np
import pytest
import tiny_run

from sft import cli
from sft.errors import UserError
from sft.eval import harness, judge
from sft.eval.judge.local import Local
from sft.report import load
from sft.run import directory

registered = tiny_run.registered
WORDS = ("--config.judge.max_new_tokens=4", "--config.judge.retries=1")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Weights, tokenizer and configuration; nothing is trained here."""
    return tiny_run.build(tmp_path_factory.mktemp("judge"))


@pytest.fixture
def run(shared, tmp_path):
    rows = [
        {"source": f"t:{i}", "prompt": letter, "expected": "b", "predicted": letter, "correct": 0}
        for i, letter in enumerate("abc")
    ]
    path = tmp_path / "run" / "eval" / "base.test.predictions.jsonl"
    path.parent.mkdir(parents=True)
    tiny_run.write_rows(path, rows)
    return tmp_path / "run"


def test_a_random_model_gives_no_verdict(shared, run, capsys):
    (run / "short.jinja").write_text("{{ answer }}")  # less to compile than with ours
    template = f"--config.judge.template={run / 'short.jinja'}"
    words = [
        "sft",
        "eval",
        "judge",
        template,
        *shared.words("eval", run, *WORDS, "--checkpoint=base")[1:],
    ]
    assert cli.main(words) == 0
    result = json.loads((run / "eval" / "judge.base.test.json").read_text())
    assert result["count"] == result["failures"] == 3 and result["score"] is None
    assert sum(result["problems"].values()) == 3 and result["asked_again"] == 3
    assert result["cost"]["tokens_in"] > 0 and result["cost"]["price"] == 0
    assert result["judge"]["weights"] == str(shared.path / "weights.safetensors")
    assert "score unknown" in capsys.readouterr().out
    cache = (run / "eval" / "judge.cache.jsonl").read_bytes()
    assert cli.main(words) == 0
    assert (run / "eval" / "judge.cache.jsonl").read_bytes() == cache
    # What the judge wrote is no result of the evaluation, and does not trouble the report.
    directory.write_json(run / "config.json", {"config": {}})
    assert load.load_run(run).evals == {}


def test_replies_stand_with_their_prompts(shared, monkeypatch):
    config = shared.values(judge__max_new_tokens=4, eval__batch_size=2)
    backend = judge.make(config)
    assert isinstance(backend, Local)
    monkeypatch.setattr("sft.eval.arms.load", lambda *_: None)

    def answer(model, config, ids):
        return [harness.Answer(str(len(one)), cut=False) for one in ids]

    monkeypatch.setattr(harness, "answer", answer)
    prompts, found = ["b c d e f", "a", "c d", "a b c"], {}
    backend.ask(prompts, lambda i, reply: found.update({i: reply}))
    lengths = [backend.count([prompt]) for prompt in prompts]
    assert (
        [int(found[i].text) for i in range(4)] == lengths == [found[i].tokens_in for i in range(4)]
    )
    assert len(set(lengths)) == 4 and backend.count(prompts) == np.sum(lengths)


def test_other_weights(shared, tmp_path):
    other = tmp_path / "judge.safetensors"
    other.write_bytes((shared.path / "weights.safetensors").read_bytes())
    changes = {
        "judge__weights": str(other),
        "judge__tokenizer": str(shared.path / "tokenizer.model"),
    }
    backend = judge.make(shared.values(**changes))
    assert backend.identity["weights"] == str(other)
    assert backend.identity != judge.make(shared.values()).identity
    with pytest.raises(UserError, match=r"config\.judge\.weights"):
        judge.make(shared.values(judge__model="gemma3_1b"))
    with pytest.raises(UserError, match=r"none\.safetensors: no such file"):
        judge.make(shared.values(judge__weights="/none.safetensors"))
    with pytest.raises(UserError, match=r"config\.judge\.tokenizer is not set"):
        judge.make(shared.values(judge__weights=str(other)))
