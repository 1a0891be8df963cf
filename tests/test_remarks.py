"""Texts that are used though they are suspicious: reported with a count and the first place."""

import pytest
from test_files import write
from test_tokenizer import gemma3, tiny_pieces

from sft.data import audit
from sft.data.audit import findings
from sft.data.batches.examples import encode_all
from sft.data.conversation import Reading
from sft.data.read import records
from sft.data.read.records import Source
from sft.data.read.schemas import parse
from sft.data.tokenizer import sentencepiece


def tiny() -> sentencepiece.Tokenizer:
    return sentencepiece.Tokenizer(sentencepiece._model_proto(tiny_pieces()))


def remarks(row, **reading) -> list[str]:
    return [remark.text for remark in parse(row, "x:1", Reading(**reading))[1].remarks]


def pair(prompt="a", answer="b", **more):
    return {"input_text": prompt, "output_text": answer, **more}


SPACE_ANSWER = "answers hold '\u2581' (U+2581), which the tokenizer takes for a space"
SPACE_PROMPT = "prompts hold '\u2581' (U+2581), which the tokenizer takes for a space"


def test_the_tokenizer_gives_every_character_back_but_one():
    real = gemma3()
    codes = (*range(0xD800), *range(0xE000, 0x10000), *range(0x10000, 0x110000, 31))
    letters = [chr(code) for code in codes if code != 0x2581]
    for start in range(0, len(letters), 5000):
        text = "x".join(letters[start : start + 5000])
        assert real.decode(real.encode(text)) == text
    assert real.decode(real.encode("a\u2581b")) == "a b"


def test_the_character_that_the_tokenizer_takes_for_a_space():
    assert remarks(pair(answer="a\u2581b")) == [SPACE_ANSWER]
    assert remarks(pair("a\u2581b")) == [SPACE_PROMPT]
    assert remarks(pair(s="\u2581x"), system="s") == [SPACE_PROMPT]
    assert remarks(pair(), template="\u2581{prompt}") == [SPACE_PROMPT]
    turns = [{"from": who, "value": f"\u2581{who}"} for who in ("human", "gpt")]
    assert sorted(remarks({"conversations": turns})) == [SPACE_ANSWER, SPACE_PROMPT]
    assert remarks(pair("a\u2582b", "_")) == []


@pytest.mark.parametrize("word", ["nan", "NaN", "NaT", "None", "null", "NULL", "<NA>"])
def test_words_that_stand_for_missing_values(word):
    answer = "answers are 'nan', 'None' or the like, as str() writes a missing value"
    prompt = "prompts end with 'nan', 'None' or the like, as str() writes a missing value"
    key = "groups or categories are 'nan', 'None' or the like, as str() writes a missing value"
    for text in (word, f" {word}\n"):
        assert remarks(pair(answer=text)) == [answer]
        assert remarks(pair(text)) == [prompt]
    for text in (f"Translate {word}", f"Translate:\n\n{word} \n", "x " * 99 + word):
        assert remarks(pair(text)) == [prompt]
        assert remarks(pair(answer=text)) == []
    assert remarks(pair(x=word), template="{prompt} {x}") == [prompt]
    assert remarks(pair(x=word), group="x") == remarks(pair(x=word), category="x") == [key]
    for text in (f"{word}.", f"x{word}", f"{word} x", f"({word})", "nonane", "Nones"):
        assert remarks(pair(text, text)) == []


def test_whole_numbers_with_a_point():
    text = "answers are whole numbers with '.0', as pandas writes them where another row has none"
    for answer in (1.0, -3.0, "0.0", " 12.0\n"):
        assert remarks(pair(answer=answer)) == [text]
        assert remarks(pair(answer)) == []
    for answer in (1, 0.5, "1.00", "v1.0", ".0", "1.0.0", "about 1.0"):
        assert remarks(pair(answer=answer)) == []


def test_the_audit_shows_them_with_a_count_and_the_first(tmp_path):
    rows = [pair(answer="b"), *[pair(f"q {n}", "None") for n in range(7)], pair("a\u2581b")]
    (tmp_path / "empty.jsonl").write_text("")
    path = write(tmp_path / "a.jsonl", rows)
    read = records.read([Source("", f"{path},{tmp_path}/empty.jsonl")])
    counted = audit.count([path], read, encode_all(read.conversations, tiny(), "gemma3"))
    assert len(counted["remarks"]) == 3
    assert counted["remarks"][0] == {
        "severity": "warning",
        "text": "answers are 'nan', 'None' or the like, as str() writes a missing value",
        "remedy": counted["remarks"][0]["remedy"],
        "unit": "row",
        "count": 7,
        "first": [f"{path}:{line}" for line in range(2, 7)],
    }
    shown = [finding["text"] for finding in findings.of_reading("train", counted)]
    assert shown == [
        "train: answers are 'nan', 'None' or the like, as str() writes a missing value: 7 rows; "
        f"the first is {path}:2.",
        f"train: {SPACE_PROMPT}: 1 row; the first is {path}:9.",
        f"train: files have no rows: {tmp_path}/empty.jsonl.",
    ]
