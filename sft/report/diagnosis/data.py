"""Patterns whose cause is in the data: how training begins, what was cut, what validation is."""

import math

from sft.model import specs
from sft.report.diagnosis import history
from sft.report.diagnosis.history import Finding, percent
from sft.report.load import Run

LARGE = 10.0  # nats a token: the guide's sign of a wrong data set
SHORT = 5  # tokens of an answer on average, below which its first one is most of its loss
GUESSING = 1.1  # over ln V, the loss of giving every token the same probability
CUT = 0.01  # share of rows or trained tokens that may be lost at max_length, as in the audit
APART = 3.0  # standard errors between two losses before training: 0.3 % of runs by chance
GAP = 0.1  # share of the loss: a smaller difference between the sets hardly matters


def large_start(run: Run) -> Finding | None:
    """The first training loss is that of a model which has never seen such text.

    A pretrained model hardly ever ends a turn, so that an end may cost it 30 nats, and answers of
    one token that nothing announces, such as labels, another 12: with such data it may begin at 20
    although nothing is wrong. So the ends are left out, and short answers are judged by whether
    the prompts are text to the model.
    """
    if not run.train or run.train[0]["step"] != 1 or not math.isfinite(run.train[0]["loss"]):
        return None
    loss, spec = run.train[0]["loss"], specs.SPECS.get(run.config.get("model.name", ""))
    guessing = math.log(spec.vocab) if spec else math.inf
    limit = min(LARGE, GUESSING * guessing)
    text, is_short = _text(run, loss)
    start = history.start(run)
    prompt = start.record.get("prompt_loss") if start else None
    if min(loss, text) <= limit or (is_short and prompt is not None and prompt <= limit):
        return None
    parts = [f"{loss:.2f} with the ends of turn"] if text != loss else []
    parts += [f"{prompt:.2f} on the prompts of validation"] if prompt is not None else []
    whole = f" ({', '.join(parts)})" if parts else ""
    told = ""
    if spec:
        told = f"; giving all {spec.vocab:,} tokens the same probability has {guessing:.2f}"
    return Finding(
        "large_start",
        "error",
        f"Data problem: training begins at a loss of {text:.2f} nats a token{whole}{told}.",
        "See `sft data`: are the weights (config.model.weights) and the tokenizer those of "
        f"{run.config.get('model.name')}, is the chat format right, are rows cut or turned "
        "round?",
    )


def _text(run: Run, loss: float) -> tuple[float, bool]:
    """The part of a training loss that is of the answers' own text, as far as can be known: what
    validation lost at an end is taken for what training did. And whether answers are short."""
    start, train = history.start(run), run.data.get("sets", {}).get("train", {})
    end_loss = start.record.get("end_loss") if start else None
    ends, tokens = train.get("trained_ends"), train.get("trained_tokens")
    if end_loss is None or not ends or not tokens or ends >= tokens or history.with_prompts(run):
        return loss, False
    share = ends / tokens
    return max(loss - share * end_loss, 0.0) / (1 - share), tokens / ends - 1 < SHORT


def cut(run: Run) -> Finding | None:
    """Training rows that were cut or dropped for their length."""
    train = run.data.get("sets", {}).get("train", {})
    fit = train.get("fit")
    if not fit or not fit.get("over"):
        return None
    lost = fit["lost_trained_tokens"]
    lost_share = lost / max(lost + train.get("trained_tokens", 0), 1)
    if max(fit["share"], lost_share) <= CUT:
        return None
    return Finding(
        "cut",
        "warning",
        f"Data problem: {fit['over']:,} training rows ({percent(fit['share'])}) are longer than "
        f"config.data.max_length = {fit['max_length']}; {fit['truncated']:,} were cut and "
        f"{fit['dropped']:,} dropped, with {lost:,} trained tokens ({percent(lost_share)}).",
        "Raise config.data.max_length: `sft data` says which length holds the rows.",
    )


def without_targets(run: Run) -> Finding | None:
    """Rows in which no token is trained."""
    found = []
    for name, one in run.data.get("sets", {}).items():
        untrained = one.get("untrained") or {}
        if untrained.get("rows"):
            count = untrained["rows"]
            found.append(f"{count:,} of {name} (the first: {untrained['first']})")
    if not found:
        return None
    return Finding(
        "without_targets",
        "error",
        f"Data problem: rows without a trained token: {', '.join(found)}.",
        "Give them an answer, or remove them.",
    )


def distributions(run: Run) -> Finding | None:
    """Training and validation rows are not alike: the audit says so, or the untuned model does,
    unless to it neither is text: then its losses say nothing of the sets."""
    evidence = []
    start, first = history.start(run), run.train[0] if run.train else None
    # The loss of step 1 is that before the first update; with prompts in it, of something else.
    comparable = not history.with_prompts(run) and not large_start(run)
    if start and first and first["step"] == 1 and comparable:
        gap = start.loss - first["loss"]
        noise = APART * math.hypot(start.se, _batch_error(run, start.se))
        if abs(gap) > max(noise, GAP * min(start.loss, first["loss"])):
            evidence.append(
                f"before the first update the loss was {first['loss']:.4f} on a batch of training "
                f"and {start.loss:.4f} on validation, {abs(gap) / noise * APART:.1f} standard "
                "errors apart"
            )
    for pair in run.data.get("skew", []):
        if pair.get("right") == "validation" and pair.get("differs"):
            evidence.append(pair["summary"].rstrip("."))
    if not evidence:
        return None
    return Finding(
        "distributions",
        "warning",
        f"Train and validation come from different distributions: {'; '.join(evidence)}.",
        "Cut validation from rows like those of production (config.data.split.validation), and "
        "make training like them: otherwise the chosen epoch is best at something else. "
        "data/report.html compares the sets.",
    )


def _batch_error(run: Run, se: float) -> float:
    """Of the first batch, by the spread that the validation rows show."""
    first, start = run.train[0], run.validation[0]
    tokens, weight = first.get("trained_tokens"), start.get("weight")
    return se * math.sqrt(weight / tokens) if tokens and weight else math.inf
