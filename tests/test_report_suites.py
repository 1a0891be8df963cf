"""Behaviour suites in the report of a run."""

import pytest
from run_directory import make_run, write_json
from suite_results import result_of, suite_of
from test_report import parse

from sft.errors import UserError
from sft.eval.suites import compare
from sft.eval.suites.cases import Verdict
from sft.report import html, suites, terminal
from sft.report.load import load_run

KINDS = ["success"] * 12 + ["failure"] * 12 + ["boundary"]
BEFORE, AFTER = "y" * 12 + "x" * 12 + "x", "x" * 11 + "y" + "y" * 10 + "xx" + "y"


@pytest.fixture
def workdir(tmp_path):
    return make_run(tmp_path / "run")


def keep(workdir, *results):
    for result in results:
        write_json(compare.path_of(workdir, result["arm"], result["suite"]), result)


def letters(tmp_path):
    rows = [{"kind": kind, "expect": {"equals": "x"}, "note": "a <b>"} for kind in KINDS]
    return suite_of(tmp_path, rows, {"description": "letters & more"})


def test_rates_by_kind_beside_the_base(workdir, tmp_path):
    suite = letters(tmp_path)
    keep(workdir, result_of(suite, BEFORE, "base"), result_of(suite, AFTER, "best"))
    run = load_run(workdir)
    assert run.sets == ["test", "test_held_out"]  # a suite is no set
    (found,) = suites.of_run(run)
    assert [rate.change.verdict for rate in found.rates] == ["better", "worse", "unclear"]
    assert (len(found.failing), found.broken, found.unpaired) == (12, 11, 0)
    text = terminal.render(run)
    assert "suite toy: 12 cases fail, 11 of them passed before tuning" in text
    assert "success 0 of 12 → 11 of 12 (+91.7 points, 95 % interval " in text
    (warning,) = suites.warnings([found])
    assert warning.startswith("Suite toy: failure 12 of 12 → 2 of 12 (-83.3 points") and (
        "McNemar's exact p = 0.0020: worse" in warning
    )


def test_the_page_shows_every_failing_case(workdir, tmp_path):
    suite = letters(tmp_path)
    keep(workdir, result_of(suite, BEFORE, "base"), result_of(suite, AFTER, "best"))
    page = html.render(load_run(workdir))
    section = page[page.index("Behaviour: suite toy") : page.index("<h2>Training</h2>")]
    ids = [row["id"] for row in suites.of_run(load_run(workdir))[0].failing]
    places = [section.index(f"<code>{name}</code>") for name in ids]
    assert places == sorted(places) and ids[0] == "c12" and ids[-1] == "c11"
    assert section.count('<div class="sample">') == 12
    assert "12 failing cases of the tuned model, first the 11 that the base model passes" in section
    assert "letters &amp; more" in section and "a &lt;b&gt;" in section and "<b>" not in section
    assert "11 of 12 (91.7 %)" in section
    assert "12 → 2" not in section and "Suite toy: failure 12 of 12 → 2 of 12" in page
    assert "Behaviour: suite toy" in parse(page).text


def test_with_the_base_model_alone_its_failures_are_shown(workdir, tmp_path):
    keep(workdir, result_of(letters(tmp_path), BEFORE, "base"))
    (found,) = suites.of_run(load_run(workdir))
    assert found.arm == "base" and len(found.failing) == 12
    assert all(rate.tuned is None and rate.change is None for rate in found.rates)
    page = html.render(load_run(workdir))
    assert "12 failing cases of the base model</summary>" in page
    assert "success 0 of 12\n" in terminal.render(load_run(workdir))


def test_cases_that_have_changed_and_cases_without_a_verdict(workdir, tmp_path):
    rows = [{"expect": {"judge": "good"}}] * 3

    def result(suite, arm, *verdicts):
        said = [Verdict(passed, "why") for passed in verdicts]
        return result_of(suite, ["x"] * 3, arm, lambda _: said)

    before = result(suite_of(tmp_path, rows), "base", True, None, True)
    rows = [*rows[:2], {"expect": {"judge": "very good"}}]
    keep(workdir, before, result(suite_of(tmp_path, rows), "best", True, True, None))
    (found,) = suites.of_run(load_run(workdir))
    assert found.unpaired == 1 and found.failing == ()
    (rate,) = found.rates
    assert rate.sentence.startswith("success 2 of 2, 1 undecided → 2 of 2, 1 undecided (+0.0")
    page = html.render(load_run(workdir))
    assert "1 cases have changed" not in page and "1 case has changed" in page
    assert "Every decided case passes." in page


def test_a_damaged_result_is_named_with_the_remedy(workdir, tmp_path):
    result = result_of(letters(tmp_path), BEFORE, "base")
    keep(workdir, {key: value for key, value in result.items() if key != "kinds"} | {"suite": "x"})
    remedy = r"`sft eval suite --workdir=\S+ --checkpoint=base`"
    with pytest.raises(
        UserError, match=rf"base\.suite\.x\.json: field 'kinds' is missing.*{remedy}"
    ):
        load_run(workdir)
