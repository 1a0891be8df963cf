"""Words of a text, by language: what ROUGE, token F1 and BLEU count.

rouge-score takes runs of a-z and 0-9 as words and throws everything else away: "naïve" is two
words, and Japanese has none, so that its score is 0 whatever the prediction. SQuAD's white space
makes one word of a Japanese sentence. Here the language decides.
"""

import functools
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from sft.errors import UserError

Words = Callable[[str], list[str]]

# As config.eval.language → sacreBLEU's tokenizer. Thai, Lao, Khmer and Burmese put no spaces
# between words and sacreBLEU has nothing that knows their words: characters are its choice for
# such scripts. The others of the list are words between spaces.
BLEU_TOKENIZER = {
    "ja": "ja-mecab",
    "zh": "zh",
    "ko": "ko-mecab",
    **dict.fromkeys(("th", "lo", "km", "my"), "char"),
    "en": "13a",
    "other": "13a",
}
_SCRIPT = {
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "zh",
    "IDEOGRAPHIC": "zh",
    "HANGUL": "ko",
    "THAI": "th",
    "LAO": "lo",
    "KHMER": "km",
    "MYANMAR": "my",
}
_UNSPACED = ("ja", "zh", "th", "lo", "km", "my")
_KANA = 0.05  # of kana and Chinese characters together; Chinese text has hardly any


def find_language(texts: Sequence[str]) -> str:
    """The language most letters are of, told by their script; ``"other"`` for those with spaces.

    Chinese characters are Japanese where kana are among them. Japanese in which no answer has any
    kana (names, dates) is taken for Chinese: set ``config.eval.language``.
    """
    letters: Counter[str] = Counter()
    for char, count in Counter("".join(texts)).items():
        if unicodedata.category(char).startswith("L"):
            letters[_language(char)] += count
    kana, han = letters["ja"], letters["zh"]
    if kana > _KANA * (kana + han):
        letters["ja"], letters["zh"] = kana + han, 0
    return max(letters, key=lambda name: letters[name]) if letters.total() else "other"


def split(language: str) -> tuple[Words, str]:
    """How to take the words out of a text in this language, and that way's name.

    ``en``: rouge-score's own. ``ja``: MeCab's with the IPA dictionary, as in sacreBLEU. All others:
    runs of letters, marks and digits, in scripts without spaces each character by itself, with its
    marks; for ASCII the same as rouge-score's. All are in lower case and without punctuation.
    """
    if language == "en":
        from rouge_score import tokenize

        return lambda text: tokenize.tokenize(text, None), "rouge-score"
    if language == "ja":
        mecab = bleu_tokenizer("ja")
        return lambda text: _runs(mecab(_fold(text))), mecab.signature()
    return lambda text: _apart(_fold(text)), "unicode"


def bleu_tokenizer(language: str):
    """sacreBLEU's tokenizer for this language: a callable with a ``signature``.

    Raises:
      UserError: it needs a package that is not installed.
    """
    from sacrebleu.metrics import bleu

    name = BLEU_TOKENIZER[language]
    try:
        return bleu.BLEU(tokenize=name).tokenizer
    except RuntimeError:
        raise UserError(
            f"config.eval.metrics: bleu on answers in {language!r} needs sacreBLEU's tokenizer "
            f"{name}, which is not installed. Run pip install 'sacrebleu[{language}]', or use "
            "chrf, which needs none."
        ) from None


@functools.cache
def _language(char: str) -> str:
    """Of a letter, told by its script."""
    name = unicodedata.name(unicodedata.normalize("NFKC", char)[0], "").replace("-", " ")
    return _SCRIPT.get(name.split(" ")[0], "other")


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()


def _runs(text: str) -> list[str]:
    """Runs of letters, marks and digits."""
    return "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text).split()


def _apart(text: str) -> list[str]:
    """As ``_runs``, and every letter of an unspaced script with its marks is a word."""
    parts = []
    alone = False  # the last letter stands for itself
    for char in text:
        is_mark = unicodedata.category(char).startswith("M")
        starts_alone = unicodedata.category(char)[0] == "L" and _language(char) in _UNSPACED
        if not is_mark and (alone or starts_alone):
            parts.append(" ")
        alone = starts_alone or (alone and is_mark)
        parts.append(char)
    return _runs("".join(parts))
