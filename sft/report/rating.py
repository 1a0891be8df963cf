"""A page on which people give the verdicts that a judge gives.

One file that needs no server and no network. The page tells nothing of arms and sets, and the rows
stand in a random order: who rates cannot know whose answer it is.
"""

import hashlib
from pathlib import Path

from ml_collections import ConfigDict

from sft.eval.judge import prompts, ratings
from sft.eval.judge.rows import Item
from sft.report import template


def render(config: ConfigDict, question: prompts.Question, items: list[Item]) -> str:
    """The page as text. Every value is escaped by the template."""
    judge = config.judge
    pointwise = judge.mode == "pointwise"
    values = [str(v) for v in range(judge.low, judge.high + 1)] if pointwise else ["A", "tie", "B"]
    data = {
        "key": hashlib.sha256("".join(item.id for item in items).encode()).hexdigest()[:12],
        "mode": judge.mode,
        "column": ratings.value_column(config),
        "values": values,
        "items": [
            {
                "id": item.id,
                "prompt": item.prompt,
                "reference": item.expected if judge.reference else "",
                "answers": list(item.answers),
            }
            for item in items
        ],
    }
    page = template.load(Path(__file__).with_name("rating.html"))
    return page.render(
        data=data,
        rubric=question.rubric,
        low=judge.low,
        high=judge.high,
        style=Path(__file__).with_name("rating.css").read_text(),
        script=Path(__file__).with_name("rating.js").read_text(),
    )
