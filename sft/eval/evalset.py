"""A set that is evaluated, with what is known of its answers before any model is asked."""

import dataclasses
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from sft.config.text import strings
from sft.data.conversation import Conversation
from sft.data.sets import loading
from sft.data.sets.loading import Sets
from sft.errors import UserError
from sft.eval import limits, metrics
from sft.eval.metrics import labels as label_metrics
from sft.eval.metrics.match import canonical
from sft.run import hosts

EXPECTED = "expected"  # of config.eval.labels: those of the data
TRAINING, ITSELF = "training", "set"  # where a majority is from


@dataclasses.dataclass(frozen=True)
class EvalSet:
    """A set and its labels.

    Attributes:
      split: the rows.
      labels: that are ranked by likelihood (``config.eval.labels``), in NFC, sorted unless they
        were given; none = off.
      majority: the most frequent answer of training or, where that is not known, of the set; the
        first in the order of code points of several. ``None``: the answers are not labels.
      known_from: where ``majority`` is from: ``TRAINING`` or ``ITSELF``.
      known_labels: every label of the task that is known, as answers are compared; ``None``: the
        answers are not labels.
    """

    split: loading.Split
    labels: tuple[str, ...] = ()
    majority: str | None = None
    known_from: str = ITSELF
    known_labels: frozenset[str] | None = None

    @property
    def identity(self) -> list:
        """What changes the numbers beside the rows and the metrics: JSON values."""
        return [self.labels, self.majority, self.known_from]


def load(sets: Sets, train: Sequence[Conversation] | None = None) -> dict[str, EvalSet]:
    """The test sets, checked before any model is loaded.

    Args:
      train: the training rows as they were read, where they are there already.

    Raises:
      UserError: as ``Sets.tests`` and ``checked``.
    """
    return checked(sets, sets.tests(), train)


def checked(
    sets: Sets,
    splits: Mapping[str, loading.Split],
    train: Sequence[Conversation] | None = None,
    what: str = "test",
) -> dict[str, EvalSet]:
    """The sets of these names.

    Args:
      what: the sets are called where hosts compare them.

    Raises:
      UserError: a metric does not suit the expected answers, none of them can be generated, or they
        are not among the labels; names metric, set, row, remedy.
    """
    config = sets.config
    for name, split in splits.items():
        answers = expected(asked(config, split))
        label, rows = ", ".join(split.files), [c.source for c in asked(config, split)]
        metrics.check(metrics.of(config, answers), label, answers, rows)
        limits.check(config, name, answers, sets.tokenizer)
    known: Counter[str] | None = None
    if config.eval.labels or any(_is_labelled(config, split) for split in splits.values()):
        known = _training(sets) if train is None else _counted(config, train)
    found = {name: _of(config, name, split, known) for name, split in splits.items()}
    hosts.compare(f"labels of {what}", {name: one.identity for name, one in found.items()})
    return found


def asked(config: ConfigDict, split: loading.Split) -> list[Conversation]:
    """The rows that are answered."""
    return split.conversations[: config.eval.max_examples or None]


def expected(conversations: Sequence[Conversation]) -> list[str]:
    """The answer that each row expects."""
    return [conversation.turns[-1].text for conversation in conversations]


def _is_labelled(config: ConfigDict, split: loading.Split) -> bool:
    """Whether the answers are labels: few, as ``accuracy`` asks for, and each for two rows."""
    counts = _counted(config, asked(config, split))
    few = len(counts) * 2 <= counts.total()
    return few and not label_metrics.too_many(len(counts), counts.total())


def _of(config: ConfigDict, name: str, split: loading.Split, train: Counter[str] | None) -> EvalSet:
    labels = _labels(config, name, split, train)
    if not labels and not _is_labelled(config, split):
        return EvalSet(split)
    here = _counted(config, split.conversations)
    counts = train or here
    most = max(counts.values())
    majority = min(label for label, count in counts.items() if count == most)
    known = frozenset({*labels, *here, *(train or ())})
    return EvalSet(split, labels, majority, TRAINING if train else ITSELF, known)


def _labels(
    config: ConfigDict, name: str, split: loading.Split, train: Counter[str] | None
) -> tuple[str, ...]:
    given = [canonical(label) for label in strings(config.eval.labels)]
    if not given:
        return ()
    here = _counted(config, split.conversations)
    if given == [EXPECTED]:
        every = here + (train or Counter())
        for counts, which in ((here, name), (every, f"{name} and training together")):
            if label_metrics.too_many(len(counts), counts.total()):
                raise UserError(
                    f"config.eval.labels = {EXPECTED!r}: {which} has {len(counts):,} different "
                    f"answers in {counts.total():,} rows, which are not labels. Name the labels, "
                    "or set config.eval.labels = ''."
                )
        if len(every) < 2:
            raise UserError(
                f"config.eval.labels = {EXPECTED!r}: there is one answer alone, "
                f"{next(iter(every))[:60]!r}: nothing to rank. Name the labels."
            )
        return tuple(sorted(every))
    look = metrics.looks_at(config)
    for row in split.conversations:
        label = canonical(look(row.turns[-1].text))
        if label not in given:
            raise UserError(
                f"{row.source}: the expected answer {label[:60]!r} is not among "
                f"config.eval.labels = {config.eval.labels!r}. Add it, or set "
                f"config.eval.labels = {EXPECTED!r}."
            )
    return tuple(given)


def _counted(config: ConfigDict, rows: Sequence[Conversation]) -> Counter[str]:
    """How often each answer is expected, as answers are compared."""
    look = metrics.looks_at(config)
    return Counter(canonical(look(text)) for text in expected(rows))


def _training(sets: Sets) -> Counter[str] | None:
    """The answers of the training rows, or ``None`` where there are none to be read here."""
    if not sets.config.data.train:
        return None
    try:
        rows = sets.rows(["train"])["train"]
    except UserError as error:
        if hosts.is_first():
            said = "warning: the labels are those of the evaluated sets alone: "
            print(f"{said}{error}", file=sys.stderr)
        return None
    return _counted(sets.config, rows.conversations)
