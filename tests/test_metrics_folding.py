"""Normalised exact match drops and keeps what its docstring says."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.eval.metrics.folding import casefolded, normalised


@pytest.mark.parametrize("one, other", [
    ("Paris\u200b", "paris"),  # invisible
    ("\ufeffYes", "yes"),
    ("❤\ufe0f", "❤"),
    ("so\u00adup", "soup"),
    ("می\u200cخواهم", "میخواهم"),
    ("\u200b", ""),
    ("“Paris”", "Paris"),  # quotes and brackets
    ("«Paris»", "'paris'"),
    ("(5)", "5"),
    ("don’t", "don't"),
    ("foo_bar", "foobar"),
    ("a.\u0301", "á"),  # composed once nothing is between
    ("é-5", "é5"),
    ("A-4", "a4"),
    ("–5", "-5"),  # dashes before a number are one sign
    ("−5", "-5"),
    ("‐5", "-5"),
    ("10²", "10^2"),
    ("½", "1/2"),
    ("2½", "2 1/2"),
    ("m²", "M2"),
    ("5\u00a0%", "5 %"),
    ("“5”", "5"),
    ('5"', "5"),
    ("a — b", "a  b"),
    ("U.S.A.", "usa"),
    ("50 km/h", "50 kmh"),
    ("ΣΑΣ", "σας"),
    ("ﬁ", "FI"),
    ("…", "..."),
])  # fmt: skip
def test_the_same(one, other):
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize("one, other", [
    ("10²", "102"),
    ("10₂", "102"),
    ("10₂", "10²"),
    ("2½", "21/2"),
    ("1...2", "12"),
    ("5--3", "53"),
    ("(1)-2", "12"),
    ("1_000", "1000"),
    ("10:30", "1030"),
    ("–5", "5"),
    ("約-5", "約5"),
    (".5", "5"),
    ("5٪", "5"),
    ("%5", "5"),
    ("5‱", "5"),
    ("5‰", "5%"),
    ("5′", "5″"),
    ("5′", "5"),
    ("C++", "C"),  # symbols are not punctuation
    ("$5", "5"),
    ("~5", "5"),
    ("20 °C", "20 C"),
    ("`x`", "x"),
    ("!", "?"),
    ("«", "»"),
    ("e", "é"),
])  # fmt: skip
def test_not_the_same(one, other):
    assert normalised(one) != normalised(other)


texts = st.text(
    st.characters(codec="utf-8") | st.sampled_from("5½²₂.,-–'′%٪_\u200b\u0301Ａß "), max_size=12
)


@given(texts)
def test_once_is_enough(text):
    assert normalised(normalised(text)) == normalised(text)


@given(texts)
def test_punctuation_is_left_out_but_for_that_of_numbers(text):
    found = normalised(text)
    digits = any(char.isdigit() or unicodedata.numeric(char, None) is not None for char in text)
    if not digits and any(unicodedata.category(c)[0] not in "PZC" for c in casefolded(text)):
        assert not any(unicodedata.category(char).startswith("P") for char in found)
    assert found == " ".join(found.split())
