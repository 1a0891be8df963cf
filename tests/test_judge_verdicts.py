"""From a judge's text to a verdict, and what is kept of it."""

import json

import pytest

from sft.config import default
from sft.errors import UserError
from sft.eval import judge
from sft.eval.judge import prompts, verdicts
from sft.eval.judge.backend import Reply, Unreachable
from sft.eval.judge.cache import Cache

SCORE = verdicts.score(1, 5)


@pytest.mark.parametrize(
    "text, form, value",
    [
        ('{"reason": "r", "score": 4}', SCORE, 4),
        ('{"reason": "r", "score": 4.0}', SCORE, 4),
        ('```json\n{"reason": "r", "score": 1}\n```', SCORE, 1),
        ('I think {so}: {"reason": "a {brace} in it", "score": 5} done', SCORE, 5),
        ('{"reason": "r", "score": 2} again {"score": 2, "reason": "r"}', SCORE, 2),
        ('{"reason": "r", "winner": "tie"}', verdicts.WINNER, "tie"),
        ('{"reason": "r", "pass": false}', verdicts.PASS, False),
    ],
)
def test_parse(text, form, value):
    found = verdicts.parse(text, form)[0]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text, form, fragment",
    [
        ("", SCORE, "no JSON object"),
        ("4", SCORE, "no JSON object"),
        ('{"reason": "r", "score": 4', SCORE, "no JSON object"),
        ("{" * 20000, SCORE, "no JSON object"),
        ('{"reason": "r", "score": 6}', SCORE, "score: 6 is greater than the maximum of 5"),
        ('{"reason": "r", "score": 0}', SCORE, "score: 0 is less than the minimum of 1"),
        ('{"reason": "r", "score": "4"}', SCORE, "score: '4' is not of type 'integer'"),
        ('{"reason": "r", "score": 3.5}', SCORE, "score: 3.5 is not of type 'integer'"),
        ('{"reason": "r", "score": true}', SCORE, "score: True is not of type 'integer'"),
        ('{"score": 4}', SCORE, "'reason' is a required property"),
        ('{"reason": "r", "score": 4} {"reason": "r", "score": 5}', SCORE, "more than one"),
        ('{"reason": "r", "winner": "C"}', verdicts.WINNER, "winner: 'C' is not one of"),
        ('{"reason": "r", "pass": "true"}', verdicts.PASS, "pass: 'true' is not of type"),
    ],
)
def test_what_is_no_verdict(text, form, fragment):
    with pytest.raises(ValueError) as error:
        verdicts.parse(text, form)
    assert fragment in str(error.value)


class Scripted:
    """Replies from a list for each prompt, in turn; ``fail`` after so many replies."""

    def __init__(self, script, fail=None):
        self.identity = {"model": "scripted"}
        self.script, self.fail, self.asked = script, fail, []

    def count(self, prompts):
        return len(prompts)

    def ask(self, prompts, on_reply):
        for index, prompt in enumerate(prompts):
            if len(self.asked) == self.fail:
                raise Unreachable("the endpoint is down.")
            self.asked.append(prompt)
            first = next(p for p in self.script if prompt.startswith(p))
            tries = sum(p.startswith(first) for p in self.asked) - 1
            reply = self.script[first][tries]
            on_reply(index, reply if isinstance(reply, Reply) else Reply(reply, 10, 3))


GOOD = '{"reason": "r", "score": 3}'


def test_an_unusable_reply_is_shown_to_the_model_and_asked_again():
    backend = Scripted({"one": [GOOD], "two": ["four", '{"reason": "r", "score": 9}', GOOD]})
    found = verdicts.ask(backend, Cache(), ["one", "two"], SCORE, retries=2)
    assert [v.value for v in found] == [3, 3] and [len(v.replies) for v in found] == [1, 3]
    _, _, second, third = backend.asked
    assert second.startswith("two\n") and "four" in second and "no JSON object" in second
    assert "score: 9 is greater than the maximum of 5" in third and "four" not in third


def test_in_the_end_it_is_a_failure_and_no_score():
    backend = Scripted({"one": ["x", "y", GOOD], "two": [GOOD]})
    found = verdicts.ask(backend, Cache(), ["one", "two"], SCORE, retries=1)
    assert [v.value for v in found] == [None, 3]
    assert verdicts.problems(found) == {"there is no JSON object in it": 1}
    assert len(found[0].replies) == 2


def test_a_reply_that_was_cut_is_said_to_be():
    backend = Scripted({"one": [Reply('{"reason": "so', 10, 5, cut=True)]})
    (found,) = verdicts.ask(backend, Cache(), ["one"], SCORE, retries=0)
    assert "cut at config.judge.max_new_tokens" in found.problem


def test_the_same_prompt_is_asked_once():
    backend = Scripted({"one": [GOOD], "two": [GOOD]})
    found = verdicts.ask(backend, Cache(), ["one", "two", "one"], SCORE, retries=2)
    assert [v.value for v in found] == [3, 3, 3] and backend.asked == ["one", "two"]


def test_a_refused_prompt_fails_alone_and_is_not_kept(tmp_path):
    script = {"one": [Reply("", 0, 0, refused="HTTP 400: unsafe"), GOOD], "two": [GOOD]}
    backend = Scripted(script)
    with Cache(tmp_path / "cache") as cache:
        found = verdicts.ask(backend, cache, ["one", "two"], SCORE, retries=2)
    assert [v.value for v in found] == [None, 3]
    assert found[0].problem == "refused: HTTP 400: unsafe" and backend.asked == ["one", "two"]
    with Cache(tmp_path / "cache") as cache:
        assert verdicts.ask(backend, cache, ["one", "two"], SCORE, retries=2)[0].value == 3
    assert backend.asked == ["one", "two", "one"]


def test_down_midway_then_continued(tmp_path):
    script = {"a": [GOOD], "b": ["bad", GOOD], "c": [GOOD], "d": [GOOD]}
    prompts, path = list("abcd"), tmp_path / "cache.jsonl"
    backend = Scripted(script, fail=3)
    with Cache(path) as cache, pytest.raises(UserError) as error:
        verdicts.ask(backend, cache, prompts, SCORE, retries=1)
    assert f"the endpoint is down. 3 of 4 replies are kept in {path}" in str(error.value)
    backend.fail = 4  # down again while the unusable one is asked again
    with Cache(path) as cache, pytest.raises(UserError, match="3 of 4 replies"):
        verdicts.ask(backend, cache, prompts, SCORE, retries=1)
    backend.fail = None
    with Cache(path) as cache:
        found = verdicts.ask(backend, cache, prompts, SCORE, retries=1)
    assert [v.value for v in found] == [3] * 4
    assert len(backend.asked) == len(set(backend.asked)) == 5


def test_a_torn_last_line_is_forgotten_and_written_over(tmp_path):
    path = tmp_path / "cache.jsonl"
    with Cache(path) as cache:
        for name in "ab":
            cache.put({}, name, Reply(f"reply {name} \u2028é\ud800", 1, 2))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with Cache(path) as cache:
        assert cache.get({}, "a").text == "reply a \u2028é\ud800" and cache.get({}, "b") is None
        cache.put({}, "b", Reply("reply b \u2028é\ud800", 1, 2))
    assert path.read_bytes() == whole


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "cache.jsonl"
    path.write_text('{"key": "k", "text": "t", "tokens_in": 1, "tokens_out": 1}\n{"no": 1}\n')
    with pytest.raises(UserError, match=r"cache.jsonl:2: .*Remove this line"):
        Cache(path)


def test_one_process_at_a_time(tmp_path):
    with Cache(tmp_path / "c"), pytest.raises(UserError, match="another judge is at work"):
        Cache(tmp_path / "c")
    with Cache(tmp_path / "c"):
        pass


def test_another_judge_or_prompt_has_another_reply():
    cache = Cache()
    cache.put({"model": "m", "temperature": 0.0}, "p", Reply("t", 1, 1))
    assert cache.get({"temperature": 0.0, "model": "m"}, "p").text == "t"
    assert cache.get({"model": "m", "temperature": 1.0}, "p") is None
    assert cache.get({"model": "m", "temperature": 0.0}, "q") is None


def test_passes():
    def reply(prompt):
        assert "Criterion: it says no" in prompt and "<prompt>\nWhen?\n" in prompt
        return json.dumps({"reason": "r", "pass": "<answer>\nNo {{ x }} <b>." in prompt})

    class Judge(Scripted):
        def ask(self, prompts, on_reply):
            for index, prompt in enumerate(prompts):
                on_reply(index, Reply("?" if "maybe" in prompt else reply(prompt), 1, 1))

    cases = [judge.Case("When?", a, "it says no") for a in ("No {{ x }} <b>.", "Yes", "maybe")]
    found = judge.passes(default(), Judge({}), cases)
    assert [v.value for v in found] == [True, False, None]
    assert found[2].problem and len(found[2].replies) == 3


@pytest.mark.parametrize(
    "key, content, fragment",
    [
        ("template", None, "No such file"),
        ("rubric", None, "No such file"),
        ("template", "{% if %}", "mine:1: Expected an expression"),
        ("template", "{{ answr }}", "'answr' is undefined. It is given rubric, prompt, answer"),
    ],
)
def test_bad_templates(tmp_path, key, content, fragment):
    config = default()
    config.judge[key] = str(tmp_path / "mine")
    if content is not None:
        (tmp_path / "mine").write_text(content)
    with pytest.raises(UserError) as error:
        prompts.question(config).render(prompt="p", answer="a")
    assert fragment in str(error.value)


def test_ones_own_template_and_rubric(tmp_path):
    config = default()
    ours = prompts.question(config)
    (tmp_path / "t").write_text("{{ rubric }}|{{ answer }}")
    (tmp_path / "r").write_text("Be kind.\n")
    config.judge.template, config.judge.rubric = str(tmp_path / "t"), str(tmp_path / "r")
    mine = prompts.question(config)
    assert mine.render(answer="<&>") == "Be kind.|<&>"
    assert mine.sha256 != ours.sha256
