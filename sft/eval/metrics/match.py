"""Metrics that call an answer right or wrong; the value is the share of right ones."""

import re
import unicodedata

from sft.eval.metrics import numbers
from sft.eval.metrics.metric import Metric, Texts, Unfit, first_unfit, mean

# Between digits, before a number (-5, .5), or after one (%): without it the number is another.
_OF_A_NUMBER = re.compile(
    r"(?<=\d)[^\w\s](?=\d)|(?<![A-Za-z0-9)])[-.](?=\.?\d)|(?:(?<=\d)|(?<=\d\s))[%‰]"
)


def canonical(text: str) -> str:
    """NFC, without surrounding white space: what two answers share that are the same."""
    return unicodedata.normalize("NFC", text).strip()


def is_exact(predicted: str, expected: str) -> bool:
    """Equal after NFC and without surrounding white space."""
    return canonical(predicted) == canonical(expected)


def normalised(text: str) -> str:
    """Without what a reader overlooks: case, width, white space and punctuation.

    NFKC and case folding (as in Unicode's toNFKC_Casefold), punctuation (general category P) left
    out, runs of white space one space. Punctuation of a number stays, since 3.14 is not 314, -5 is
    not 5, 5 % is not 5, and 1/2/2024 is not 12/2/024. A text of nothing but punctuation stays.
    """
    text = unicodedata.normalize("NFKC", text)
    text = unicodedata.normalize("NFKC", text.casefold()).replace("−", "-")
    kept = {match.start() for match in _OF_A_NUMBER.finditer(text)}
    bare = "".join(
        char
        for index, char in enumerate(text)
        if index in kept or not unicodedata.category(char).startswith("P")
    )
    return " ".join(bare.split()) or " ".join(text.split())


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


def numeric_match(tolerance: float) -> Metric:
    """The last number of both answers, see ``sft.eval.metrics.numbers``."""

    def score(predicted: str, expected: str) -> bool:
        return numbers.close(numbers.last(predicted), numbers.last(expected), tolerance)

    def why(text: str) -> str | None:
        if numbers.last(text) is not None:
            return None
        return f"no number in the expected answer {text[:60]!r}. Use exact_match or token_f1."

    def unfit(expected: Texts) -> Unfit | None:
        return first_unfit(expected, why)

    return mean("numeric_match", score, signature=f"tolerance:{tolerance:g}", unfit=unfit)
