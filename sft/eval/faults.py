"""What is wrong with wrong answers, by their texts alone: the first of these that an answer is.

``empty``            nothing but white space
``spelling``         the expected answer but for case, punctuation, white space (``normalised``)
``goes_on``          begins with the expected answer, and does not end there
``other_label``      another of the set's labels, or begins with one, where the expected are labels
``echo``             a part of what the model was sent, of ``_LONG`` characters or more
``not_a_label``      none of the set's labels
``other_script``     letters of a script that no expected answer is written in
``other_form``       of another form than all expected answers, where these have a form
``content``          of the form of an expected answer, where these have a form
``other``            none of these
"""

import functools
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from sft.eval.metrics.folding import SPACED_LETTER, normalised
from sft.eval.metrics.match import canonical
from sft.run import display

_SAID = {
    "empty": "empty",
    "spelling": "right but for case, punctuation or white space",
    "goes_on": "begin with the expected answer and go on",
    "other_label": "another label, or begin with one",
    "echo": "a part of the prompt again",
    "not_a_label": "not a label",
    "other_script": "in another script than every expected answer",
    "other_form": "of another form than every expected answer",
    "content": "right in form, wrong in content",
    "other": "other",
}
_SHOWN = 60  # characters of an answer in a line
_LONG = 8  # characters: shorter ones are in a prompt by chance
_FEW = 20  # rows for each form, from which expected answers have one


def kinds(
    answers: Sequence[str],
    expected: Sequence[str],
    labels: Collection[str] | None,
    prompts: Sequence[str],
) -> list[str | None]:
    """What is wrong with each answer; ``None``: it is the expected one.

    Args:
      answers, expected: as they are compared.
      labels: of the set; ``None`` where the expected answers are not labels.
      prompts: all text that the model was sent for each.
    """
    answers, expected = ([canonical(text) for text in texts] for texts in (answers, expected))
    forms, scripts = {_form(text) for text in expected}, set().union(*map(_scripts, expected))
    has_form = len(forms) * _FEW <= len(expected)
    found = []
    for ours, theirs, prompt in zip(answers, expected, prompts, strict=True):
        if ours == theirs:
            found.append(None)
        elif not ours:
            found.append("empty")
        elif normalised(ours) == normalised(theirs):
            found.append("spelling")
        elif _goes_on(ours, theirs):
            found.append("goes_on")
        elif any(ours == label or _goes_on(ours, label) for label in labels or ()):
            found.append("other_label")
        elif len(ours) >= _LONG and ours in canonical(prompt):
            found.append("echo")
        elif labels is not None:
            found.append("not_a_label")
        elif scripts and _scripts(ours) and not scripts & _scripts(ours):
            found.append("other_script")
        elif has_form:
            found.append("content" if _form(ours) in forms else "other_form")
        else:
            found.append("other")
    return found


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The ``errors`` of a result.

    Returns:
      ``count`` of answers, how many are ``wrong``, and of these how many were ``cut`` at the cap;
      then, where it is not 0, the number of each kind, which add up to ``wrong``. Where most wrong
      answers are one and the same, ``same`` is ``{"answer", "count"}``.

    Args:
      rows: with ``error``, ``cut`` and ``predicted``.
    """
    wrong = [row for row in rows if row["error"]]
    counts = Counter(row["error"] for row in wrong)
    found = {"count": len(rows), "wrong": len(wrong), "cut": sum(row["cut"] for row in wrong)}
    found |= {kind: counts[kind] for kind in _SAID if counts[kind]}
    for answer, count in Counter(canonical(row["predicted"]) for row in wrong).most_common(1):
        if answer and count > 1 and 2 * count > len(wrong):
            found["same"] = {"answer": answer, "count": count}
    return found


def sentence(errors: dict[str, Any], cap: int) -> str:
    """``391 of 400 answers wrong: 380 cut at 32 tokens; 120 begin with the expected answer …``."""
    said = [f"{errors['cut']:,} cut at {cap} tokens"] if errors["cut"] else []
    ordered = sorted((kind for kind in _SAID if kind in errors), key=lambda kind: -errors[kind])
    said += [f"{errors[kind]:,} {_SAID[kind]}" for kind in ordered]
    if same := errors.get("same"):
        text = same["answer"] if len(same["answer"]) <= _SHOWN else same["answer"][:_SHOWN] + "…"
        said.append(f"{same['count']:,} say {text!r}")
    return (
        f"{errors['wrong']:,} of {display.counted(errors['count'], 'answer')} wrong: "
        f"{'; '.join(said)}"
    )


def _goes_on(answer: str, expected: str) -> bool:
    """Whether the expected answer is the beginning, and a word does not go on after it."""
    if not answer.startswith(expected):
        return False
    ends_in_word = expected[-1:].isalnum()
    return not (ends_in_word and re.match(rf"{SPACED_LETTER}|\d", answer[len(expected) :]))


def _form(text: str) -> str:
    """Runs of letters and of digits as one sign each: ``2024-01-05`` is ``0-0-0``."""
    signs = (
        "0" if c.isdigit() else "a" if c.isalpha() else " " if c.isspace() else c for c in text
    )
    return "".join(sign for sign, _ in itertools.groupby(signs))


def _scripts(text: str) -> set[str]:
    return {_script(char) for char in set(text) if char.isalpha()}


@functools.cache
def _script(letter: str) -> str:
    """The first word of its name: LATIN, CYRILLIC, CJK."""
    name = unicodedata.name(unicodedata.normalize("NFKC", letter)[0], "")
    return name.replace("-", " ").split(" ")[0]
