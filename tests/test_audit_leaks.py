"""How bad it is that rows stand more than once, and how that is said."""

import pytest
from test_audit import make_set, pairs
from test_audit_report import clean, examine, severity
from test_dedup_leakage import letters, made, noise
from test_tokenizer import tiny

from sft.data.audit import leaks
from sft.data.dedup import normal, verdicts
from sft.data.dedup.build import build
from sft.data.dedup.options import Options
from sft.report.audit import dedup


@pytest.mark.parametrize(
    ("same", "similar", "expected"),
    [
        (0, 0, ""),
        (0, 0.001, "note"),
        (0, 0.01, "note"),
        (0, 0.02, "warning"),
        (0, 0.1, "warning"),
        (0, 0.2, "error"),
        (0.0001, 0, "warning"),
        (0.01, 0.1, "warning"),
        (0.011, 0, "error"),
        (0.5, 0, "error"),
    ],
)
def test_levels(same, similar, expected):
    assert leaks.level(same, similar) == expected


def described(train, held, policy="report", max_share=0.0):
    options = Options(leakage=policy, near=0, exact=False)
    found = dedup.describe(build(*train, held, options), *train, held, tiny().decode)
    found["leakage"]["max_share"] = max_share
    return found


def given_away(count, of, name="validation", **how):
    """The one finding when so many of the rows of a set are in training."""
    train = made(*((letters(30, i), noise(i, 30)) for i in range(count + 3)))
    held = made(*((letters(30, i), noise(5000 + i, 30)) for i in range(3, of + 3)))
    given = {"sets": {name: {"rows": of}}, "shared": []}
    return [*leaks.findings(given | {"dedup": described(train, {name: held}, **how)})]


@pytest.mark.parametrize("name", ["validation", "test", "dates"])
@pytest.mark.parametrize(
    ("count", "of", "expected"), [(30, 60, "error"), (1, 20, "error"), (1, 120, "warning")]
)
def test_leaks_of_every_evaluated_set_are_findings(count, of, expected, name):
    (found,) = given_away(count, of, name)
    assert found["severity"] == expected
    assert found["text"].startswith(f"{name}: {count} of {of} rows (")
    assert f"by {count} training row" in found["text"] and f"{count} by the same" in found["text"]
    assert ("it chooses the epoch" in found["remedy"]) == (name == "validation")


def test_what_was_dropped_is_a_note_and_what_is_refused_an_error():
    (found,) = given_away(1, 60, policy="drop")
    assert found["severity"] == "note" and "which are dropped" in found["text"]
    (found,) = given_away(1, 120, policy="error")
    assert found["severity"] == "error" and "refuses above data.leakage.max_share" in found["text"]
    (found,) = given_away(1, 120, policy="error", max_share=0.05)
    assert found["severity"] == "warning" and "refuses" not in found["text"]
    assert given_away(0, 60) == []


def test_validation_and_test_are_told_apart_from_what_is_only_similar():
    shared, asked = letters(60, 907), letters(30, 905)
    rows = [(noise(1, 90), noise(2, 90)), (asked, noise(3, 90))]
    rows += [(noise(4, 90), f"{noise(5, 99)}.{shared}"), (noise(6, 90), noise(7, 90))]
    other = [rows[0], (asked, noise(8, 90)), (noise(9, 90), f"{noise(10, 99)}.{shared}")]
    held = {"validation": made(*rows), "test": made(*other)}
    found = described(made((noise(11, 90), noise(12, 90))), held)
    kinds = {one["kind"]: one for one in found["leakage"]["crossed"]}
    assert [*kinds] == ["item", "same", "similar"]
    for one in kinds.values():
        assert one["rows"] == 1 and "1 row of validation (25 %)" in one["said"]
    assert "is in test too" in kinds["item"]["said"]
    assert not any("in test too" in kinds[kind]["said"] for kind in ("same", "similar"))
    assert "similar to rows of test" in kinds["similar"]["said"]
    given = {"sets": {"validation": {"rows": 4}}, "shared": [], "dedup": found}
    severities = [one["severity"] for one in leaks.findings(given)]
    assert severities == ["error", "error", "error"]
    assert verdicts.between([], 4) == []


def test_repeats_of_an_evaluated_set_are_counted():
    rows = clean(50, 1)
    repeated = [*rows, *rows[:1] * 26, *rows[1:25]]
    found = examine(clean(), validation=repeated)
    assert severity(found, "validation: 50 of 100 rows (50 %) repeat earlier ones") == "warning"
    assert severity(found, "50 are different", "a.jsonl:1, stands 27 times") == "warning"
    assert found["sets"]["validation"]["repeats"] == {
        **{"rows": 50, "distinct": 50, "most": 27, "first": "a.jsonl:1"}
    }
    assert found["sets"]["train"]["repeats"] is None
    assert severity(examine(clean(), validation=[*clean(150, 1), rows[0]]), "repeat") == "note"
    assert not [w for w in examine(clean(), validation=rows)["warnings"] if "repeat" in w["text"]]


def test_repeats_are_those_of_the_normal_form():
    shouted = make_set(pairs(("a b", "c"), ("A  B", "C"), ("a b.", "c")))
    for form, count in (
        (None, 0),
        (normal.Options(case=True), 1),
        (normal.Options(case=True, punctuation=True), 2),
    ):
        found = examine(clean(), validation=shouted, form=form)
        assert found["sets"]["validation"]["repeats"]["rows"] == count
