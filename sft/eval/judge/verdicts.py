"""From prompts to verdicts: asked, checked against a schema, and asked again where unusable."""

import collections
import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sft.errors import Preempted, UserError
from sft.eval.judge import prompts as prompts_lib
from sft.eval.judge.backend import Backend, Reply, Unreachable
from sft.eval.judge.cache import Cache


@dataclasses.dataclass(frozen=True)
class Form:
    """What a verdict must look like: ``{"reason": …, field: a value that fits the schema}``."""

    field: str
    values: dict[str, Any]

    @property
    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {"reason": {"type": "string"}, self.field: self.values},
            "required": ["reason", self.field],
        }


def score(low: int, high: int) -> Form:
    return Form("score", {"type": "integer", "minimum": low, "maximum": high})


WINNER = Form("winner", {"enum": ["A", "B", "tie"]})
PASS = Form("pass", {"type": "boolean"})


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the judge says of one prompt.

    Attributes:
      value: a score, ``A``, ``B`` or ``tie``, or whether it passes; ``None``: no usable reply.
      problem: what was wrong with the last reply, or ``""``.
      replies: all that were needed, the unusable ones too.
    """

    value: Any
    reason: str
    problem: str
    replies: tuple[Reply, ...]


def parse(text: str, form: Form) -> tuple[Any, str]:
    """(value, reason) of the JSON object in ``text``, which may stand in prose or a code fence.

    Raises:
      ValueError: none or several, or one that does not fit; the message is for the model too.
    """
    try:
        return _parsed(list(_objects(text)), form)
    except RecursionError:
        raise ValueError("the JSON in it is nested too deeply") from None


def _parsed(found: list[dict[str, Any]], form: Form) -> tuple[Any, str]:
    import jsonschema

    if not found:
        raise ValueError("there is no JSON object in it")
    if any(other != found[0] for other in found):
        raise ValueError("there is more than one JSON object in it")
    errors = sorted(jsonschema.Draft202012Validator(form.schema).iter_errors(found[0]), key=str)
    if errors:
        place = "".join(f"{part}: " for part in errors[0].absolute_path)
        raise ValueError(f"{place}{errors[0].message[:200]}")
    value = found[0][form.field]
    reason = found[0]["reason"].encode(errors="replace").decode()  # JSON may have half a surrogate
    # 4.0 is an integer for JSON Schema.
    return int(value) if isinstance(value, float) else value, reason


def ask(
    backend: Backend,
    cache: Cache,
    prompts: Sequence[str],
    form: Form,
    retries: int,
    on_verdict: Callable[[int], object] = lambda count: None,
) -> list[Verdict]:
    """A verdict for each prompt, in order.

    An unusable reply is shown to the model with what was wrong, at most ``retries`` times.

    Args:
      on_verdict: called with the number of replies that have come since the last call.

    Raises:
      UserError: the endpoint is down; says how much is kept. ``Preempted``: the same at Ctrl-C.
    """
    verdicts: list[Verdict] = [Verdict(None, "", "", ())] * len(prompts)
    texts, waiting = list(prompts), list(range(len(prompts)))
    for _ in range(retries + 1):
        try:
            replies = _replies(backend, cache, [texts[i] for i in waiting], on_verdict)
        except (Unreachable, KeyboardInterrupt) as error:
            here = sum(cache.get(backend.identity, texts[i]) is not None for i in waiting)
            done = len(prompts) - len(waiting) + here
            kept = f"{done} of {len(prompts)} replies are kept in {cache.path}"
            if isinstance(error, Unreachable):
                raise UserError(
                    f"{error} {kept}: the same command goes on from there, and asks none of them "
                    "again."
                ) from None
            raise Preempted(f"interrupted: {kept}.") from None
        for i, reply in zip(waiting, replies, strict=True):
            verdicts[i] = _judged(reply, form, verdicts[i].replies)
            used = len(verdicts[i].replies)
            texts[i] = prompts_lib.again(prompts[i], reply.text, verdicts[i].problem, used)
        waiting = [
            i for i in waiting if verdicts[i].problem and not verdicts[i].replies[-1].refused
        ]
        if not waiting:
            break
    return verdicts


def _replies(
    backend: Backend, cache: Cache, texts: list[str], on_verdict: Callable[[int], object]
) -> list[Reply]:
    """From the cache, or asked; the same text is asked once."""
    missing = [text for text in dict.fromkeys(texts) if cache.get(backend.identity, text) is None]
    refused: dict[str, Reply] = {}

    def keep(index: int, reply: Reply) -> None:
        if reply.refused:
            refused[missing[index]] = reply  # it cost nothing, and may be taken another day
        else:
            cache.put(backend.identity, missing[index], reply)
        on_verdict(1)

    if missing:
        backend.ask(missing, keep)
    found = [refused.get(text) or cache.get(backend.identity, text) for text in texts]
    return [reply for reply in found if reply is not None]


def _judged(reply: Reply, form: Form, earlier: tuple[Reply, ...]) -> Verdict:
    replies = (*earlier, reply)
    if reply.refused:
        return Verdict(None, "", f"refused: {reply.refused}", replies)
    try:
        value, reason = parse(reply.text, form)
    except ValueError as error:
        cut = ", and it was cut at config.judge.max_new_tokens" if reply.cut else ""
        return Verdict(None, "", f"{error}{cut}", replies)
    return Verdict(value, reason, "", replies)


def _objects(text: str) -> Iterable[dict[str, Any]]:
    """The JSON objects in ``text`` that are not inside another."""
    decoder, place = json.JSONDecoder(), text.find("{")
    while place >= 0:
        try:
            value, end = decoder.raw_decode(text, place)
            yield value
        except (ValueError, RecursionError):
            end = place + 1
        place = text.find("{", end)


def problems(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How often each problem left a prompt without a verdict, the most frequent first."""
    return dict(collections.Counter(v.problem for v in verdicts if v.problem).most_common())
