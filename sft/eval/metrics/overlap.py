"""Metrics that count shared words: token F1 and ROUGE. Each is a mean over rows, from 0 to 1."""

import importlib.metadata
import re
import string
from collections import Counter

from sft.eval.metrics import words
from sft.eval.metrics.metric import Metric, Texts, Unfit, mean

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def token_f1(language: str) -> Metric:
    """F1 of the words that two answers share, with repetition; order does not count.

    Where words have spaces between them, exactly as the evaluation script of SQuAD 2.0: lower case,
    no ASCII punctuation, no articles, split at white space; if either answer has no word, 1 if
    neither has. Elsewhere the words of ``words.split``, as SQuAD's followers do for Chinese and
    Japanese.
    """
    split, kind = (
        (_squad_words, "squad") if language in ("en", "other", "ko") else words.split(language)
    )

    def score(predicted: str, expected: str) -> float:
        return f1(split(predicted), split(expected))

    return mean("token_f1", score, signature=f"words:{kind}")


def f1(predicted: list[str], expected: list[str]) -> float:
    """Of two bags of words. Source: compute_f1 of SQuAD 2.0's evaluate-v2.0.py."""
    if not predicted or not expected:
        return float(predicted == expected)
    shared = sum((Counter(predicted) & Counter(expected)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(expected)
    return 2 * precision * recall / (precision + recall)


def rouge(name: str, language: str) -> Metric:
    """F-measure of rouge-score, without its stemmer, on the words of the language.

    Args:
      name: ``rouge1`` | ``rouge2``: shared n-grams of words; ``rougeL``: the longest common
        subsequence of words.
    """
    from rouge_score import rouge_scorer, tokenizers

    split, kind = words.split(language)

    class Tokenizer(tokenizers.Tokenizer):
        def tokenize(self, text: str) -> list[str]:
            return split(text)

    scorer = rouge_scorer.RougeScorer([name], tokenizer=Tokenizer())
    needed = 2 if name == "rouge2" else 1

    def score(predicted: str, expected: str) -> float:
        return scorer.score(expected, predicted)[name].fmeasure

    def unfit(expected: Texts) -> Unfit | None:
        if not expected or any(len(split(text)) >= needed for text in expected):
            return None
        return 0, (
            f"no expected answer has {needed} word(s), the first is {expected[0][:60]!r}: the "
            "score would be 0 whatever is predicted. Use exact_match or chrf."
        )

    version = importlib.metadata.version("rouge-score")
    signature = f"words:{kind}|stemmer:no|rouge-score:{version}"
    return mean(name, score, signature=signature, unfit=unfit)


def _squad_words(text: str) -> list[str]:
    """Source: normalize_answer of SQuAD's evaluate-v2.0.py."""
    return _ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()
