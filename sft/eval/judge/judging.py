"""What a language model says of the answers of an arm.

Pointwise, every answer gets a score by a rubric. Pairwise, it is compared with the answer of
another arm, in both orders.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft.errors import UserError
from sft.eval.judge import backends, prompts, rows, summary, verdicts
from sft.eval.judge.backend import Backend
from sft.eval.judge.cache import Cache
from sft.eval.judge.rows import Item
from sft.eval.judge.summary import Pair
from sft.eval.judge.verdicts import Verdict
from sft.run import display
from sft.run.directory import write_json, write_text
from sft.run.progress import Progress


def judge(config: ConfigDict, workdir: str, checkpoint: str) -> dict[str, Any]:
    """Writes ``eval/judge.<arm>.<set>.json`` and its ``.verdicts.jsonl``, one for each set.

    In pairwise mode ``<arm>`` is ``<arm>_vs_<config.judge.against>``. Replies are kept in
    ``eval/judge.cache.jsonl``; what is there is not asked again.

    Args:
      checkpoint: ``base``, ``best``, ``latest``, a step, or another arm that has predictions.

    Returns:
      ``{set: result}``.

    Raises:
      UserError: no predictions, a template or backend that cannot be used, an endpoint that is
        down.
    """
    settings, folder = config.judge, Path(workdir) / "eval"
    arms = arms_of(config, checkpoint)
    loaded = rows.load(folder, arms, settings.reference)
    items = {name: rows.draw(found, settings.max_examples, settings.seed)
             for name, found in loaded.items()}  # fmt: skip
    question = prompts.question(config)
    backend = backends.make(config)
    results = {}
    with Cache.of_run(workdir) as cache:
        for name, found in items.items():
            verdicts_of = _ask(config, backend, cache, question, name, found)
            numbers, lines = _told(config, found, verdicts_of)
            label = "_vs_".join(arms)
            results[name] = {
                "mode": settings.mode,
                "arm": arms[0],
                **({"against": arms[1]} if len(arms) > 1 else {}),
                "set": name,
                "rows": len(loaded[name]),
                "answers_cut": rows.cut(folder, arms, name),
                "count": len(found),
                **numbers,
                "cost": summary.cost(verdicts_of, config),
                "judge": identity(backend, question),
                "seed": settings.seed,
                "content": _content(found),
            }
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            write_text(folder / f"judge.{label}.{name}.verdicts.jsonl", text)
            write_json(folder / f"judge.{label}.{name}.json", results[name])
            print(f"{' against '.join(arms)} on {name}: {_sentence(config, results[name])}")
            print(f"wrote {folder / f'judge.{label}.{name}.json'}")
    return results


def arms_of(config: ConfigDict, checkpoint: str) -> list[str]:
    """The arm to score, or the two to compare.

    Raises:
      UserError: the other arm is not named, or the same.
    """
    arm = rows.arm_name(checkpoint)
    if config.judge.mode == "pointwise":
        return [arm]
    against = rows.arm_name(config.judge.against)
    if against in ("", arm):
        raise UserError(
            f"config.judge.against = {config.judge.against!r}: name another arm than {arm!r} to "
            "compare it with."
        )
    return [arm, against]


def identity(backend: Backend, question: prompts.Question) -> dict[str, Any]:
    """Who judged, by what: verdicts are compared only where this is the same."""
    return backend.identity | {"template": question.template.name, "sha256": question.sha256}


def render(config: ConfigDict, question: prompts.Question, item: Item) -> str:
    """The prompt for one item."""
    values: dict[str, Any] = {
        "prompt": item.prompt,
        "reference": item.expected if config.judge.reference else "",
    }
    if len(item.answers) == 2:
        values |= {"answer_a": item.answers[0], "answer_b": item.answers[1]}
    else:
        values |= {"answer": item.answers[0], "low": config.judge.low, "high": config.judge.high}
    return question.render(**values)


def _ask(
    config: ConfigDict,
    backend: Backend,
    cache: Cache,
    question: prompts.Question,
    name: str,
    items: Sequence[Item],
) -> list[Verdict]:
    """One verdict for each item, or two in a row: as it is, and swapped."""
    judge = config.judge
    pairwise = judge.mode == "pairwise"
    form = verdicts.WINNER if pairwise else verdicts.score(judge.low, judge.high)
    shown = [order for item in items for order in ((item, item.swapped) if pairwise else (item,))]
    texts = [render(config, question, item) for item in shown]
    missing = [t for t in dict.fromkeys(texts) if cache.get(backend.identity, t) is None]
    read, written = backend.count(missing), len(missing) * judge.max_new_tokens
    print(
        f"judge {backend.identity['model']} on {name}: {len(texts)} verdicts, {len(missing)} to "
        f"ask for: about {read:,} tokens in, at most {written:,} out"
        + _priced(summary.price(config, read, written), ": at most about ")
        + "; more where one has to be asked for again."
    )
    with Progress(len(missing), "judge", "reply") as progress:
        return verdicts.ask(backend, cache, texts, form, judge.retries, progress.update)


def _told(
    config: ConfigDict, items: Sequence[Item], found: Sequence[Verdict]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The numbers, and a line for each item."""
    if config.judge.mode == "pointwise":
        numbers = summary.pointwise(found, config.judge.low, config.judge.high)
        lines = [
            _about(item)
            | {"id": item.id, "score": v.value, "reason": v.reason, "problem": v.problem}
            for item, v in zip(items, found, strict=True)
        ]
        return numbers, lines
    pairs = [Pair(item, (found[2 * i], found[2 * i + 1])) for i, item in enumerate(items)]
    lines = [
        _about(pair.item)
        | {
            "ids": [pair.item.id, pair.item.swapped.id],
            "winners": [verdict.value for verdict in pair.verdicts],
            "outcome": pair.outcome,
            "reasons": [verdict.reason for verdict in pair.verdicts],
            "problems": [verdict.problem for verdict in pair.verdicts],
        }
        for pair in pairs
    ]
    return summary.pairwise(pairs), lines


def _about(item: Item) -> dict[str, Any]:
    return {
        "arms": list(item.arms),
        "set": item.set,
        "row": item.row,
        "source": item.source,
        "lengths": [len(answer) for answer in item.answers],  # characters
    }


def _sentence(config: ConfigDict, result: dict[str, Any]) -> str:
    if result["mode"] == "pointwise":
        text = f"score {_with_interval(result, 'score', 'interval')} of {config.judge.high}"
    else:
        text = (
            f"{result['wins']} wins, {result['ties']} ties, {result['losses']} losses, win rate "
            f"{_share(result, 'win_rate')}; both orders agree {_share(result, 'consistency')}, "
            f"position bias {_with_interval(result, 'position_bias')}"
        )
    cost = result["cost"]
    text += (
        f"; {result['count']} judged of {result['rows']} rows, {result['failures']} without a "
        f"verdict; {cost['replies']} replies, {cost['tokens_in']:,} tokens in, "
        f"{cost['tokens_out']:,} out" + _priced(cost["price"], ", ")
    )
    for arm, cut in result["answers_cut"].items():
        share = display.share(cut / result["rows"])
        text += f"; {share} of {arm}'s answers were cut ({cut}/{result['rows']})"
    if result["problems"]:
        problem, times = next(iter(result["problems"].items()))
        text += f". Most frequent problem ({times} times): {problem}"
    return text


def _with_interval(result: dict[str, Any], name: str, interval: str = "") -> str:
    if result[name] is None:
        return "unknown"
    bounds = result[interval or f"{name}_interval"]
    return f"{result[name]:.3f}" + (f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else "")


def _share(result: dict[str, Any], name: str) -> str:
    if result[name] is None:
        return "unknown"
    bounds = result[f"{name}_interval"]
    interval = f" [{display.interval(*bounds, 'win_rate')}]" if bounds else ""
    return display.share(result[name]) + interval


def _priced(price: float, before: str) -> str:
    return f"{before}{price:.4f} in the currency of config.judge.price_in" if price else ""


def _content(items: Sequence[Item]) -> str:
    """Twelve hex digits of what was judged."""
    return hashlib.sha256("".join(item.id for item in items).encode()).hexdigest()[:12]
