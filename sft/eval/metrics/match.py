"""Metrics that call an answer right or wrong; the value is the share of right ones."""

import re
import unicodedata

from sft.eval.metrics import numbers
from sft.eval.metrics.folding import normalised
from sft.eval.metrics.metric import Metric, Texts, Unfit, first_unfit, mean


def canonical(text: str) -> str:
    """NFC, without surrounding white space: what two answers share that are the same."""
    return unicodedata.normalize("NFC", text).strip()


def first_line(text: str) -> str:
    """The first line that is not blank, without white space around it."""
    return (text.strip().splitlines() or [""])[0].strip()


def is_exact(predicted: str, expected: str) -> bool:
    """Equal after NFC and without surrounding white space."""
    return canonical(predicted) == canonical(expected)


def exact_match() -> Metric:
    return mean("exact_match", is_exact)


def exact_match_normalised() -> Metric:
    return mean("exact_match_normalised", lambda p, e: normalised(p) == normalised(e))


def regex_match(pattern: str) -> Metric:
    """What ``pattern`` finds first, anywhere in the answer.

    With a group in the pattern, right is when the first group's text is the same in both answers;
    without one, right is when the prediction has a match, whatever was expected.
    """
    compiled = re.compile(pattern)
    grouped = compiled.groups > 0

    def found(text: str) -> str | None:
        match = compiled.search(text)
        return match.group(1 if grouped else 0) if match else None

    def score(predicted: str, expected: str) -> bool:
        ours = found(predicted)
        return ours is not None and (not grouped or ours == found(expected))

    def why(text: str) -> str | None:
        if not grouped or found(text) is not None:
            return None
        return (
            f"config.eval.pattern = {pattern!r} has a group, and finds none in the expected "
            f"answer {text[:60]!r}. Make it find the part to compare, or use (?:…) for a group "
            "that is not compared."
        )

    return mean("regex_match", score, signature=pattern, unfit=lambda e: first_unfit(e, why))


def numeric_match(tolerance: float, decimal_sign: str = numbers.POINT) -> Metric:
    """The last number of both answers, as ``sft.eval.metrics.numbers.last`` reads it.

    Args:
      tolerance: allowed difference, as a share of the expected number.
      decimal_sign: what 1,234 and 1.234 are, see ``sft.eval.metrics.numbers``.
    """

    def read(text: str) -> numbers.Number | None:
        return numbers.last(text, decimal_sign)

    def score(predicted: str, expected: str) -> bool:
        return numbers.close(read(predicted), read(expected), tolerance)

    def why(text: str) -> str | None:
        if read(text) is not None:
            return None
        if numbers.last(text) is not None:
            return (
                f"the number in the expected answer {text[:60]!r} has one separator, and the "
                "other answers have decimal points and decimal commas: it may be thousands or "
                "not. Set config.eval.language=en if , groups thousands, or write the numbers in "
                "one way."
            )
        if any(char.isdecimal() for char in text):
            return (
                f"the expected answer {text[:60]!r} does not end in one number that can be read "
                "(see sft/eval/metrics/numbers.py). Write it in digits alone, or use exact_match."
            )
        return f"no number in the expected answer {text[:60]!r}. Use exact_match or token_f1."

    def unfit(expected: Texts) -> Unfit | None:
        return first_unfit(expected, why)

    signature = f"tolerance:{tolerance:g}|decimal:{decimal_sign}"
    return mean("numeric_match", score, signature=signature, unfit=unfit)
