"""Every metric of every evaluated model of a run, beside the base model's, with intervals."""

import dataclasses
from collections.abc import Collection, Sequence

from sft import config as configs
from sft.errors import UserError
from sft.eval import stats
from sft.eval.metrics import RANKED
from sft.eval.verdict import Difference, verdict
from sft.report.load import Record, Run
from sft.run import display

_LONG = 24  # characters of a label in a table


@dataclasses.dataclass(frozen=True)
class Change:
    """One score minus another over the same prompts.

    Attributes:
      low, high: 95 % interval.
      p: two-sided, of the hypothesis that there is no difference.
      verdict: ``better``, ``worse`` or ``unclear``, see ``sft.eval.verdict``.
      pairs: prompts that both have answered.
    """

    value: float
    low: float
    high: float
    p: float
    verdict: str
    pairs: int


@dataclasses.dataclass(frozen=True)
class Score:
    """A metric of one arm on one set; ``change`` is against the base model, if it can be had.

    Attributes:
      without: of answers without a model, what they are; their ``arm`` is ``""``.
    """

    arm: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    better: str
    signature: str | None
    change: Change | None
    without: str = ""

    @property
    def label(self) -> str:
        """The model, for a table."""
        return self.without or arm_name(self.arm)


@dataclasses.dataclass(frozen=True)
class Baseline:
    """What answers that look at no prompt would score on a set: a model must be better.

    Attributes:
      kind: ``majority`` (always the most frequent label) or ``random`` (any label).
      label: what it is, for a table.
      metrics: as of ``metrics``; a random one has no intervals.
    """

    kind: str
    label: str
    metrics: dict[str, Record]


def baselines(*records: Record) -> list[Baseline]:
    """Those of the set that these evaluations are of; none where its answers are not labels.

    The most frequent answer is that of training, which several runs may not share.
    """
    found: dict[str, Baseline] = {}
    for record in records:
        if constant := record.get("constant"):
            majority, drawn = constant["majority"], constant["random"]
            of = "training" if majority["known_from"] == "training" else "this set"
            label = f"always {_quoted(majority['label'])} ({of}'s most frequent)"
            found.setdefault(label, Baseline("majority", label, majority["metrics"]))
            label = f"one of {display.counted(drawn['labels'], 'label')} at random"
            found.setdefault(label, Baseline("random", label, drawn["metrics"]))
    return sorted(found.values(), key=lambda baseline: baseline.kind != "random")


def _quoted(label: str) -> str:
    return repr(label if len(label) <= _LONG else label[:_LONG] + "…")


def arm_name(arm: str) -> str:
    """``base``, ``base, 6 examples``, ``tuned (best)``, ``tuned (step 40)``."""
    if arm == "base":
        return arm
    if arm.startswith("base."):
        return f"base, {arm.removeprefix('base.').removesuffix('shot')} examples"
    return f"tuned ({arm.replace('step', 'step ', 1) if arm.startswith('step') else arm})"


_RIGHT_OR_WRONG = (
    *("exact_match", "exact_match_normalised", "accuracy", *RANKED[:1], "label_accuracy_norm"),
    *("regex_match", "numeric_match", "json_valid"),
)


def is_right_or_wrong(metric: str) -> bool:
    """Whether each answer is either right or wrong by the metric."""
    return metric in _RIGHT_OR_WRONG


def is_right(row: Record, metric: str) -> bool:
    """Whether an answer is right: by the metric, where that decides it, or else by exact match."""
    metric = "label_accuracy" if metric == "label_macro_f1" else metric
    if metric in _RIGHT_OR_WRONG and metric in row.get("scores", {}):
        return row["scores"][metric] == 1
    return row["correct"]


def answer_of(row: Record, metric: str) -> tuple[str, str]:
    """What is judged by the metric of an answer, and what else it says: ranked labels are judged,
    and text was generated beside them."""
    if metric in RANKED and "ranked" in row:
        ranked = row["ranked_norm" if metric == "label_accuracy_norm" else "ranked"]
        return ranked, f"generated: {row['predicted']}"
    return row["predicted"], ""


def metrics(record: Record) -> dict[str, Record]:
    """``{metric: {"value", "interval", "better", "signature"}}`` of an evaluation.

    One made before there were several metrics has exact match, and a loss and a token accuracy
    without intervals.
    """
    if record.get("metrics"):
        return record["metrics"]
    found = {"exact_match": exact_match(record)}
    for name, better in (("loss", "lower"), ("token_accuracy", "higher")):
        if record.get(name) is not None:
            found[name] = {"value": record[name], "interval": None, "better": better}
    return found


def exact_match(record: Record) -> Record:
    """As an entry of ``metrics``; an evaluation has it whatever is asked for."""
    value, interval = record["exact_match"], record["exact_match_interval"]
    return {"value": value, "interval": interval, "better": "higher"}


def arms(run: Run, name: str) -> list[str]:
    """Evaluated on that set, see ``arms_of``."""
    return arms_of(run.evals, name)


def arms_of(results: Collection[tuple[str, str]], name: str) -> list[str]:
    """Of (arm, set) those with that set: base, base with examples in the prompt, checkpoints, the
    best last."""
    found = {arm for arm, label in results if label == name}
    return sorted(found, key=lambda arm: (not arm.startswith("base"), arm == "best", arm))


def of_sets(run: Run) -> dict[str, list[Score]]:
    """``of_set`` for every evaluated set. Resampling takes its time: once for page and terminal."""
    return {name: of_set(run, name) for name in run.sets}


def of_set(run: Run, name: str) -> list[Score]:
    """All scores on a set, metric by metric, first the one that the set is about, and of each the
    base model first."""
    labels = arms(run, name)
    records = {arm: metrics(run.evals[arm, name]) for arm in labels}
    changes = {arm: against_base(run, arm, name) for arm in labels if arm != "base"}
    first = primary(*(run.evals[arm, name] for arm in labels))
    every = dict.fromkeys(metric for arm in labels for metric in records[arm])
    order = sorted(every, key=lambda metric: metric != first)
    return [
        Score(
            arm,
            metric,
            records[arm][metric]["value"],
            _interval(records[arm][metric]),
            records[arm][metric]["better"],
            records[arm][metric].get("signature"),
            changes.get(arm, {}).get(metric),
        )
        for metric in order
        for arm in labels
        if metric in records[arm]
    ]


def with_baselines(run: Run, name: str, found: Sequence[Score]) -> list[Score]:
    """The same, and of each metric first what answers without a model would score."""
    without = baselines(*(run.evals[arm, name] for arm in arms(run, name)))
    rows: list[Score] = []
    for i, score in enumerate(found):
        if i == 0 or found[i - 1].metric != score.metric:
            rows += [
                dataclasses.replace(
                    score,
                    arm="",
                    value=known["value"],
                    interval=_interval(known),
                    signature=None,
                    change=None,
                    without=one.label,
                )
                for one in without
                if (known := one.metrics.get(score.metric))
            ]
        rows.append(score)
    return rows


def _interval(found: Record) -> tuple[float, float] | None:
    return tuple(found["interval"]) if found.get("interval") else None


def against_base(run: Run, arm: str, name: str) -> dict[str, Change]:
    """The change from the base model, by metric, over the prompts that both answered."""
    base = run.eval("base", name)
    if base is None or arm == "base":
        return {}
    records = metrics(base), metrics(run.evals[arm, name])
    return changes(settings(run, run.evals[arm, name]), *pairs(run, arm, name), *records)


# What decides which answer is generated, beside the model and its prompt.
_GENERATION = ("max_new_tokens", "stop", "temperature", "top_k", "top_p", "max_examples")


def settings(run: Run, record: Record) -> Record:
    """The configuration that an evaluation was made with, flattened: the run's, and what was
    changed for the evaluation."""
    return run.config | record.get("settings", {})


def generated_otherwise(ours: Record, theirs: Record) -> str:
    """In what two of ``settings`` differ that decides about generated answers, or ``""``."""
    keys = [f"eval.{name}" for name in _GENERATION]
    return ", ".join(
        f"config.{key} = {ours.get(key)!r} and {theirs.get(key)!r}"
        for key in keys
        if key in ours and key in theirs and ours[key] != theirs[key]
    )


def primary(*records: Record) -> str:
    """The metric that a set is about, of those that all these evaluations have."""
    named = [record["primary"] for record in records if "primary" in record]
    shared = [name for name in named if all(name in metrics(record) for record in records)]
    return shared[-1] if shared else "exact_match"


def pairs(run: Run, arm: str, name: str) -> tuple[list[Record], list[Record]]:
    """Rows of the base model and of the arm for the prompts that both answered, in one order."""
    before = {key(row): row for row in run.predictions.get(("base", name), [])}
    after = [row for row in run.predictions.get((arm, name), []) if key(row) in before]
    return [before[key(row)] for row in after], after


def key(row: Record) -> tuple[str, str, str]:
    """What two answers must share to be answers to the same question."""
    return row["source"], row["prompt"], row["expected"]


def changes(
    settings: Record,
    before: Sequence[Record],
    after: Sequence[Record],
    before_metrics: dict[str, Record],
    after_metrics: dict[str, Record],
) -> dict[str, Change]:
    """After minus before, row by row, of every metric that both have been scored with.

    Exact match has the closed forms of ``sft.eval.stats``; the others are made again from the rows
    and resampled, see ``sft.eval.bootstrap``. A metric with other settings in one of them (another
    signature) has none, nor has one that cannot be made again.

    Args:
      settings: say how the metrics are made.
    """
    if not before:
        return {}
    shared = {
        name: found["better"]
        for name, found in after_metrics.items()
        if name in before_metrics
        and before_metrics[name].get("signature") == found.get("signature")
    }
    found = {}
    if "exact_match" in shared:
        pair = [bool(row["correct"]) for row in before], [bool(row["correct"]) for row in after]
        difference = Difference(*stats.paired_difference(*pair), stats.mcnemar(*pair))
        found["exact_match"] = change(difference, "higher", len(before))
    for name, difference in _resampled(settings, before, after, shared.keys() - found).items():
        found[name] = change(difference, shared[name], len(before))
    return {name: found[name] for name in shared if name in found}


def _resampled(
    settings: Record, before: Sequence[Record], after: Sequence[Record], names: Collection[str]
) -> dict[str, Difference]:
    if not names or not all("nll" in row for row in (*before, *after)):
        return {}  # an evaluation made before there were several metrics
    from sft.eval import bootstrap
    from sft.eval import scores as scoring

    config = configs.from_dict(settings)
    try:
        tables = [scoring.table(config, rows) for rows in (before, after)]
    except UserError:  # a metric of the user's own, whose file is elsewhere now
        return {}
    options = {"resamples": config.eval.resamples, "seed": config.seed}
    found = {}
    for name in names:
        if all(name in table for table in tables):
            (metric, before_nxk), (_, after_nxk) = (table[name] for table in tables)
            found[name] = bootstrap.difference(metric, before_nxk, after_nxk, **options)
    return found


def change(difference: Difference, better: str, pairs: int) -> Change:
    """The difference with what may be said of it."""
    return Change(
        difference.value,
        difference.low,
        difference.high,
        difference.p,
        verdict(difference, better),
        pairs,
    )
