"""What a run shows, in plain words: did tuning help, on which set, and can it be trusted."""

import dataclasses
from typing import Any

from sft.eval import lines
from sft.report import scores
from sft.report.load import Record, Run
from sft.run import display

SAMPLES = 5  # of the wrong and of the right answers, per set


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The tuned model against the base on one set.

    Attributes:
      metric: what the set is about, see ``scores.primary``.
      base, tuned: evaluation records; either may be None (not evaluated).
      paired: ``(difference, low, high, p)`` over the prompts both arms answered, or None.
      pairs: how many prompts that is.
      verdict: ``better``, ``worse``, ``unclear`` or ``missing``.
      sentence: the verdict in words with its numbers.
    """

    name: str
    metric: str
    base: Record | None
    tuned: Record | None
    paired: tuple[float, float, float, float] | None
    pairs: int
    verdict: str
    sentence: str


def compare(run: Run, name: str) -> Comparison:
    """Pairs the two arms on set ``name`` by prompt, by the metric that the set is about."""
    base, tuned = run.eval("base", name), run.eval("best", name)
    if not (base and tuned):
        lacking, more = ("base model", " --checkpoint=base") if tuned else ("tuned model", "")
        sentence = f"{name}: the {lacking} has not been evaluated; run `sft eval{more}` for it."
        metric = scores.primary(*filter(None, [base, tuned]))
        return Comparison(name, metric, base, tuned, None, 0, "missing", sentence)
    metric = scores.primary(base, tuned)
    found = [{"exact_match": scores.exact_match(r)} | scores.metrics(r) for r in (base, tuned)]
    before, after = ({metric: one[metric]} for one in found)
    said = f"{display.name(metric)} " + " → ".join(
        display.score(one[metric]["value"], metric) for one in (before, after)
    )
    rows = scores.pairs(run, "best", name)
    change = scores.changes(scores.settings(run, tuned), *rows, before, after).get(metric)
    if not change:
        why = "the two were not scored with the same settings" if rows[0] else _NO_PAIR
        sentence = f"{name}: {said}; {why}, so it is not tested."
        return Comparison(name, metric, base, tuned, None, 0, "missing", sentence)
    paired = change.value, change.low, change.high, change.p
    sentence = f"{name}: {_LEADS[change.verdict]}, {said} ({_tested(metric, change)})."
    return Comparison(name, metric, base, tuned, paired, change.pairs, change.verdict, sentence)


_NO_PAIR = "no prompt has an answer of both"
_LEADS = {
    "better": "tuning helped",
    "worse": "tuning hurt",
    "unclear": "no reliable difference",
}


def _tested(metric: str, change: scores.Change) -> str:
    """The difference, its interval and its test."""
    by, low, high = (
        display.change(part, metric) for part in (change.value, change.low, change.high)
    )
    unit = " points" if display.score(0.0, metric).endswith("%") else ""
    test = "McNemar's exact " if scores.is_right_or_wrong(metric) else ""
    return (
        f"{by}{unit}, 95 % interval {low} to {high}, {test}{display.p_value(change.p)}, "
        f"{change.pairs} prompts"
    )


def notes(run: Run, name: str) -> list[str]:
    """What stands beside the scores on a set: the answers cut, and what is wrong with answers."""
    found = []
    for arm in scores.arms(run, name):
        record = run.evals[arm, name]
        said = [text for text in (lines.cut(record), lines.errors(record)) if text]
        found += [f"{scores.arm_name(arm)}: {', '.join(said)}"] if said else []
    return found


def without_model(run: Run, name: str) -> list[str]:
    """What would be right without a model, a sentence for each most frequent answer."""
    constants = [lines.constants(run.evals[arm, name]) for arm in scores.arms(run, name)]
    return [text for text in dict.fromkeys(constants) if text]


def headline(comparisons: list[Comparison]) -> str:
    """One line over all sets."""
    verdicts = [c.verdict for c in comparisons if c.verdict != "missing"]
    if not verdicts:
        return "Not known yet whether tuning helped: base and tuned have not both been evaluated."
    if set(verdicts) == {"better"}:
        return "Yes, tuning helped."
    if "better" in verdicts and "worse" in verdicts:
        return "Mixed: tuning helped on some sets and hurt on others."
    if "better" in verdicts:
        return "Partly: tuning helped on some sets; on others no reliable difference was found."
    if "worse" in verdicts:
        return "No, tuning hurt."
    return "No reliable difference between base and tuned model was found."


def warnings(run: Run, comparisons: list[Comparison]) -> list[str]:
    """What is missing, contradictory or stale, one sentence each.

    What the course of the training shows is said by ``sft.report.diagnosis``.
    """
    found = []
    if not run.train:
        found.append("No training step has been logged: run `sft train`.")
    elif not run.done:
        found.append("Training has not finished: the numbers below are of a run under way.")
    if not run.data:
        found.append("No data report: run `sft data`.")
    if most := run.config.get("eval.max_examples"):
        found.append(
            f"Scores are of the first {most:,} prompts of each set (config.eval.max_examples), "
            "here also loss and token accuracy; those that `sft eval` prints are of whole sets."
        )
    for c in comparisons:
        if c.base and c.tuned:
            pair = scores.settings(run, c.base), scores.settings(run, c.tuned)
            if other := scores.generated_otherwise(*pair):
                found.append(
                    f"On {c.name} base and tuned model generated with other settings: {other}. "
                    "Run `sft eval` for both with the same."
                )
    found += _lacking(run)
    severe = [w["text"] for w in run.data.get("warnings", []) if w["severity"] == "error"]
    if severe:
        found.append(f"Data: {severe[0]} {_more(len(severe) - 1)}See data/report.html.")
    if not run.selection:
        found.append("No epoch has been chosen yet: selection.json is missing.")
    else:
        found += _selection_warnings(run, run.selection, comparisons)
    return found


def _lacking(run: Run) -> list[str]:
    """Scores whose answers are not all there."""
    found = []
    for (arm, name), record in run.evals.items():
        if (there := len(run.predictions[arm, name])) < record["count"]:
            file = f"eval/{arm}.{name}.predictions.jsonl"
            found.append(
                f"{file} has {there:,} of the {display.counted(record['count'], 'answer')} that "
                f"were scored: restore it, or remove it and eval/{arm}.{name}.json and run "
                "`sft eval` again."
            )
    return found


def _more(count: int) -> str:
    return f"And {count} more like it. " if count else ""


def _selection_warnings(run: Run, selection: Record, comparisons: list[Comparison]) -> list[str]:
    found = [selection["warning"]] if selection.get("warning") else []
    start = next((e for e in selection["epochs"] if e["epoch"] == 0), None)
    start = start or next((v for v in run.validation if v["epoch"] == 0), None)
    chosen = next((e for e in selection["epochs"] if e["step"] == selection["step"]), None)
    loss_fell = bool(start and chosen and chosen["loss"] < start["loss"])
    if start and chosen and not loss_fell:
        found.append("Validation loss never fell below that of the base model.")
    for c in comparisons:
        if c.verdict == "worse" and loss_fell:
            found.append(
                f"Loss and task disagree: validation loss fell, but {_course(c)}. Trust the task "
                "metric, and look at the wrong answers below."
            )
        if c.verdict == "better" and start and chosen and not loss_fell:
            found.append(
                f"Loss and task disagree: {_course(c)} although validation loss did not fall."
            )
        made_by = c.tuned and c.tuned.get("checkpoint")
        if made_by and not str(made_by).rstrip("/").endswith(selection.get("checkpoint", "")):
            found.append(
                f"The evaluation on {c.name} is of {made_by}, not of the chosen "
                f"{selection['checkpoint']}: run `sft eval` again."
            )
    return found


def _course(c: Comparison) -> str:
    """``exact match on test rose``; of a fall beside the loss's, ``did too``."""
    assert c.paired
    said = f"{display.name(c.metric)} on {c.name}"
    if c.verdict == "worse":
        return f"{said} {'did too' if c.paired[0] < 0 else 'rose'}"
    return f"{said} {'rose' if c.paired[0] > 0 else 'fell'}"


def epoch_metrics(selection: Record) -> dict[str, str]:
    """What the table of the epochs shows: both of the loss, what chose where that is another, and
    what was cut of the generated answers; each with the words above its column."""
    shown = ["loss", "token_accuracy"]
    shown += [selection["metric"]] if selection.get("metric") not in (None, *shown) else []
    heads = {"loss": "val loss", "token_accuracy": "val token acc", "cut": "answers cut"}
    return {
        name: heads.get(name, display.name(name))
        for name in [*shown, "cut"]
        if all(name in epoch for epoch in selection["epochs"])
    }


def samples(run: Run, name: str) -> list[Record]:
    """Up to ``SAMPLES`` wrong, then right, answers of the tuned model, spread over the set.

    Each is ``{"source", "prompt", "expected", "text", "more", "is_right"}``, see
    ``scores.answer_of``, with the same of the base's answer to it as ``base``, ``base_more`` and
    ``base_is_right`` (None where the base has none). The metric of the set says what is right.
    """
    record, rows = run.eval("best", name), run.predictions.get(("best", name), [])
    if not record:
        return []
    metric = scores.primary(record)
    base = {scores.key(row): row for row in run.predictions.get(("base", name), [])}
    chosen = spread([row for row in rows if not scores.is_right(row, metric)])
    chosen += spread([row for row in rows if scores.is_right(row, metric)])
    result = []
    for row in chosen:
        text, more = scores.answer_of(row, metric)
        shown = {key: row[key] for key in ("source", "prompt", "expected")}
        shown |= {"text": text, "more": more, "is_right": scores.is_right(row, metric)}
        other = base.get(scores.key(row))
        before, aside = scores.answer_of(other, metric) if other else (None, "")
        is_right = scores.is_right(other, metric) if other else None
        result.append(shown | {"base": before, "base_more": aside, "base_is_right": is_right})
    return result


def wrong(run: Run, name: str) -> int:
    """How many of the tuned model's answers are wrong, as ``samples`` has it."""
    record, rows = run.eval("best", name), run.predictions.get(("best", name), [])
    return sum(not scores.is_right(row, scores.primary(record)) for row in rows) if record else 0


def changed_config(run: Run) -> list[tuple[str, Any, Any]]:
    """``(key, value, default)`` of every knob that is not at its default, in declaration order."""
    from sft.config import default, flatten

    defaults = dict(flatten(default()))
    return [
        (key, value, defaults.get(key))
        for key, value in run.config.items()
        if key not in defaults or defaults[key] != value
    ]


def spread(records: list, most: int = SAMPLES) -> list:
    """At most so many of them, evenly from the first to the last."""
    if len(records) <= most:
        return records
    return [records[i * len(records) // most] for i in range(most)]
