"""BLEU and chrF of the whole set, from 0 to 100, by sacreBLEU's own functions.

sacreBLEU scores a corpus in two steps, statistics of segments and a score from their sum, and so
do its own significance tests: the two functions are those of its metric objects.
"""

import numpy as np

from sft.eval.metrics import words
from sft.eval.metrics.metric import Ends, Metric, Texts, Unfit

_ORDER = 4  # BLEU's longest n-gram
_FULL = 100.0


def bleu(language: str) -> Metric:
    """sacreBLEU's corpus BLEU with the tokenizer of the language.

    Raises:
      UserError: the tokenizer is not installed.
    """
    from sacrebleu.metrics import bleu as library

    words.bleu_tokenizer(language)  # the error that says what to install
    scorer = library.BLEU(tokenize=words.BLEU_TOKENIZER[language])

    def unfit(expected: Texts) -> Unfit | None:
        if not expected or any(len(scorer.tokenizer(t).split()) >= _ORDER for t in expected):
            return None
        return 0, (
            f"no expected answer has {_ORDER} words, the first is {expected[0][:60]!r}: corpus "
            "BLEU would be 0 or say nothing. Use chrf or exact_match."
        )

    return _metric("bleu", scorer, unfit, _ends_of_bleu)


def chrf() -> Metric:
    """sacreBLEU's chrF2: n-grams of up to 6 characters, white space left out; any language."""
    from sacrebleu.metrics import chrf as library

    return _metric("chrf", library.CHRF(), lambda expected: None, _ends_of_chrf)


def _ends_of_bleu(statistics_nxk: np.ndarray) -> Ends:
    """Columns: length of the answer, of the reference, matches by order, n-grams by order."""
    wrong, right = statistics_nxk.copy(), statistics_nxk.copy()
    length_n = statistics_nxk[:, 1]
    wrong[:, 2 : 2 + _ORDER] = 0
    right[:, 0] = length_n
    for order in range(_ORDER):
        right[:, [2 + order, 2 + _ORDER + order]] = np.maximum(length_n - order, 0)[:, None]
    return wrong, right


def _ends_of_chrf(statistics_nxk: np.ndarray) -> Ends:
    """Columns, for each order: n-grams of the answer, of the reference, matches."""
    wrong, right = statistics_nxk.copy(), statistics_nxk.copy()
    wrong[:, 2::3] = 0
    right[:, 0::3] = right[:, 2::3] = statistics_nxk[:, 1::3]
    return wrong, right


def _metric(name: str, scorer, unfit, ends) -> Metric:
    def statistics(predicted: Texts, expected: Texts) -> np.ndarray:
        rows = scorer._extract_corpus_statistics(list(predicted), [list(expected)])
        return np.array(rows, np.float64).reshape(len(expected), width)

    def value(sums: np.ndarray) -> np.ndarray:
        # Its functions take one list of plain numbers.
        flat = np.reshape(sums, (-1, width)).tolist()
        scores = [scorer._compute_score_from_stats(row).score for row in flat]
        # What is all right has 100.00000000000004.
        return np.minimum(np.array(scores).reshape(np.shape(sums)[:-1]), _FULL)

    width = len(scorer._extract_corpus_statistics(["a"], [["a"]])[0])  # and it knows: 1 reference
    return Metric(
        name,
        "higher",
        str(scorer.get_signature()),
        statistics,
        value,
        unfit=unfit,
        bounds=(0.0, _FULL),
        ends=ends,
    )
