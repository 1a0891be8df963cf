"""The starter suite against the data that the quickstart trains on."""

import datetime
from pathlib import Path

import pytest
from test_quickstart_data import quickstart_data

from sft.eval.suites import read

ROOT = Path(__file__).parents[1]
SUITE = read.load(str(ROOT / "configs" / "suites" / "dates.yaml"))


@pytest.fixture(scope="module")
def rows():
    """Every row of every split, as the quickstart makes them."""
    splits = quickstart_data.build(quickstart_data.SPLITS, seed=0)
    return [row | {"split": name} for name, part in splits.items() for row in part]


def cases(kind):
    return [case for case in SUITE.cases if case.kind == kind]


def test_every_kind_has_enough_cases_to_tell():
    assert min(len(cases(kind)) for kind in ("success", "failure", "boundary")) >= 15
    assert {case.system for case in SUITE.cases} == {quickstart_data.INSTRUCTION}


def test_success_cases_are_written_as_the_data_is():
    unseen = 0
    for case in cases("success"):
        (check,) = case.checks
        day, text = datetime.date.fromisoformat(check.wanted), case.turns[0].text
        tag = text.partition(":")[0]
        seen, held_out = quickstart_data.formats_of(tag)
        texts = [
            {quickstart_data.render(day, tag, pattern) for pattern in formats.values()}
            for formats in (seen, held_out)
        ]
        assert text in texts[case.id.endswith("-unseen")], case.id
        unseen += case.id.endswith("-unseen")
    assert unseen >= 4


def test_no_row_of_any_split_has_the_answer_or_the_text_of_a_case(rows):
    days, texts = {row["day"] for row in rows}, {row["text"] for row in rows}
    for case in SUITE.cases:
        assert case.turns[0].text not in texts, case.id
    for case in cases("success"):
        assert case.checks[0].wanted not in days, case.id


def test_checks_of_failures_tell_a_date_from_words():
    for case in cases("failure"):
        faults = {check.name: check.fault for check in case.checks}
        assert faults["not_regex"]("2021-03-04") and faults["not_regex"]("Am 2021-3-4.")
        assert faults["not_regex"](case.turns[0].text) is None  # left alone
        for words in (
            "Not a date.",
            "That's not a valid date",
            "日付ではありません。",
            "I'm sorry.",
        ):
            assert [why for fault in faults.values() if (why := fault(words))] == [], words
        if "refuses" in faults:
            assert faults["refuses"](case.turns[0].text), case.id
    assert sum(any(c.name == "refuses" for c in case.checks) for case in cases("failure")) >= 5


def test_dates_at_the_boundary_are_what_the_calendars_say():
    wanted = {case.id: case.checks[0].wanted for case in cases("boundary")}
    calendars = {wanted[name] for name in wanted if name.startswith("calendar-")}
    assert calendars == {"2021-04-03"}
    assert datetime.date(2021, 4, 3).strftime("%A") == "Saturday"
    reiwa_began, roc_began = 2018, 1911  # years before the first
    assert (reiwa_began + 3, roc_began + 110, 2564 - 543) == (2021,) * 3
    nowruz_1400 = datetime.date(2021, 3, 21)
    assert nowruz_1400 + datetime.timedelta(13) == datetime.date(2021, 4, 3)
    passover_5781 = datetime.date(2021, 3, 28)  # 15 Nisan
    assert passover_5781 + datetime.timedelta(21 - 15) == datetime.date(2021, 4, 3)
