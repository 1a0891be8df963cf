"""Which label was answered where which was expected, and what that means for each label."""

import collections
import dataclasses
from collections.abc import Sequence

from sft.eval.metrics.match import canonical, first_line
from sft.report import scores
from sft.report.drawing import comma_separated, distinct_name, file_name
from sft.report.load import Record, Run

MOST = 12  # labels of a matrix on a page
NO_LABEL = "not a label"
_HEADS = ("label", "rows", "answered", "right", "precision", "recall", "f1")


@dataclasses.dataclass(frozen=True)
class Label:
    """How one label did.

    Attributes:
      rows: that expect it; ``answered``: that were answered so; ``right``: both.
      precision: ``right / answered``; ``recall``: ``right / rows``; ``f1``: their harmonic mean. 0
        where it would be 0 / 0, as in scikit-learn's ``f1_score``.
    """

    text: str
    rows: int
    answered: int
    right: int

    @property
    def precision(self) -> float:
        return self.right / self.answered if self.answered else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.rows if self.rows else 0.0

    @property
    def f1(self) -> float:
        return 2 * self.right / (self.rows + self.answered) if self.rows + self.answered else 0.0


@dataclasses.dataclass(frozen=True)
class Confusion:
    """The answers of one model on one set.

    Attributes:
      name: of its files, without an ending.
      arm: whose answers they are; ``how``: ``generated``, or labels ``ranked`` by likelihood.
      labels: those expected first, the most frequent first.
      columns: what was answered: the labels, and ``NO_LABEL`` where an answer was none of them.
      counts: rows by expected label and column.
    """

    name: str
    arm: str
    how: str
    labels: list[Label]
    columns: list[str]
    counts: list[list[int]]

    @property
    def shown(self) -> tuple[list[str], list[str], list[list[int]]]:
        """Rows, columns and counts of at most ``MOST`` labels; all others together are the last."""
        texts = [label.text for label in self.labels]
        if len(texts) <= MOST:
            return texts, self.columns, self.counts
        kept = MOST - 1
        other = f"{len(texts) - kept} others"
        folded = [
            [*row[:kept], sum(row[kept : len(texts)]), *row[len(texts) :]] for row in self.counts
        ]
        rest = [sum(column) for column in zip(*folded[kept:], strict=True)]
        columns = [*texts[:kept], other, *self.columns[len(texts) :]]
        return [*texts[:kept], other], columns, [*folded[:kept], rest]

    @property
    def files(self) -> dict[str, str]:
        """The whole matrix and the numbers of every label, as CSV."""
        matrix = [[label.text, *row] for label, row in zip(self.labels, self.counts, strict=True)]
        classes = [[label.text, *(getattr(label, x) for x in _HEADS[1:])] for label in self.labels]
        return {
            f"{self.name}.csv": comma_separated(["expected \\ answered", *self.columns], matrix),
            f"{self.name}-labels.csv": comma_separated(_HEADS, classes),
        }


def of_run(run: Run) -> dict[str, list[Confusion]]:
    """By set, ``of_set``; no two have the same name."""
    taken: set[str] = set()
    return {
        name: [
            dataclasses.replace(one, name=distinct_name(one.name, taken))
            for one in of_set(run, name)
        ]
        for name in run.sets
    }


def of_set(run: Run, name: str) -> list[Confusion]:
    """Of every model that was scored on the set, the tuned one first, and of each by what the set
    is about first; none where the expected answers are not labels."""
    found = []
    for arm in reversed(scores.arms(run, name)):
        record, rows = run.evals[arm, name], run.predictions[arm, name]
        if not (record.get("constant") and rows):
            continue
        hows = ["ranked", "generated"] if all("ranked" in row for row in rows) else ["generated"]
        if not scores.primary(record).startswith("label_"):
            hows.reverse()
        known = record.get("labels", [])
        found += [of_rows(rows, f"{name}-{arm}", arm, how, known) for how in hows]
    return found


def of_rows(
    rows: Sequence[Record], name: str, arm: str, how: str, known: Sequence[str] = ()
) -> Confusion:
    """How the rows were answered.

    Args:
      how: ``ranked`` or ``generated``.
      known: labels that may be answered though no row expects them.
    """
    pairs = [_pair(row, how) for row in rows]
    wanted = collections.Counter(expected for expected, _ in pairs)
    given = collections.Counter(answered for _, answered in pairs)
    both = collections.Counter(pairs)
    expected = [text for text, _ in wanted.most_common()]
    texts = list(dict.fromkeys([*expected, *map(canonical, known)]))
    counts = [[both[row, column] for column in texts] for row in texts]
    columns = list(texts)
    if any(text not in texts for text in given):
        columns.append(NO_LABEL)
        for text, row in zip(texts, counts, strict=True):
            row.append(wanted[text] - sum(row))
    labels = [Label(text, wanted[text], given[text], both[text, text]) for text in texts]
    return Confusion(file_name(f"labels-{name}-{how}"), arm, how, labels, columns, counts)


def _pair(row: Record, how: str) -> tuple[str, str]:
    """The expected label and the answered one, as they were compared."""
    expected = first_line(row["expected"]) if "compared" in row else row["expected"]
    answer = row["ranked"] if how == "ranked" else row.get("compared", row["predicted"])
    return canonical(expected), canonical(answer)
