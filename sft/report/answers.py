"""Pages with every answer, which can be filtered; they are read without scripts too.

The pages of a set have ``MOST`` prompts each, those that the last model got wrong first. What is
more than ``PAGES`` of them is where it always is, in the files of predictions.
"""

import dataclasses
from collections.abc import Sequence

from sft.report import compare, scores
from sft.report.drawing import distinct_name, file_name
from sft.report.load import Record, Run

MOST = 1000  # prompts on a page
PAGES = 20  # of a set


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one model answered.

    Attributes:
      text: what is judged; ``more``: what else it said, or ``""``.
      error: the kind of a wrong answer, or ``""``.
    """

    label: str
    text: str
    more: str
    is_right: bool
    is_cut: bool
    error: str


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One row of a set, with the answers of the models in their order."""

    source: str
    text: str
    expected: str
    answers: list[Answer]


@dataclasses.dataclass(frozen=True)
class Page:
    """Attributes:
    metric: by which answers are right or wrong.
    file: its name in the folder beside the report.
    number, count: which of how many pages of the set.
    first: number of its first prompt among ``total`` of the set, from 1 on.
    left: prompts of the set that are on no page.
    files: in which all answers are.
    """

    name: str
    metric: str
    file: str
    labels: list[str]
    number: int
    count: int
    first: int
    total: int
    left: int
    prompts: list[Prompt]
    files: list[str]


def of_run(run: Run) -> dict[str, list[Page]]:
    """By set, the pages with the answers of every model that was scored on it."""
    found, taken = {}, set()
    for name in run.sets:
        arms = scores.arms(run, name)
        models = [(scores.arm_name(arm), run.predictions[arm, name]) for arm in arms]
        metric = scores.primary(*(run.evals[arm, name] for arm in arms))
        files = [f"eval/{arm}.{name}.predictions.jsonl" for arm in arms]
        found[name] = _pages(name, models, metric, files, taken)
    return found


def of_comparison(comparison: compare.Comparison) -> dict[str, list[Page]]:
    """By set, the pages with the answers of the compared models."""
    found, taken = {}, set()
    for table in comparison.tables:
        models = [(entry.label, entry.predictions) for entry in table.entries]
        metric = scores.primary(*(entry.record for entry in table.entries))
        files = [
            f"{entry.run.path}/eval/{entry.arm}.{table.name}.predictions.jsonl"
            for entry in table.entries
        ]
        found[table.name] = _pages(table.name, models, metric, files, taken)
    return found


def _pages(
    name: str,
    models: Sequence[tuple[str, Sequence[Record]]],
    metric: str,
    files: list[str],
    taken: set[str],
) -> list[Page]:
    prompts = _prompts(models, metric)
    labels = [label for label, rows in models if rows]
    stem = distinct_name(file_name(f"answers-{name}"), taken)
    count = -(-len(prompts) // MOST)
    shown = min(count, PAGES)
    return [
        Page(
            name,
            metric,
            f"{stem}.html" if number == 1 else f"{stem}.{number}.html",
            labels,
            number,
            shown,
            (number - 1) * MOST + 1,
            len(prompts),
            max(len(prompts) - shown * MOST, 0),
            prompts[(number - 1) * MOST : number * MOST],
            files,
        )
        for number in range(1, shown + 1)
    ]


def _prompts(models: Sequence[tuple[str, Sequence[Record]]], metric: str) -> list[Prompt]:
    """Every prompt that a model answered, in the order of the file; those that the last model got
    wrong before the others, and of these those that another got right."""
    found: dict[tuple, Prompt] = {}
    for label, rows in models:
        seen: dict[tuple, int] = {}
        for row in rows:
            same = scores.key(row)
            seen[same] = seen.get(same, 0) + 1  # a prompt may stand in a file more than once
            prompt = found.setdefault(
                (*same, seen[same]), Prompt(row["source"], row["prompt"], row["expected"], [])
            )
            prompt.answers.append(_answer(label, row, metric))
    return sorted(found.values(), key=_rank)


def _rank(prompt: Prompt) -> int:
    *others, last = prompt.answers
    if last.is_right:
        return 2
    return 0 if any(one.is_right for one in others) else 1


def _answer(label: str, row: Record, metric: str) -> Answer:
    text, more = scores.answer_of(row, metric)
    is_right = scores.is_right(row, metric)
    error = "" if is_right else row.get("error") or ""
    return Answer(label, text, more, is_right, bool(row.get("cut")), error)
