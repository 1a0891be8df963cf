"""Metrics by name: the libraries' own numbers, and what does not fit is refused."""

import dataclasses
import runpy
from importlib.metadata import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from sacrebleu.metrics import bleu, chrf
from sklearn.metrics import accuracy_score, f1_score

from sft.config import default
from sft.config.check import METRICS, validate
from sft.errors import UserError
from sft.eval import metrics
from sft.eval.metrics import words

ENGLISH = (
    ["The cat sat on the mat.", "", "It is 3.14, isn't it? 🎉", "same words here again", "Yes"],
    [
        "The cat is on the mat.",
        "Nobody came to it",
        "It isn't 3.14!",
        "same words here again",
        "no",
    ],
)
JAPANESE = (
    ["私は昨日、東京に行きました。", "", "今日は良い天気です🎉", "ラーメンは 1,000円"],
    [
        "私は昨日、京都に行きました。",
        "何もありません。",
        "今日は悪い天気です",
        "ラーメンは 1,000円",
    ],
)
CHINESE = (["我昨天去了北京。", "今天 weather 很好"], ["我昨天去了南京。", "今天天气很好"])
PAIRS = {"en": ENGLISH, "ja": JAPANESE, "zh": CHINESE, "one row": (["a b c d e"], ["a b x d e"])}


def config_of(names, **knobs):
    config = default()
    config.eval.update(metrics=names, **knobs)
    validate(config)
    return config


def one(name, expected, **knobs):
    return metrics.of(config_of(name, **knobs), expected)[name]


def score(metric, predicted, expected):
    statistics = metric.statistics(predicted, expected)
    assert statistics.dtype == np.float64 and len(statistics) == len(expected)
    return float(metric.value(statistics.sum(0)))


def test_names_are_those_that_the_configuration_allows():
    assert list(metrics._METRICS) == METRICS
    from sft.config.check import _CHOICES, _TAKEN

    assert set(_TAKEN) == {*METRICS, *metrics.LIKELIHOOD, *metrics.ranked(["a"], 2), "cut"}
    assert set(_CHOICES["eval.language"]) == {"", *words.BLEU_TOKENIZER}


@pytest.mark.parametrize("pair, tokenizer", [
    ("en", "13a"), ("ja", "ja-mecab"), ("zh", "zh"), ("one row", "13a")
])  # fmt: skip
def test_bleu_is_sacrebleu(pair, tokenizer):
    predicted, expected = PAIRS[pair]
    metric, library = one("bleu", expected), bleu.BLEU(tokenize=tokenizer)
    theirs = library.corpus_score(predicted, [expected]).score
    assert score(metric, predicted, expected) == theirs and (theirs > 0 or pair == "zh")
    assert metric.signature == str(library.get_signature())
    assert f"tok:{tokenizer}" in metric.signature


@pytest.mark.parametrize("pair", PAIRS)
def test_chrf_is_sacrebleu(pair):
    predicted, expected = PAIRS[pair]
    metric, library = one("chrf", expected), chrf.CHRF()
    assert score(metric, predicted, expected) == library.corpus_score(predicted, [expected]).score
    assert metric.signature == str(library.get_signature())


def test_bleu_of_many_sums_at_once():
    metric = one("bleu", ENGLISH[1])
    rows = metric.statistics(*ENGLISH)
    stacked = np.stack([rows[:2].sum(0), rows.sum(0)])[None]
    assert metric.value(stacked).shape == (1, 2)
    assert metric.value(stacked)[0].tolist() == [float(metric.value(s)) for s in stacked[0]]


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
@pytest.mark.parametrize("language", ["", "en"])
def test_rouge_is_rouge_score(name, language):
    scorer = rouge_scorer.RougeScorer([name])
    theirs = np.mean([scorer.score(e, p)[name].fmeasure for p, e in zip(*ENGLISH, strict=True)])
    metric = one(name, ENGLISH[1], language=language)
    assert score(metric, *ENGLISH) == pytest.approx(theirs, rel=1e-12) and theirs > 0.3


def test_english_rouge_is_rouge_score_where_letters_are_not_ascii_too():
    predicted, expected = ["a naïve café"], ["a nave caf"]
    scorer = rouge_scorer.RougeScorer(["rouge1"])
    theirs = scorer.score(expected[0], predicted[0])["rouge1"].fmeasure
    assert score(one("rouge1", expected, language="en"), predicted, expected) == theirs > 0
    # Elsewhere a letter is a letter.
    assert score(one("rouge1", expected), predicted, expected) == pytest.approx(1 / 3)


def test_rouge_counts_words_where_rouge_score_sees_none():
    scorer = rouge_scorer.RougeScorer(["rouge1", "rougeL"])
    predicted, expected = JAPANESE
    library = scorer.score(expected[0], predicted[0])
    assert library["rouge1"].fmeasure == library["rougeL"].fmeasure == 0
    # 私 は 昨日 東京|京都 に 行き まし た: 7 of 8 words, 5 of 7 pairs.
    for name, share in (("rouge1", 7 / 8), ("rouge2", 5 / 7), ("rougeL", 7 / 8)):
        metric = one(name, expected)
        assert score(metric, predicted[:1], expected[:1]) == pytest.approx(share)
        assert "ja-mecab" in metric.signature
    # 我 昨 天 去 了 北|南 京: 6 of 7 characters, 4 of 6 pairs.
    for name, share in (("rouge1", 6 / 7), ("rouge2", 4 / 6), ("token_f1", 6 / 7)):
        metric = one(name, CHINESE[1])
        assert score(metric, CHINESE[0][:1], CHINESE[1][:1]) == pytest.approx(share)


@pytest.mark.parametrize("text, language, parts", [
    ("我爱abc，北京 2024年。", "zh", "我 爱 abc 北 京 2024 年"),
    ("สวัสดี", "th", "ส วั ส ดี"),
    ("हिन्दी भाषा", "other", "हिन्दी भाषा"),
    ("Größe's 3.14 🎉", "other", "größe s 3 14"),
    ("ｶﾀｶﾅ々ラー", "ja", "カ タ カ ナ 々 ラ ー"),
    ("안녕하세요 세계", "ko", "안녕하세요 세계"),
    ("12 🎉 !?", "other", "12"),
    ("", "other", ""),
])  # fmt: skip
def test_words_by_script(text, language, parts):
    assert words.find_language([text]) == language
    split, name = words.split("other")  # by script too: a set may have several
    assert split(text) == parts.split() and name == "unicode"


def test_kana_tell_japanese_from_chinese():
    assert words.find_language(["東京都", "大阪に行く"]) == "ja"
    assert words.find_language(["東京都"]) == "zh"
    assert words.find_language(["hello there", "東京"]) == "other"


def test_token_f1_is_squads():
    package = next(f for f in files("lm_eval") if str(f).endswith("tasks/qasper/metrics.py"))
    library = runpy.run_path(str(package.locate()))["f1_abstractive"]
    predicted, expected = ENGLISH
    theirs = np.mean([library([p], [e]) for p, e in zip(predicted, expected, strict=True)])
    assert score(one("token_f1", expected), predicted, expected) == theirs > 0.4
    # Beyond 1.1, which has no empty answers: SQuAD 2.0's rule.
    assert (
        score(one("token_f1", expected), ["", "the", "x"], ["a", "", "x y"]) == (1 + 1 + 2 / 3) / 3
    )


labels = st.lists(
    st.tuples(st.sampled_from(["ab", "c", "a ", "é"]), st.sampled_from(["ab", "c", "é", "z"])),
    min_size=1,
    max_size=30,
)


@settings(max_examples=40)
@given(labels)
def test_f1_is_sklearns(rows):
    predicted, expected = map(list, zip(*rows, strict=True))
    stripped = [p.strip() for p in predicted], [e.strip() for e in expected]
    known = sorted(set(stripped[1]))
    for average in ("macro", "micro"):
        theirs = f1_score(*stripped[::-1], labels=known, average=average, zero_division=0)
        ours = score(one(f"{average}_f1", expected), predicted, expected)
        assert ours == pytest.approx(theirs, abs=1e-12)
    theirs = accuracy_score(*stripped[::-1])
    assert score(one("accuracy", expected), predicted, expected) == pytest.approx(theirs)


def test_macro_f1_of_some_rows_is_that_of_their_labels():
    predicted, expected = list("aabbc"), list("abbbd")
    metric = one("macro_f1", expected)
    rows = metric.statistics(predicted, expected)
    for part in ([0, 1], [4], [2, 3, 4]):
        few = [[texts[i] for i in part] for texts in (expected, predicted)]
        theirs = f1_score(*few, labels=sorted(set(few[0])), average="macro", zero_division=0)
        assert float(metric.value(rows[part].sum(0))) == pytest.approx(theirs)


texts = st.lists(
    st.tuples(
        st.text("ab 東。1{}🎉", max_size=8), st.sampled_from(["a b a b", '{"a": 1}', "東京1"])
    ),
    min_size=2,
    max_size=8,
)


@settings(max_examples=40)
@given(texts, st.data())
def test_statistics_of_parts_add_up(rows, data):
    predicted, expected = map(list, zip(*rows, strict=True))
    cut = data.draw(st.integers(1, len(rows) - 1))
    found = metrics.of(config_of(",".join(METRICS), pattern="a", tolerance=0.1), expected)
    found.pop("json_fields")  # needs JSON
    for metric in found.values():
        whole = metric.statistics(predicted, expected)
        parts = [
            metric.statistics(predicted[part], expected[part])
            for part in (slice(cut), slice(cut, None))
        ]
        assert np.array_equal(np.concatenate(parts), whole)
        assert np.array_equal(sum(part.sum(0) for part in parts), whole.sum(0)) or metric.is_mean
        assert np.isfinite(metric.value(whole.sum(0)))


def test_likelihood_weighs_every_token():
    nll, trained, right = [2.0, 6.0], [1, 3], [1, 0]
    loss, perplexity, accuracy = metrics.LIKELIHOOD.values()
    assert score(loss, nll, trained) == 2.0
    assert score(perplexity, nll, trained) == pytest.approx(np.exp(2.0))
    assert score(accuracy, right, trained) == 0.25
    assert [m.better for m in (loss, perplexity, accuracy)] == ["lower", "lower", "higher"]


@pytest.mark.parametrize("name, knobs, expected, complaint", [
    ("accuracy", {}, [f"text {i}" for i in range(30)], r"f\.jsonl:21: .*21th different one of 30"),
    ("macro_f1", {}, [f"text {i}" for i in range(30)], "no labels. Use exact_match"),
    ("json_valid", {}, ["{}", "no"], r"f\.jsonl:2: .*'no' is no JSON"),
    ("json_fields", {}, ['{"a": 1}', "7"], r"f\.jsonl:2: .*'7' is no JSON with fields"),
    ("numeric_match", {}, ["1", "one"], r"f\.jsonl:2: no number in the expected answer 'one'"),
    ("regex_match", {"pattern": "<(.*)>"}, ["<a>", "a"], r"f\.jsonl:2: .*finds none in .*'a'"),
    ("bleu", {}, ["1 Jan 2024"], "no expected answer has 4 words.*Use chrf"),
    ("rouge2", {}, ["Paris", "Rome"], r"no expected answer has 2 word"),
    ("rouge1", {}, ["🎉", "!"], r"no expected answer has 1 word"),
])  # fmt: skip
def test_metric_that_does_not_fit(name, knobs, expected, complaint):
    found = {name: one(name, expected, **knobs)}
    sources = [f"f.jsonl:{i + 1}" for i in range(len(expected))]
    with pytest.raises(UserError, match=f"{name} does not fit the set dates: .*{complaint}"):
        metrics.check(found, "dates", expected, sources)


def test_metrics_that_fit_and_a_set_without_rows():
    expected = [label for label in "abcdef" for _ in range(5)]
    found = metrics.of(config_of("accuracy,macro_f1,micro_f1,exact_match"), expected)
    metrics.check(found, "test", expected, expected)
    with pytest.raises(UserError, match="the set test has no rows"):
        metrics.check(found, "test", [], [])


def test_korean_bleu_says_what_to_install(monkeypatch):
    def missing(**options):
        raise RuntimeError("not installed")

    monkeypatch.setattr(bleu, "BLEU", missing)
    with pytest.raises(UserError, match=r"ko-mecab.*pip install 'sacrebleu\[ko\]', or use chrf"):
        one("bleu", ["안녕하세요 세계"])


@pytest.mark.parametrize("values, complaint", [
    ({"metrics": "exact_mach"}, r"'exact_mach' is neither.*Did you mean 'exact_match'"),
    ({"metrics": ""}, "'' is neither"),
    ({"metrics": "bleu,,chrf"}, "'' is neither"),
    ({"metrics": "bleu,bleu"}, "two results would be called 'bleu'"),
    ({"metrics": "m.py:loss"}, "two results would be called 'loss'"),
    ({"metrics": "a.py:f,b.py:f"}, "two results would be called 'f'"),
    ({"metrics": "m.txt:f"}, "neither FILE.py:NAME"),
    ({"metrics": "regex_match"}, "regex_match needs config.eval.pattern"),
    ({"metrics": "regex_match", "pattern": "("}, r"config\.eval\.pattern = '\(': missing"),
    ({"language": "jp"}, r"config\.eval\.language = 'jp'"),
    ({"tolerance": -0.1}, r"config\.eval\.tolerance = -0\.1: expected 0 or more"),
    ({"resamples": 10}, "expected 100 or more"),
])  # fmt: skip
def test_bad_configuration(values, complaint):
    with pytest.raises(UserError, match=complaint):
        config_of(values.pop("metrics", "exact_match"), **values)


def test_metrics_are_values():
    with pytest.raises(dataclasses.FrozenInstanceError):
        metrics.LIKELIHOOD["loss"].better = "higher"
