"""A run directory with predictions, and how to have them judged by a server."""

import json
import re

import pytest

from sft import cli
from sft.eval.judge import remote

LETTERS = "abcdefgh"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run directory with predictions of two arms; no model is needed to judge them."""
    monkeypatch.setenv("MY_KEY", "secret-key")
    monkeypatch.setattr(remote, "delay", lambda attempt, max_wait: 0.001)
    for arm, wrong in (("best", 2), ("base", 6)):
        write_predictions(tmp_path / "run", arm, wrong)
    (tmp_path / "config.py").write_text(
        "from sft.config import default\ndef get_config():\n    return default()\n"
    )
    return tmp_path / "run"


def write_predictions(run, arm, wrong, name="test"):
    rows = [
        {
            "source": f"t.jsonl:{i + 1}",
            "prompt": f"letter {letter}",
            "expected": letter.upper(),
            "predicted": "?" if i < wrong else letter.upper(),
            "correct": i >= wrong,
        }
        for i, letter in enumerate(LETTERS)
    ]
    path = run / "eval" / f"{arm}.{name}.predictions.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def command(run, url, *more, backend="openai"):
    return cli.main(
        [
            *("sft", "eval", "judge", f"--config={run.parent / 'config.py'}", f"--workdir={run}"),
            *(f"--config.judge.backend={backend}", "--config.judge.model=m"),
            *(f"--config.judge.url={url}", "--config.judge.key_variable=MY_KEY"),
            *("--config.judge.price_in=2", "--config.judge.price_out=30"),
            *more,
        ]
    )


def honest(prompt):
    """5 for the right answer, 1 for another."""
    right = re.search(r"<reference_answer>\n(.*)\n", prompt).group(1)
    if "<answer_A>" in prompt:
        a, b = (re.search(rf"<answer_{x}>\n(.*)\n", prompt).group(1) for x in "AB")
        winner = "tie" if (a == right) == (b == right) else "A" if a == right else "B"
        return json.dumps({"reason": "r", "winner": winner})
    answer = re.search(r"<answer>\n(.*)\n", prompt).group(1)
    return json.dumps({"reason": "r", "score": 5 if answer == right else 1})


def result(run, name="best"):
    return json.loads((run / "eval" / f"judge.{name}.test.json").read_text())
