"""A conversation with a run in the terminal, in the very prompt format of its training.

A line is a turn; ``/help`` lists the commands. From a file or a pipe, the lines are asked one after
the other.
"""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sft.config.text import strings
from sft.data.chat import encoding
from sft.data.conversation import Conversation, Reject, Turn
from sft.data.read.fields import visible
from sft.data.sets.framing import NOTHING, Framing
from sft.eval import harness
from sft.eval.arms import Arm
from sft.eval.harness import Answer

_BUCKET = 256  # positions: conversations grow, and few lengths are to be compiled
HELP = """\
/new            start again: what was said is forgotten
/system TEXT    start again with another system instruction; without a text, with that of training
/help           this list
/quit           leave, as Ctrl-D does
A line that starts with // is sent with one /."""


class Voice:
    """One model with its side of the conversation."""

    def __init__(self, name: str, model: harness.Model, config: ConfigDict):
        self.name, self._model, self._config = name, model, config
        self.turns: tuple[Turn, ...] = ()

    def answer(self, said: Conversation, show: Callable[[str], None]) -> Answer:
        """Its answer to a first or further turn of the user, which it remembers.

        Args:
          said: the turn, as the first one of a conversation; of a later one only the text counts.
          show: called with each piece of the answer as it comes.
        """
        turns = (*self.turns, *said.turns)
        answer = self._generate(Conversation(turns, said.system, said.source), show)
        self.turns = (*turns, Turn("model", answer.text))
        return answer

    def _generate(self, whole: Conversation, show: Callable[[str], None]) -> Answer:
        tok, config = self._model.tokenizer, self._config
        prompt = encoding.encode_prompt(whole, tok, config.data.chat or self._model.spec.family)
        # The end may be the beginning of a stop string, which is not part of the answer.
        held = max((len(stop) - 1 for stop in strings(config.eval.stop)), default=0)
        shown = ""

        def look(ids: list[int]) -> bool:
            nonlocal shown
            answer = harness.ended(tok, config, ids)
            text = answer.text.rstrip("\ufffd")
            text = text if answer.stop else text[: len(text) - held]
            if text.startswith(shown):  # the last letter may still be without all of its bytes
                show(text[len(shown) :])
                shown = text
            return bool(answer.stop)

        sampling = harness.sampling(tok, config)
        (ids,) = harness.sample(
            self._model, config, sampling, [prompt], bucket=_BUCKET, is_done=look
        )
        answer = harness.ended(tok, config, ids)
        show(answer.text.removeprefix(shown))
        return answer


def opening(
    config: ConfigDict,
    path: Path,
    arm: Arm,
    names: list[str],
    around: Framing,
    system: str = "",
) -> str:
    """Who answers, how, and what is sent beside what is typed."""
    step = "the base model" if arm.step is None else f"step {arm.step} ({arm.name})"
    how = f"temperature {config.eval.temperature:g}" if config.eval.temperature else "greedy"
    stop = f", stopped by {strings(config.eval.stop)}" if config.eval.stop else ""
    by = "by --system" if system else "as in training"
    chosen = system or around.system
    notes = [f"system instruction, {by}: {chosen!r}" if chosen else "no system instruction"]
    if around.around != NOTHING:
        template = "{prompt}".join(around.around)
        notes.append(f"first prompts are put into the template of training, {template!r}")
    notes += around.lost
    lines = [
        f"{path}: {step} of {config.model.name}" + (", beside the base model" * (len(names) > 1)),
        f"{how}, at most {config.eval.max_new_tokens} tokens an answer "
        f"(config.eval.max_new_tokens){stop}",
        *notes,
        "/help lists the commands",
    ]
    return "\n".join(lines)


def exchanges(
    config: ConfigDict, voices: list[Voice], around: Framing, system: str
) -> Iterator[dict[str, Any]]:
    """What was asked and answered, until the input ends."""
    chosen = system or around.system
    with contextlib.suppress(KeyboardInterrupt):  # it is how one leaves
        for line in _lines():
            command = re.fullmatch(r"/([a-z]+)(?:\s+(.*))?", line.strip())
            if not command:
                sent = line[1:] if line.startswith("//") else line
                try:
                    yield {"prompt": sent} | _ask(config, voices, around, sent, chosen)
                except Reject as reject:  # as a row of the data would be
                    print(f"not sent: {reject}")
            elif command[1] == "quit":
                return
            elif command[1] in ("new", "system"):
                chosen = (command[2] or around.system) if command[1] == "system" else chosen
                for voice in voices:
                    voice.turns = ()
                said = f"the system instruction {chosen!r}" if chosen else "no system instruction"
                print(f"started again, with {said}")
            elif command[1] == "help":
                print(HELP)
            else:
                print(f"no command /{command[1]}; /help lists them")


def _lines() -> Iterator[str]:
    """What is typed, without empty lines; with a prompt where somebody types."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # lines can then be edited and called back
    with contextlib.suppress(EOFError):
        while True:
            if (line := input("> ")).strip():
                yield line
    print()  # Ctrl-D leaves the cursor behind the prompt


def _ask(
    config: ConfigDict, voices: list[Voice], around: Framing, line: str, system: str
) -> dict[str, Any]:
    visible(line, "what is typed")
    answers, cut = {}, []
    for voice in voices:
        # Nothing is put around a further turn.
        text = line if voice.turns else around.prompt(line)
        said = Conversation((Turn("user", text),), system or None, "the terminal")
        if len(voices) > 1:
            print(f"[{voice.name}] ", end="")
        answer = voice.answer(said, lambda text: print(text, end="", flush=True))
        print()
        answers[voice.name] = answer.text
        if answer.cut:
            cut.append(voice.name)
            print(f"(cut at config.eval.max_new_tokens = {config.eval.max_new_tokens})")
    return {"answers": answers, "cut": cut}
