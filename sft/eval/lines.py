"""Results as lines for a person: the same in ``sft eval``, ``sft train`` and ``sft report``."""

from collections.abc import Mapping
from typing import Any

from sft.eval import faults
from sft.run import display

Result = Mapping[str, Any]


def result(found: Result) -> str:
    """What a set is about, what was cut, the other scores; in a second line what is wrong."""
    # Exact match is there whatever is asked for.
    scores = {"exact_match": _exact_match(found)} | found["metrics"]
    names = dict.fromkeys([found["primary"], "exact_match", *scores])
    values = [_value(name, scores[name], found) for name in names if name != "perplexity"]
    first = f"{found['arm']} on {found['set']}: {', '.join([values[0], cut(found), *values[1:]])}"
    return "\n  ".join(filter(None, [first, errors(found)]))


def cut(found: Result) -> str:
    """``cut at 32 tokens 95.0 % (380/400)``; ``""`` of a result that does not say."""
    if "cut" not in found:
        return ""
    share = display.share(found["cut"] / found["count"])
    return f"cut at {found['max_new_tokens']} tokens {share} ({found['cut']}/{found['count']})"


def errors(found: Result) -> str:
    """What is wrong with the wrong answers; ``""``: nothing, or the result does not say."""
    wrong = found.get("errors", {}).get("wrong")
    return faults.sentence(found["errors"], found["max_new_tokens"]) if wrong else ""


def constants(found: Result) -> str:
    """What answers that look at no prompt would score on this set; ``""``: they are not labels."""
    constant = found.get("constant")
    if not constant:
        return ""
    majority, drawn = constant["majority"], constant["random"]
    of = "training" if majority["known_from"] == "training" else "this set"
    names = [name for name in majority["metrics"] if name in drawn["metrics"]]
    always, random = (
        ", ".join(_value(name, one["metrics"][name], {}) for name in names)
        for one in (majority, drawn)
    )
    return (
        f"without a model: always {majority['label']!r}, the most frequent answer of {of}: "
        f"{always}; one of {drawn['labels']} labels at random: {random}"
    )


def _exact_match(found: Result) -> Result:
    return {"value": found["exact_match"], "interval": found["exact_match_interval"]}


def _value(name: str, score: Result, found: Result) -> str:
    text = f"{display.name(name)} {display.score(score['value'], name)}"
    if score["interval"]:
        text += f" [{display.interval(*score['interval'], name)}]"
    if name == "exact_match" and found:
        text += f" ({found['correct']}/{found['count']})"
    return text
