"""A template of the user's, rendered in a process of its own: it can neither hang nor take much.

A template is a program. Jinja's sandbox keeps it from what Python objects lead to, and cannot keep
it from loops without end, ``9**9**9`` or a string of ten gigabytes; a process that is stopped can.
That process has no environment, so no key in it, and reads nothing but its standard input.

Started as a program, this file is that process; it imports nothing of ours.
"""

import json
import os
import select
import subprocess
import sys
import time
import traceback
import weakref
from pathlib import Path
from typing import IO, Any

SECONDS = 10.0  # for one prompt
START = 60.0  # seconds for the process to start, and to read the template
MEMORY = 2**30  # bytes of address space
MOST = 2**24  # characters of a prompt


class Refused(Exception):
    """What is wrong with a template, and in which line of it; 0 = no line can be named."""

    def __init__(self, what: str, line: int = 0):
        super().__init__(what)
        self.line = line


class Template:
    """A template that was taken from ``text``.

    Raises:
      Refused: it is not one.
    """

    def __init__(self, text: str):
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__)), *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
        )
        self._end = weakref.finalize(self, _end, self._process)
        self._ask({"template": text}, START)

    def render(self, **values: Any) -> str:
        """The text that it makes of these values.

        Raises:
          Refused: it cannot, in the time and memory that it may take.
        """
        return self._ask({"values": values}, SECONDS)

    def _ask(self, request: dict[str, Any], seconds: float) -> str:
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):  # gone by itself, or ended here
            raise Refused("the process that renders it has ended") from None
        reply = json.loads(self._line(self._process.stdout, seconds))
        if "error" in reply:
            raise Refused(reply["error"], reply["line"])
        return reply["text"]

    def _line(self, pipe: IO[bytes], seconds: float) -> bytes:
        found, deadline = b"", time.monotonic() + seconds
        while not found.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                self._end()
                raise Refused(f"it was not rendered in {seconds:g} seconds")
            part = os.read(pipe.fileno(), 2**16)
            if not part:
                self._end()
                raise Refused(f"it ended the process that rendered it ({MEMORY >> 20} MiB)")
            found += part
        return found


def _end(process: subprocess.Popen) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()
    process.wait()


def _serve(requests: IO[str], replies: IO[str]) -> None:
    """Answers each line with one."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template: Any = None
    for line in requests:
        request, text = json.loads(line), ""
        try:
            if "template" in request:
                template = environment.from_string(request["template"])
            else:
                text = template.render(**request["values"])
            if len(text) > MOST:
                raise MemoryError(f"it makes a prompt of {len(text):,} characters")
            text.encode()  # half of a surrogate pair is no text that could be sent
            reply: dict[str, Any] = {"text": text}
        except BaseException as error:  # what a template does can raise anything
            reply = {"error": _said(error), "line": _where(error)}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _said(error: BaseException) -> str:
    from jinja2 import TemplateError

    text = " ".join(str(error).split())[:300].rstrip(".")
    kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
    return f"{kind}{text}".removesuffix(": ")


def _where(error: BaseException) -> int:
    if line := getattr(error, "lineno", 0):
        return line
    frames = traceback.extract_tb(error.__traceback__, limit=-200)
    lines = [frame.lineno or 0 for frame in frames if frame.filename == "<template>"]
    return lines[-1] if lines else 0


if __name__ == "__main__":
    import resource

    sys.path[:] = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    _serve(sys.stdin, sys.stdout)
