"""The pages with all answers: which are on them, in which order, and how they are filtered."""

import json
import re

import pytest
from run_directory import make_run, write_json, write_lines
from test_report import parse

from sft.commands.report import main
from sft.report import answers, compare, html, load


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def edited(path, change):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_lines(path, [change(i, row) for i, row in enumerate(rows)])


def test_every_answer_is_there_the_wrong_ones_first(run):
    (page,) = answers.of_run(load.load_run(run))["test"]
    assert page.labels == ["base", "tuned (best)"] and page.total == len(page.prompts) == 90
    kinds = [tuple(one.is_right for one in prompt.answers) for prompt in page.prompts]
    broken, wrong = kinds.count((True, False)), kinds.count((False, False))
    assert kinds[:broken] == [(True, False)] * broken and broken == 1
    assert kinds[broken : broken + wrong] == [(False, False)] * wrong and wrong == 10
    assert all(tuned for _, tuned in kinds[broken + wrong :])
    sources = [prompt.source for prompt in page.prompts[broken : broken + wrong]]
    numbers = [int(source.rpartition(":")[2]) for source in sources]
    assert numbers == sorted(numbers)  # of a kind in the order of the file


def test_the_report_leads_to_them(run, capsys):
    main([str(run)])
    report, page = run / "report.html", run / "report_files" / "answers-test.html"
    assert '<a href="report_files/answers-test.html#wrong">All 11 wrong answers' in (
        report.read_text()
    )
    assert "report_files/answers-test_held_out.html#wrong" in report.read_text()
    text = page.read_text()
    structure = parse(text)
    assert set(structure.outside) == {"../report.html", "answers-test_held_out.html"}
    assert text.count("<article") == 90 and text.count('1wrong"') + text.count("1wrong ") == 11
    assert "eval/best.test.predictions.jsonl" in text
    assert "src=" not in text and "url(http" not in text  # nothing is loaded
    # Without scripts there is a list, and no filter that does nothing.
    assert (
        re.search(r"<form[^>]* hidden>", text)
        and "hidden" not in text.split("<article", 1)[0][text.index("</form>") :]
    )


def test_what_was_cut_and_why_an_answer_is_wrong(run):
    def change(i, row):
        more = {
            "cut": i == 3,
            "error": None if row["correct"] else "cut" if i == 3 else "not_a_label",
        }
        return row | more

    edited(run / "eval" / "best.test.predictions.jsonl", change)
    (page,) = answers.of_run(load.load_run(run))["test"]
    found = {prompt.source: prompt.answers[1] for prompt in page.prompts}
    assert found["data/dates/test.jsonl:4"].is_cut
    assert found["data/dates/test.jsonl:12"].error == "not_a_label"
    text = html.render_answers({"test": [page]}, "../report.html")["answers-test.html"]
    assert ">cut</p>" in text and ">not a label</p>" in text and " 1cut " in text


def test_many_are_on_several_pages_and_the_rest_is_named(run, monkeypatch):
    monkeypatch.setattr(answers, "MOST", 20)
    monkeypatch.setattr(answers, "PAGES", 3)
    pages = answers.of_run(load.load_run(run))["test"]
    assert [page.file for page in pages] == [
        *("answers-test.html", "answers-test.2.html", "answers-test.3.html")
    ]
    assert [(page.first, len(page.prompts), page.left) for page in pages] == [
        *((1, 20, 30), (21, 20, 30), (41, 20, 30))
    ]
    texts = html.render_answers({"test": pages}, "../report.html")
    assert 'href="answers-test.3.html"' in texts["answers-test.html"]
    assert "Prompts 21 to 40 of 90" in texts["answers-test.2.html"]
    assert "The last 30 are on no page." in texts["answers-test.html"]


def test_a_prompt_that_stands_twice_is_there_twice(run):
    same = {"source": "x.jsonl:1", "prompt": "p", "expected": "e"}
    for arm in ("base", "best"):
        edited(run / "eval" / f"{arm}.test.predictions.jsonl", lambda i, row: row | same)
    (page,) = answers.of_run(load.load_run(run))["test"]
    assert page.total == 90 and all(len(prompt.answers) == 2 for prompt in page.prompts)


def test_sets_whose_names_make_one_file_name(run):
    for arm in ("base", "best"):
        for old, new in (("test", "a b"), ("test_held_out", "a?b")):
            path = run / "eval" / f"{arm}.{old}.json"
            write_json(
                run / "eval" / f"{arm}.{new}.json", json.loads(path.read_text()) | {"set": new}
            )
            path.unlink()
            rows = path.with_suffix(".predictions.jsonl")
            rows.rename(rows.with_name(f"{arm}.{new}.predictions.jsonl"))
    found = answers.of_run(load.load_run(run))
    assert {name: pages[0].file for name, pages in found.items()} == {
        "a b": "answers-a-b.html",
        "a?b": "answers-a-b-2.html",
    }


def test_hostile_answers_are_text(run):
    hostile = {
        "prompt": "</article><script>alert(1)</script>",
        "predicted": '"><img src=x onerror=y>',
    }
    edited(run / "eval" / "best.test.predictions.jsonl", lambda i, row: row | hostile)
    pages = answers.of_run(load.load_run(run))
    for text in html.render_answers(pages, "../report.html").values():
        parse(text)
        assert "<img" not in text and text.count("<script>") == 1


def test_compared_runs_have_them_too(run, tmp_path):
    other = make_run(tmp_path / "other")
    found = answers.of_comparison(compare.compare([load.load_run(run), load.load_run(other)]))
    (page,) = found["test"]
    assert page.labels == ["base", "run", "other"]
    assert str(other / "eval" / "best.test.predictions.jsonl") in page.files
