"""Templates of the user's are programs: none may hang, take the machine, or get at anything."""

import pytest

from sft.config import default
from sft.errors import UserError
from sft.eval.judge import prompts, sandbox

VALUES = {"prompt": "p", "answer": "a", "reference": "r", "low": 1, "high": 5}
NESTED = "".join(f"{{% for {c} in range(99999) %}}" for c in "abc") + "{% endfor %}" * 3


def question(tmp_path, text):
    (tmp_path / "mine.jinja").write_text(text)
    config = default()
    config.judge.template = str(tmp_path / "mine.jinja")
    return prompts.question(config)


def refused(tmp_path, text):
    with pytest.raises(UserError) as error:
        question(tmp_path, text).render(**VALUES)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(str(tmp_path))


@pytest.mark.parametrize("text, message", [
    ("{{ '%d' % 'x' }}", "/mine.jinja:1: TypeError: %d format: a real number is required"),
    ("\n{{ prompt|round }}", "/mine.jinja:2: TypeError: type str doesn't define __round__ method."),
    ("{{ 1/0 }}", "/mine.jinja:1: ZeroDivisionError: division by zero."),
    ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "/mine.jinja:1: RecursionError"),
    ("{% if prompt %}" * 2000 + "{% endif %}" * 2000, "/mine.jinja: RecursionError"),
    ("{{ 'a' * 10**10 }}", "/mine.jinja:1: MemoryError."),
    ("{{ prompt.center(10**10) }}", "/mine.jinja:1: MemoryError."),
    ("{{ (prompt * 1000) * 20000 }}", "MemoryError: it makes a prompt of 20,000,000 characters."),
    ("{{ range(10**9)|list }}", "/mine.jinja:1: OverflowError: Range too big."),
    ("{{ prompt|no_such }}", "/mine.jinja:1: No filter named 'no_such'."),
    ("{{ '\\ud800' }}", "UnicodeEncodeError"),
    ("{% include '/etc/passwd' %}", "no loader"),
    ("{{ nope }}", "'nope' is undefined. It is given rubric, prompt, answer, reference, low"),
])  # fmt: skip
def test_what_fails_is_one_line(tmp_path, text, message):
    assert message in refused(tmp_path, text)


@pytest.mark.parametrize("text", [
    "{{ cycler.__init__.__globals__.os.system('touch PWNED') }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ prompt|attr('__class__') }}",
    "{{ '{0.__class__}'.format(prompt) }}",
    "{{ [].append(1) }}",
])  # fmt: skip
def test_nothing_is_got_at(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    assert "is unsafe" in refused(tmp_path, text)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jinja"]


def test_what_does_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "SECONDS", 0.5)
    found = question(tmp_path, NESTED)
    with pytest.raises(UserError, match=r"mine\.jinja: it was not rendered in 0\.5 seconds"):
        found.render(**VALUES)
    with pytest.raises(UserError, match="the process that renders it has ended"):
        found.render(**VALUES)


def test_a_template_that_is_one_is_rendered_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    found = question(
        tmp_path, "{% if reference %}\n{{ answer }} & {{ low }}-{{ high }}\n{% endif %}\n"
    )
    assert found.render(**VALUES) == "a & 1-5\n"
    many = "é🎉" * 100_000
    assert found.render(**VALUES | {"answer": many}) == f"{many} & 1-5\n"
    assert found.render(**VALUES | {"reference": ""}) == ""
