"""What the judge is asked: templates and rubrics in files."""

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft.errors import UserError
from sft.eval.judge import sandbox

_OURS = Path(__file__).with_name("templates")


@dataclasses.dataclass(frozen=True)
class Question:
    """A template with its rubric.

    Attributes:
      template: path of the jinja2 file.
      rubric: what is looked at, as text for the judge and for people.
      sha256: twelve hex digits of both.
    """

    template: Path
    rubric: str
    sha256: str
    _compiled: Any = dataclasses.field(repr=False, compare=False)

    def render(self, **values: Any) -> str:
        """The prompt.

        Raises:
          UserError: the template uses a name that is not given, fails, or takes too long.
        """
        try:
            return self._compiled.render(rubric=self.rubric, **values)
        except sandbox.Refused as refused:
            place = f"{self.template}:{refused.line}" if refused.line else self.template
            given = f" It is given {', '.join(['rubric', *values])}."
            is_name = str(refused).endswith("is undefined")
            raise UserError(f"{place}: {refused}.{given if is_name else ''}") from None


def question(config: ConfigDict) -> Question:
    """Of ``config.judge.template`` and ``.rubric``, or those that come with the mode.

    Raises:
      UserError: a file is missing or no template.
    """
    mode = config.judge.mode
    template = Path(config.judge.template or _OURS / f"{mode}.jinja")
    rubric = _read(Path(config.judge.rubric or _OURS / f"{mode}.rubric.md"), "rubric").strip()
    text = _read(template, "template")
    digest = hashlib.sha256(f"{text}\0{rubric}".encode()).hexdigest()[:12]
    if not config.judge.template:
        return Question(template, rubric, digest, _compile(text))
    try:
        return Question(template, rubric, digest, sandbox.Template(text))
    except sandbox.Refused as refused:
        place = f"{template}:{refused.line}" if refused.line else template
        raise UserError(f"{place}: {refused}.") from None


def criterion() -> Question:
    """The template of a behaviour suite's criteria: each case brings its own."""
    template = _OURS / "criterion.jinja"
    text = _read(template, "template")
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Question(template, "", digest, _compile(text))


def again(prompt: str, reply: str, problem: str, times: int) -> str:
    """The same question after ``times`` replies that could not be used, the last of them shown.

    It differs from the time before even where the reply was the same.
    """
    return _again().render(prompt=prompt, reply=reply, problem=problem, times=times)


@functools.cache
def _again() -> Any:
    path = _OURS / "again.jinja"
    return _compile(_read(path, "template"))


def _compile(text: str) -> Any:
    """A template of ours. A prompt is no HTML: nothing is escaped. A missing name is an error."""
    import jinja2

    return jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(text)


def _read(path: Path, key: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"config.judge.{key} = {str(path)!r}: {error}.") from None
