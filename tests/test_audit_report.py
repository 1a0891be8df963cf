"""The whole report: every warning has its cause, and both renderings hold what matters."""

import dataclasses
import html.parser
import json
import re

import numpy as np
import pytest
from test_audit import conversation, make_set, pairs
from test_audit_skew import rows
from test_tokenizer import tiny

from sft.data import audit
from sft.data.audit import findings
from sft.data.read.records import Records
from sft.report.audit import page as audit_page
from sft.report.audit import terminal as audit_terminal

LENGTH = 200


def examine(train, production=None, policy="drop", length=LENGTH, form=None, **others):
    sets = {
        name: found if isinstance(found, audit.Set) else make_set(found)
        for name, found in {"train": train, **others}.items()
    }
    return audit.examine(
        sets,
        Records(production) if production is not None else None,
        tokenizer=tiny(),
        max_length=length,
        eval_max_length=length,
        policy=policy,
        form=form,
    )


def clean(count=120, seed=0):
    """Rows without anything to warn of."""
    return [
        dataclasses.replace(row, source=f"a.jsonl:{i + 1}")
        for i, row in enumerate(rows(count, seed))
    ]


def severity(report, *words):
    """Of the one warning that holds all ``words``, which also has a remedy."""
    found = [w for w in report["warnings"] if all(word in w["text"] for word in words)]
    assert len(found) == 1 and found[0]["remedy"].endswith((".", "visible text"))
    return found[0]["severity"]


def test_nothing_is_said_of_clean_sets():
    report = examine(clean(), validation=clean(60, 1), production=clean(60, 2))
    assert report["warnings"] == []
    assert [pair["differs"] for pair in report["skew"]] == [0, 0]
    assert "no errors, no warnings, no notes" in audit_terminal.render(report)


@pytest.mark.parametrize(
    ("row", "word", "expected"),
    [
        (("<start_of_turn>user\nhi", "ok"), "'<start_of_turn>'", "warning"),
        (("user\nhi there", "ok"), "name of their role", "warning"),
        (("hi there", " ok\n"), "white space", "note"),
        (("Example 1: a b\nExample 2: c d\ne", "f"), "worked examples", "note"),
    ],
)
def test_a_row_wrongly_prepared_is_named(row, word, expected):
    report = examine([*clean(), conversation(*row, source="a.jsonl:121")], validation=clean(60, 1))
    assert severity(report, word, "a.jsonl:121") == expected
    assert len(report["warnings"]) == 1


def test_reading_is_reported():
    one = make_set(
        clean(),
        rejected=[("a.jsonl:200", "empty text: output_text has no visible text")],
        counts={"empty text": 1},
        repaired={"leading_model": 2},
        unread={"id": 120, "date": 3},
    )
    report = examine(one, validation=clean(60, 1))
    assert severity(report, "train: 1 of 121 rows rejected: empty text.") == "warning"
    assert severity(report, "leading_model in 2 rows") == "note"
    assert severity(report, "not read: id, date.") == "note"
    page = audit_page.render(report)
    assert "a.jsonl:200: empty text: output_text has no visible text" in page


def test_sizes():
    assert severity(examine(clean(19), validation=clean(60, 1)), "train: 19 rows.") == "warning"
    assert severity(examine(clean(99), validation=clean(60, 1)), "train: 99 rows.") == "note"
    report = examine(clean(), validation=clean(5, 1))
    assert severity(report, "validation: 5 rows, too few") == "warning"
    assert severity(report, "cannot be told") == "note"
    assert severity(examine(clean()), "no validation set") == "warning"


def test_long_rows_and_what_the_policy_loses():
    many = [*clean(), conversation("hi", "a " * 200, source="a.jsonl:121")]
    for policy, expected in (("drop", "error"), ("truncate_response", "warning")):
        report = examine(many, validation=clean(60, 1), policy=policy)
        assert severity(report, "1 row (0.8 %) longer than data.max_length = 200") == expected
    assert severity(report, "trained answers have no trained end") == "warning"
    report = examine(clean(), validation=many)
    assert severity(report, "validation: 1 row", "rows for evaluation are never cut") == "error"
    long_prompt = [*clean(), conversation("a " * 200, "b c", source="a.jsonl:121")]
    report = examine(long_prompt, validation=clean(60, 1), policy="truncate_prompt_left")
    assert severity(report, "longer than data.max_length", "loses 0 trained") == "warning"


def test_masks_that_cannot_train():
    one = make_set(clean())
    kinds = one.examples.kinds.copy()
    kinds[: one.examples.starts[1]] = 0
    tokens = one.examples.tokens.copy()
    tokens[one.examples.starts[2] + 1] = tiny().bos_id
    broken = dataclasses.replace(one.examples, kinds=kinds, tokens=tokens)
    report = examine(dataclasses.replace(one, examples=broken), validation=clean(60, 1))
    assert severity(report, "1 row without a trained token", "a.jsonl:1.") == "error"
    assert severity(report, "1 row without exactly one <bos>", "a.jsonl:3.") == "error"


def test_answers_that_teach_little():
    same = [conversation(row.turns[0].text, "yes") for row in clean()]
    report = examine(same, validation=same[:60])
    assert severity(report, "train: 100 % of the answers are 'yes'.") == "error"
    assert severity(report, "rows word for word in both train and validation.") == "error"
    report = examine([*clean(), *pairs(("p", "1"), ("p", "2"))], validation=clean(60, 1))
    assert severity(report, "1 prompts have several different answers (2 rows") == "warning"


def test_labels_that_a_set_lacks():
    def labelled(count, names, seed):
        chosen = np.random.default_rng(seed).choice(names, count)
        asked = clean(count, seed)
        return [conversation(a.turns[0].text, b) for a, b in zip(asked, chosen, strict=True)]

    report = examine(
        labelled(200, ["yes", "no", "may be"], 0),
        validation=labelled(60, ["yes", "no"], 1),
        test=labelled(60, ["yes", "no", "may be", "never"], 2),
    )
    assert severity(report, "validation lacks 1 of train's answers: may be.") == "warning"
    assert severity(report, "test has answers that train never gives: never.") == "error"
    assert "always saying" in audit_terminal.render(report)
    assert "Labels" in audit_page.render(report)


def test_skew_of_production_comes_with_what_to_do():
    shouted = [conversation(row.turns[0].text.upper() + "?") for row in clean(60, 2)]
    system = [dataclasses.replace(row, system="Answer well.") for row in clean()]
    report = examine(system, validation=system[:0] + clean(60, 1), production=shouted)
    assert severity(report, "production differs from train") == "warning"
    text = audit_terminal.render(report)
    assert "system instruction present (train 100 %, production 0 %)" in text
    assert "question mark at the end" in audit_page.render(report)


class Tags(html.parser.HTMLParser):
    """Checks that tags close in order; collects names."""

    VOID = ("meta", "br")

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_escapes():
    evil = '<script>alert("x")</script>'
    many = [dataclasses.replace(row, system=evil, origin=evil) for row in clean()]
    page = audit_page.render(examine(many, validation=clean(60, 1), production=clean(40, 2)))
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and {"svg", "table", "rect"} <= tags.seen
    assert not {"script", "link", "img", "iframe"} & tags.seen
    assert evil not in page and "&lt;script&gt;" in page
    assert not re.search(r"https?://|url\(|@import", page)


def test_the_report_is_plain_and_the_same_every_time():
    made = [examine(clean(), validation=clean(60, 1), production=clean(40, 2)) for _ in range(2)]
    assert json.loads(json.dumps(made[0])) == made[0] == made[1]
    assert audit_page.render(made[0]) == audit_page.render(made[1])
    assert list(made[0]) == ["sets", "skew", "labels", "shared", "production", "warnings"]


def test_the_terminal_shows_the_worst_last_and_little():
    bad = [*clean(30), *pairs(*(("user\n<bos>", " x "),) * 40, *(("p", "y"), ("p", "z")))]
    text = audit_terminal.render(examine(bad, validation=bad[:10], test=bad[5:], production=bad))
    lines = text.splitlines()
    assert len(lines) <= 45
    assert lines.index(next(line for line in lines if "errors" in line)) > 15
    assert "more in the report" in lines[-1]


def test_severities_come_in_order():
    report = examine(pairs(*(("user\nhi", " ok"),) * 25), validation=clean(5))
    order = [findings.SEVERITIES.index(w["severity"]) for w in report["warnings"]]
    assert order == sorted(order) and len(set(order)) > 1
