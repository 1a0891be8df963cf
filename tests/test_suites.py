"""Suites from a model's answers to what is reported: pass rates, comparison, stored results."""

import itertools
import json
import shutil
from typing import ClassVar

import pytest
import tiny_run
from scipy.stats import binomtest
from suite_results import result_of, suite_of

from sft import cli
from sft.config import default
from sft.errors import UserError
from sft.eval import harness, stats
from sft.eval.judge.backend import Reply
from sft.eval.suites import compare, judging, score
from sft.eval.suites.cases import Verdict
from sft.report import suite_terminal

shared, registered = tiny_run.shared, tiny_run.registered


def test_rows_say_which_check_failed_and_why(tmp_path):
    suite = suite_of(
        tmp_path, [{"expect": {"contains": "a", "not_regex": "z", "equals": "abc"}}] * 2
    )
    good, bad = score.rows(suite, ["abc", "xyz"])
    assert good["passed"] is True and good["failed"] == []
    assert bad["passed"] is False
    assert [fault["check"] for fault in bad["failed"]] == ["contains", "not_regex", "equals"]
    assert "'a' is not in the answer" in bad["failed"][0]["why"]
    assert (bad["answer"], bad["source"]) == ("xyz", f"{suite.path}:2")


def test_pass_rates_by_kind(tmp_path):
    kinds = ["success"] * 4 + ["failure"] * 2 + ["boundary"]
    suite = suite_of(tmp_path, [{"kind": kind, "expect": {"equals": "x"}} for kind in kinds])
    found = score.summary(score.rows(suite, list("xxxyxyy")))
    assert (found["count"], found["passed"], found["pass_rate"]) == (7, 4, 4 / 7)
    shares = {kind: (part["passed"], part["count"]) for kind, part in found["kinds"].items()}
    assert shares == {"success": (3, 4), "failure": (1, 2), "boundary": (0, 1)}
    for kind, (passed, count) in shares.items():
        own = binomtest(passed, count).proportion_ci(method="wilson")
        assert found["kinds"][kind]["interval"] == [own.low, own.high]


def test_a_judge_is_asked_only_about_what_passes_the_rules(tmp_path):
    criterion = {"judge": "is polite"}
    suite = suite_of(
        tmp_path,
        [{"expect": criterion}, {"expect": criterion | {"contains": "a"}}] * 2,
        {"system": "s"},
    )
    asked = []

    def judge(cases):
        asked.extend(cases)
        return [Verdict(True, "yes"), Verdict(False, "rude"), Verdict(None, "no verdict")]

    rows = score.rows(suite, ["x", "a", "y", "no"], judge)
    assert [(c.id, c.answer, c.criterion, c.system) for c in asked] == [
        ("c0", "x", "is polite", "s"),
        ("c1", "a", "is polite", "s"),
        ("c2", "y", "is polite", "s"),
    ]
    assert [row["passed"] for row in rows] == [True, False, None, False]
    assert rows[1]["failed"] == [{"check": "judge", "why": "rude"}]
    assert rows[3]["failed"][0]["check"] == "contains"
    found = score.summary(rows)
    assert (found["count"], found["undecided"], found["pass_rate"]) == (4, 1, 1 / 3)
    assert score.summary(rows[2:3])["interval"] is None
    assert score.first_criterion([suite]) is suite.cases[0]


def test_the_judge_of_the_configuration_decides_and_its_replies_are_kept(tmp_path, monkeypatch):
    """What is sent is the prompt, the answer and the criterion; the cache is asked first."""
    suite = suite_of(tmp_path, [{"expect": {"judge": "is polite"}}] * 2, {"system": "s"})
    sent = []

    class Backend:
        identity: ClassVar = {"model": "stub"}

        def ask(self, prompts, on_reply):
            for i, prompt in enumerate(prompts):
                sent.append(prompt)
                passed = "true" if "fine" in prompt else "false"
                on_reply(i, Reply(f'{{"reason": "so", "pass": {passed}}}', 1, 1))

        def count(self, prompts):
            return len(prompts)

    monkeypatch.setattr(judging.judging, "make", lambda config: Backend())
    for _ in range(2):
        rows = score.rows(suite, ["fine", "rude"], judging.by_model(default(), str(tmp_path)))
        assert [row["passed"] for row in rows] == [True, False]
        assert rows[1]["failed"] == [{"check": "judge", "why": "so"}]
    assert len(sent) == 2 and all(
        "is polite" in prompt and "system: s" in prompt for prompt in sent
    )


def test_comparison_by_brute_force(tmp_path):
    """Patterns of passing before and after, over three cases of each kind."""
    kinds = ["success", "failure", "boundary"] * 3
    suite = suite_of(tmp_path, [{"kind": kind, "expect": {"equals": "x"}} for kind in kinds])
    for seed, pattern in enumerate(list(itertools.product("xy", repeat=6))[::3]):
        before = list("".join(pattern[:3]) * 3)
        after = [pattern[3 + (i * (seed + 1)) % 3] for i in range(9)]
        found = compare.compare(result_of(suite, before, "base"), result_of(suite, after, "best"))
        ids = {
            (old, new): {f"c{i}" for i in range(9) if (before[i], after[i]) == (old, new)}
            for old in "xy"
            for new in "xy"
        }
        assert {row["id"] for row in found.fixed} == ids["y", "x"]
        states = {row["id"]: row["state"] for row in found.failing}
        expected = dict.fromkeys(ids["x", "y"], "broken") | dict.fromkeys(
            ids["y", "y"], "still failing"
        )
        assert states == expected
        assert [s for s in states.values()] == sorted(states.values())  # the broken ones first
        for change in found.changes:
            mine = [i for i in range(9) if kinds[i] == change.kind]
            a, b = ([said[i] == "x" for i in mine] for said in (before, after))
            assert (change.count, change.before, change.after) == (3, sum(a), sum(b))
            assert change.p == stats.mcnemar(a, b)
            numbers = (change.difference, change.low, change.high)
            assert numbers == stats.paired_difference(a, b)
            mine = {f"c{i}" for i in mine}
            assert set(change.fixed) == ids["y", "x"] & mine
            assert set(change.broken) == ids["x", "y"] & mine


def test_cases_that_changed_are_not_compared(tmp_path):
    rows = [{"expect": {"equals": "x"}}] * 3
    before = result_of(suite_of(tmp_path, rows), ["x", "x", "y"], "base")
    changed = [rows[0], {"expect": {"equals": "y"}}, rows[2], rows[2]]
    suite = suite_of(tmp_path, changed)
    found = compare.compare(before, result_of(suite, ["x", "x", "x", "y"], "best"))
    assert found.unpaired == ("c1", "c3")
    assert [(c.count, c.before, c.after) for c in found.changes] == [(2, 1, 2)]
    assert [(row["id"], row["state"]) for row in found.failing] == [("c1", "new"), ("c3", "new")]


def test_undecided_cases_are_neither_fixed_nor_broken(tmp_path):
    suite = suite_of(tmp_path, [{"expect": {"judge": "good"}}] * 4)

    def result(arm, *verdicts):
        return result_of(suite, ["x"] * 4, arm, lambda _: [Verdict(v, "w") for v in verdicts])

    before = result("base", True, None, False, None)
    found = compare.compare(before, result("best", None, True, None, False))
    assert found.changes == () and found.fixed == () and found.unpaired == ()
    assert [(row["id"], row["state"]) for row in found.failing] == [("c3", "new")]


def test_the_terminal_shows_a_table_and_where_the_rest_is(tmp_path):
    suite = suite_of(tmp_path, [{"expect": {"equals": "x"}}] * 30)
    before, after = (result_of(suite, ["x"] * n + ["y\n" * 60] * (30 - n), "best") for n in (4, 2))
    path = tmp_path / "there.json"
    text = suite_terminal.render(after, before | {"arm": "base"}, path)
    lines = text.split("\n")
    assert "success       30       2    6.7 %  1.8 to 21.3 %" in text
    assert "success   13.3 % to 6.7 %: -6.7 points" in text and "0 fixed, 2 broken" in text
    assert "how many answers were cut is not known" in text
    assert lines.index("  c2 (success, broken)") < lines.index("  c4 (success, still failing)")
    assert sum(line.startswith("  c") for line in lines) == suite_terminal.SHOWN
    assert f"  … and {28 - suite_terminal.SHOWN} more: {path}" in lines
    assert max(map(len, lines)) < 200
    alone = suite_terminal.render(after, None, path)
    assert "To compare: sft eval suite --checkpoint base" in alone and "failing cases: 28" in alone
    passing = result_of(suite, ["x"] * 30, "base")
    assert "every decided case passes" in suite_terminal.render(passing, None, path)


def main(project, workdir, *words) -> int:
    line = ["eval", "suite", f"--config={project.config}", f"--workdir={workdir}", *words]
    return cli.main(["sft", *line])


@pytest.fixture(scope="module")
def run(shared, tmp_path_factory):
    """A trained run, and a suite on what it was taught: the letter after the one in the prompt."""
    here = tmp_path_factory.mktemp("suite")
    cases = [
        {"id": c, "kind": "success", "prompt": f"{c} {c}", "expect": {"equals": chr(ord(c) + 1)}}
        for c in "abcdefgh"
    ]
    cases += [{"id": "none", "kind": "failure", "prompt": "hello", "expect": {"refuses": True}}]
    tiny_run.write_rows(here / "letters.jsonl", cases)
    return shared.copy("done", here / "run"), here / "letters.jsonl"


def test_base_and_tuned_on_a_suite(shared, run, capsys):
    workdir, suite = run
    words = (f"--config.eval.suites={suite}",)
    assert main(shared, workdir, "--checkpoint=base", *words) == 0
    assert main(shared, workdir, *words) == 0
    out = capsys.readouterr().out
    base, best = (compare.load(workdir, arm, "letters") for arm in ("base", "best"))
    assert base["kinds"]["success"]["passed"] == 0 and best["kinds"]["success"]["passed"] > 4
    assert best["kinds"]["failure"]["passed"] == 0
    assert (base["checkpoint"], best["checkpoint"]) == ("base", "checkpoints/24")
    fixed = compare.compare(base, best).changes[0].fixed
    assert len(fixed) == best["kinds"]["success"]["passed"]
    assert f"{len(fixed)} fixed, 0 broken" in out and "refuses: no words of refusal" in out
    assert cli.main(["sft", "report", str(shared.path / workdir)]) == 0
    passed = best["kinds"]["success"]
    said = capsys.readouterr().out
    assert f"success 0 of {passed['count']} → {passed['passed']} of {passed['count']} (" in said


def test_answers_are_not_made_twice_but_checks_are(shared, run, tmp_path, monkeypatch):
    workdir, suite = run
    workdir = shutil.copytree(workdir, tmp_path / "run")
    suite = shutil.copy(suite, tmp_path / "letters.jsonl")
    calls, answer = [], harness.answer
    monkeypatch.setattr(harness, "answer", lambda *args: calls.append(args[1]) or answer(*args))

    def asked(*more):
        calls.clear()
        words = (f"--config.eval.suites={suite}", "--checkpoint=base", *more)
        assert main(shared, workdir, *words) == 0
        return len(calls)

    asked()
    path = compare.path_of(workdir, "base", "letters")
    made = path.read_text()
    assert asked() == 0 and path.read_text() == made
    assert asked("--config.eval.shots=2", "--config.eval.max_examples=1") == 0
    rows = [json.loads(line) for line in suite.read_text().splitlines()]
    rows[0]["expect"] = {"not_contains": "zebra"}
    tiny_run.write_rows(suite, rows)
    assert asked() == 0
    assert compare.load(workdir, "base", "letters")["cases"][0]["passed"] is True
    tiny_run.write_rows(suite, [{"suite": {"max_new_tokens": 2}}, *rows])
    assert asked() == 1 and calls[0].eval.max_new_tokens == 2
    assert asked("--config.eval.top_k=2") == 1
    tiny_run.write_rows(suite, [*rows, rows[0] | {"id": "new"}])
    assert asked("--config.eval.top_k=2") == 1


@pytest.mark.parametrize(
    "text, fragments",
    [
        ('{"id": "a"}\n', ["bad.jsonl:1", "the case has no kind"]),
        (
            '{"id": "a", "kind": "success", "prompt": "p", "expect": {"judge": "good"}}\n',
            ["/no/such/file.safetensors"],  # the judge's weights are those of the run
        ),
    ],
)
def test_bad_suites_stop_before_a_model_is_loaded(shared, tmp_path, capsys, text, fragments):
    (tmp_path / "bad.jsonl").write_text(text)
    words = ("--checkpoint=base", f"--config.eval.suites={tmp_path / 'bad.jsonl'}")
    missing = "--config.model.weights=/no/such/file.safetensors"
    assert main(shared, tmp_path / "run", *words, missing) == 2
    error = capsys.readouterr().err
    assert all(fragment in error for fragment in fragments) and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_no_suite(shared, tmp_path, capsys):
    assert main(shared, tmp_path / "run", "--checkpoint=base") == 2
    assert "config.eval.suites is not set. Give a file" in capsys.readouterr().err


def test_a_damaged_result_is_named(tmp_path):
    path = compare.path_of(tmp_path, "base", "toy")
    path.parent.mkdir()
    path.write_text('{"arm": "base"}')
    with pytest.raises(UserError, match=r"base\.suite\.toy\.json: no 'suite' in it"):
        compare.load(tmp_path, "base", "toy")
