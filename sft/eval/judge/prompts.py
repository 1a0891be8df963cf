"""What the judge is asked: templates and rubrics in files."""

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft.errors import UserError

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
          UserError: the template uses a name that is not given.
        """
        import jinja2

        try:
            return self._compiled.render(rubric=self.rubric, **values)
        except jinja2.TemplateError as error:
            names = ", ".join(["rubric", *values])
            raise UserError(f"{self.template}: {error}. It is given {names}.") from None


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
    return Question(template, rubric, digest, _compile(template, text))


def criterion() -> Question:
    """The template of a behaviour suite's criteria: each case brings its own."""
    template = _OURS / "criterion.jinja"
    text = _read(template, "template")
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Question(template, "", digest, _compile(template, text))


def again(prompt: str, reply: str, problem: str, times: int) -> str:
    """The same question after ``times`` replies that could not be used, the last of them shown.

    It differs from the time before even where the reply was the same.
    """
    return _again().render(prompt=prompt, reply=reply, problem=problem, times=times)


@functools.cache
def _again() -> Any:
    path = _OURS / "again.jinja"
    return _compile(path, _read(path, "template"))


def _compile(path: Path, text: str) -> Any:
    """A prompt is no HTML: nothing is escaped. A name that is not given is an error."""
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    try:
        return environment.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"{path}:{error.lineno}: {error.message}.") from None


def _read(path: Path, key: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"config.judge.{key} = {str(path)!r}: {error}.") from None
