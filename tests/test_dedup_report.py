"""The report of a plan: what it holds, that it escapes, and that it says what is blind."""

import dataclasses
import json

import pytest
from test_audit_report import Tags
from test_dedup_leakage import letters, made, noise
from test_dedup_plan import corpus, pair
from test_tokenizer import tiny

from sft.data.dedup.build import CODES, build
from sft.data.dedup.options import Options
from sft.report.audit import dedup

EVIL = '<script>alert("x")</script>'


def described(train, held, options=None):
    return dedup.describe(build(*train, held, options), *train, held, tiny().decode)


def test_what_was_dropped_stands_beside_its_reason():
    train, held = corpus()
    found = described(train, held)
    shown = {group["code"]: group["shown"][0] for group in found["pairs"]}
    assert [group["rows"] for group in found["pairs"]] == [1, 1, 1, 1]
    assert shown["exact"]["left"]["source"] == "a.jsonl:3"
    assert shown["exact"]["right"]["source"] == "a.jsonl:1"
    assert shown["leak_prompt"]["right"]["set"] == "validation"
    assert letters(30, 905) in shown["leak_prompt"]["right"]["text"]
    assert found["clusters"][0]["rows"] == 2 and found["clusters"][0]["others"] == ["a.jsonl:3"]
    (span,) = found["spans"]
    assert span["source"] == "a.jsonl:7" and span["right"]["source"] == "a.jsonl:6"
    assert letters(80, 907) in span["text"] and noise(74, 99)[-9:] in span["before"]
    assert found["masked_tokens"] == span["tokens"] >= 80
    assert json.loads(json.dumps(found)) == found


def test_terminal_lines_and_page_hold_the_numbers():
    train, held = corpus()
    found = described(train, held)
    lines = dedup.terminal(found)
    assert lines[0].startswith("deduplication: 5 of 9 rows stay; ")
    assert "1 same as an earlier row; 1 near-duplicate" in lines[1]
    assert f"{found['masked_tokens']} trained tokens masked" in lines[2]
    assert "validation: 1 of 1 row (100 %) given away by 1 row, dropped from training." in lines[-1]
    page = dedup.html(found)
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and {"table", "mark", "details"} <= tags.seen
    for text in (letters(30, 905), CODES["substring"], "a.jsonl:7", "5 of 9 rows stay"):
        assert text in page


@pytest.mark.parametrize("policy", ["report", "error"])
def test_leaks_that_stay_are_said_to_stay(policy):
    train, held = corpus()
    found = described(train, held, Options(leakage=policy))
    assert [group["code"] for group in found["leaks"]] == ["leak_prompt"]
    assert "still in training" in dedup.terminal(found)[-1]
    assert "1 row, still in training" in dedup.html(found)


def test_no_leak_is_said_with_what_cannot_be_seen():
    found = described(made(pair(1)), {"test": made(pair(2))})
    assert dedup.terminal(found)[-1].endswith("in other words is not found.")
    assert "no training row gives away" in dedup.html(found)
    bare = described(made(pair(1)), {})
    assert len(dedup.terminal(bare)) == 1 and "Leaks" not in dedup.html(bare)


def test_validation_rows_that_test_has_too():
    held = {"validation": made(pair(3), pair(4)), "dates": made(pair(4))}
    found = described(made(pair(1)), held)
    assert (
        "1 row of validation (50 %) is in dates too: the epoch would be chosen on"
        in dedup.terminal(found)[-1]
    )
    (shown,) = found["leakage"]["shown"]
    assert shown["left"]["source"] == "a.jsonl:2" and shown["right"]["set"] == "dates"
    assert "is in dates too" in dedup.html(found)


def test_templates_are_listed_with_text_and_count():
    form = letters(70, 950)
    train = made(*((noise(i, 90), f"{form}.{noise(i + 500, 90)}") for i in range(110)))
    found = described(train, {}, Options(near=0))
    (listed,) = found["templates"]
    assert listed["rows"] == 110 and form in listed["text"] and listed["origin"] == "a"
    assert form in dedup.html(found) and dedup.terminal(found)[-1].endswith("report: 1")


def test_texts_are_escaped():
    rows = [(f"{EVIL} {noise(1, 99)}", noise(2, 99)), (f"{EVIL} {noise(1, 99)}", noise(2, 99))]
    train = made(*rows, pair(5))
    evil = [dataclasses.replace(c, origin=EVIL, source=EVIL) for c in train[0]]
    page = dedup.html(described((evil, train[1]), {"validation": made(rows[0])}))
    assert EVIL not in page and "&lt;script&gt;" in page
