"""Numbers as people of many countries write them, and what is not read as one."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.config import default
from sft.errors import UserError
from sft.eval import metrics
from sft.eval.metrics import match, numbers

SPACES = " \u00a0\u202f\u2009\u2007\u3000"
GROUPS = [*SPACES, "'", "’", "ʼ", "_"]


@pytest.mark.parametrize("sign", GROUPS)
def test_groups_of_thousands(sign):
    assert numbers.last(f"20{sign}000 €") == 20_000
    assert numbers.last(f"Il y en a 1{sign}234{sign}567.") == 1_234_567
    assert numbers.last(f"−1{sign}234,5") == Decimal("-1234.5")
    assert numbers.last(f"1{sign}234.567") == Decimal("1234.567")
    # One separator for all groups, groups of three, and no zero before them.
    for text in (f"1{sign}23", f"1{sign}2345", f"0{sign}123", f"1234{sign}567", f"{sign}1{sign}"):
        assert numbers.last(text) == (1 if text[0] == sign else None), text
    assert numbers.last(f"1{sign}234{chr(39) if sign in SPACES else ' '}567") is None


@pytest.mark.parametrize("text, number", [
    ("12,34,567", "1234567"),
    ("1,00,000.5", "100000.5"),
    ("١٬٢٣٤٫٥", "1234.5"),
    ("１，２３４", "1234"),
    ("5\u200b000", "5000"),
    ("-\u200e5", "-5"),
    ("–5", "-5"),
    ("3–5", "5"),
    ("$-5", "-5"),
    ("−$1 234", "-1234"),
    ("約-5", "-5"),
    ("EUR20", "20"),
    ("5 kg of CO2", "5"),
    ("25 m²", "25"),
    ("25 m2", "25"),
    ("H₂O: 3", "3"),
    ("42 at 12:30", "42"),
    ("42 on 2024-01-05", "42"),
    ("42 on 1/2/2024", "42"),
    ("1, 2, 3", "3"),
    ("1. 234", "234"),
    ("2 × 10^3", "2000"),
    ("2.5 x 10^-3", "0.0025"),
    ("2·10³", "2000"),
    ("10⁻²", "0.01"),
    (r"$2 \times 10^{3}$", "2000"),
    (r"1{,}234", "1234"),
    (r"12\,345", "12345"),
    (r"50\%", "0.5"),
    ("%12", "0.12"),
    ("٥٪", "0.05"),
    ("5‰", "0.005"),
    ("2 millimetres", "2"),
    ("7 000.", "7000"),
])  # fmt: skip
def test_one_number(text, number):
    assert numbers.last(text) == Decimal(number)


@pytest.mark.parametrize("text, top, bottom", [
    ("½", 1, 2),
    ("2½", 5, 2),
    ("2 ½ cups", 5, 2),
    ("2 1/2", 5, 2),
    ("1/2", 1, 2),
    ("1⁄2", 1, 2),
    ("¹⁄₂", 1, 2),
    ("−⅓", -1, 3),
    ("-2¾", -11, 4),
    ("9/10", 9, 10),
    ("½ %", 1, 200),
    (r"\frac{1}{3}", 1, 3),
    (r"\dfrac{-2}{3}", -2, 3),
])  # fmt: skip
def test_fractions(text, top, bottom):
    assert numbers.last(text) == Fraction(top, bottom)


@pytest.mark.parametrize("text", [
    "1 2 3", "20 00 €", "2024 500", "20  000", "20\t000", "1,2,3", "1.234'567", "5²", "10₂", "2^10",
    "1920x1080", "3×4", "5'6", "1h30", "5-1/2", "2 5/2", "3/0", "1/-2", "±5", "+/-5", "1e99999",
    "2 million", "3 milliards", "5万円", "10k", "$10M", "5 тыс.", "12:30", "2024-01-05", "1/2/2024",
    "2024.01.05", "v1.2.3", "CO2", "A4", "五", "1.5/2",
])  # fmt: skip
def test_not_one_number(text):
    assert numbers.last(text) is None
    row, why = match.numeric_match(0.0).unfit(["3", text])
    digits = any(char.isdecimal() for char in text)
    assert row == 1 and repr(text) in why
    assert ("does not end in one number" if digits else "no number in the expected") in why


@pytest.mark.parametrize("texts, sign", [
    (["1,234"], "."),
    ([], "."),
    (["3.5", "1,234"], "."),
    (["1,234.5"], "."),
    (["1,234,567"], "."),
    (["3,5", "1.234"], ","),
    (["1.234,5"], ","),
    (["1.234.567"], ","),
    (["1 234,567"], ","),
    (["0,125"], ","),
    (["3,5", "3.5"], "?"),
])  # fmt: skip
def test_the_decimal_sign_of_a_set(texts, sign):
    assert numbers.convention(texts) == sign


def score(expected, predicted, language=""):
    config = default()
    config.eval.metrics, config.eval.language = "numeric_match", language
    metric = metrics.of(config, expected)["numeric_match"]
    return metric, [float(row[0]) for row in metric.statistics(predicted, expected)]


def test_what_could_be_either_is_as_the_set_writes_it():
    metric, scores = score(["3.5", "1,234", "1.234"], ["3,5", "1234", "1234"])
    assert scores == [1, 1, 0] and metric.signature == "tolerance:0|decimal:."
    metric, scores = score(["3,5", "1,234", "1.234"], ["3.5", "1234", "1234"])
    assert scores == [1, 0, 1] and metric.signature == "tolerance:0|decimal:,"
    # The prediction is read in the same way.
    assert score(["3,5", "1.234"], ["3,5", "1,234"])[1] == [1, 0]
    # In these languages the decimal sign is a point, whatever the set shows.
    assert score(["3,5", "1,234"], ["3,5", "1234"], "en")[1] == [1, 1]
    assert score(["約 3,5", "約 1,234"], ["3,5", "1234"])[1] == [1, 1]


def test_a_set_that_writes_both_is_refused_only_where_it_matters():
    fine, _ = score(["3,5", "3.5"], ["", ""])
    metrics.check({"numeric_match": fine}, "test", ["3,5", "3.5"], ["f:1", "f:2"])
    expected = ["3,5", "3.5", "1,234"]
    metric, scores = score(expected, ["3.5", "3,5", "1,234"])
    assert scores == [1, 1, 0]
    with pytest.raises(UserError, match=r"f:3: the number in .*'1,234'.*language=en") as error:
        metrics.check({"numeric_match": metric}, "test", expected, ["f:1", "f:2", "f:3"])
    assert "\n" not in str(error.value)
    # The remedy.
    metric, scores = score(expected, ["3.5", "3,5", "1234"], "en")
    metrics.check({"numeric_match": metric}, "test", expected, ["f:1", "f:2", "f:3"])
    assert scores == [1, 1, 1]


@pytest.mark.parametrize("predicted, expected", [
    ("20 000 €", "10 000 €"), ("5'000", "8'000"), ("½", "2"), ("⅓", "⅔"), ("25 m²", "30 m²"),
    ("2×10^3", "5×10^3"), (r"\frac{1}{3}", r"\frac{2}{3}"), ("12:30", "14:30"), ("3,5", "4,5"),
    ("2024-01-05", "2023-12-05"), ("1920x1080", "1920x1200"), ("2 million", "2 billion"),
    ("5'6", "6'6"), ("–5", "5"), ("1 234,5", "2 234,5"), ("10³", "103"), ("5 %", "5"),
])  # fmt: skip
def test_nothing_is_equal_by_accident(predicted, expected):
    metric = match.numeric_match(0.0)
    assert metric.statistics([predicted, expected], [expected, predicted])[:, 0].tolist() == [0, 0]


def test_fractions_are_compared_exactly():
    assert numbers.close(Fraction(1, 2), Decimal("0.5"), 0.0)
    assert not numbers.close(Decimal("0.3333"), Fraction(1, 3), 0.0)
    assert numbers.close(Decimal("0.3333"), Fraction(1, 3), 0.001)
    assert not numbers.close(Decimal("0.33"), Fraction(1, 3), 0.001)


@given(st.integers(-(10**12), 10**12), st.sampled_from([",", *GROUPS]))
def test_every_grouped_integer_is_read(value, sign):
    text = f"{value:,}".replace(",", sign)
    assert numbers.last(f"So it is {text}.", ".") == value
    assert numbers.last(f"{text} €", ".") == value


@given(st.text("0123456789.,' /-^e×10½²% k\u202f", max_size=12))
def test_any_text_is_read_or_not_and_equals_itself(text):
    found = numbers.last(text)
    assert numbers.last(f"So: {text}") == found or text[:1] in "-–"
    for sign in (numbers.COMMA, numbers.EITHER):
        assert isinstance(numbers.last(text, sign), Decimal | Fraction | None)


@pytest.mark.parametrize("text", [
    "9" * 50_000, "1 " * 20_000, "1,2" * 20_000, "²" * 50_000, "1²" * 20_000, "1:" * 20_000,
    "a" * 50_000 + "1", "1a" * 20_000, " " * 50_000 + "1", "/1" * 20_000,
])  # fmt: skip
@pytest.mark.timeout(20)
def test_long_texts_are_quick(text):
    numbers.last(text)
