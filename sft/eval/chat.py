"""``sft chat``: talk to a run in the terminal, in the very prompt format of its training.

A line is a turn. ``/new`` starts again, ``/system TEXT`` with another system instruction, ``/quit``
or the end of the input ends it. From a file or a pipe, the lines are asked one after the other.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict

from sft import framing, inputs
from sft import workdir as workdirs
from sft.data import chat, schemas
from sft.data.conversation import Conversation, Reject, Turn
from sft.data.tokenizer import Tokenizer
from sft.errors import UserError
from sft.eval import arms, harness
from sft.eval.arms import BASE
from sft.model import specs

_BUCKET = 256  # positions: conversations grow, and few lengths are to be compiled


class Voice:
    """One model with its side of the conversation."""

    def __init__(self, name: str, model: harness.Model, config: ConfigDict):
        self.name, self._model, self._config = name, model, config
        self.turns: tuple[Turn, ...] = ()

    def answer(self, said: Conversation, show: Callable[[str], None]) -> str:
        """Its answer to a first or further turn of the user, which it remembers.

        Args:
          said: the turn, as the first one of a conversation; of a later one only the text counts.
          show: called with each piece of the answer as it comes.
        """
        turns = (*self.turns, *said.turns)
        whole = Conversation(turns, said.system, said.source)
        text = self._generate(whole, show)
        self.turns = (*turns, Turn("model", text))
        return text

    def _generate(self, whole: Conversation, show: Callable[[str], None]) -> str:
        tok = self._model.tokenizer
        shape = self._config.data.chat or self._model.spec.family
        prompt = chat.encode_prompt(whole, tok, shape)
        sampling = harness.sampling(tok, self._config)
        shown = ""

        def look(ids: list[int]) -> bool:
            nonlocal shown
            text = harness.text(tok, ids).rstrip("\ufffd")
            if text.startswith(shown):  # the last letter may still be without all of its bytes
                show(text[len(shown) :])
                shown = text
            return False

        (ids,) = harness.sample(
            self._model, self._config, sampling, [prompt], bucket=_BUCKET, is_done=look
        )
        text = harness.text(tok, ids)
        show(text.removeprefix(shown))
        return text


def main(
    config: ConfigDict, workdir: str, checkpoint: str, system: str, beside: bool
) -> dict[str, Any]:
    """Reads turns from the terminal and prints answers until the input ends.

    Args:
      checkpoint: ``base``, ``best``, ``latest`` or a step.
      system: instruction; ``""`` = that of training, if it had one for all (``sft.framing``).
      beside: the base model answers too, each in its own conversation.

    Returns:
      ``{"exchanges": [{"prompt", "answers": {arm: text}}]}``.

    Raises:
      UserError: no such checkpoint, or no weights.
    """
    path = workdirs.prepare(config, workdir)
    arm = arms.which(path, config, checkpoint)
    tok = inputs.tokenizer(config, specs.get(config.model.name))
    model = arms.load(config, str(path), arm.step, tok)
    voices = [Voice(arm.name, model, config)]
    if beside and arm != BASE:
        base = _base(config, str(path), tok, model)
        voices.append(Voice(BASE.name, base, config))
    exchanges, usual = [], framing.of(config, path).system
    with contextlib.suppress(KeyboardInterrupt):  # it is how one leaves
        for line in _lines():
            command, _, rest = line.partition(" ")
            if command == "/quit":
                break
            if command in ("/new", "/system"):
                system = rest.strip() if command == "/system" else system
                for voice in voices:
                    voice.turns = ()
                continue
            exchanges.append(
                {"prompt": line, "answers": _ask(config, voices, line, system or usual)}
            )
    return {"exchanges": exchanges}


def _base(config: ConfigDict, workdir: str, tok: Tokenizer, tuned: harness.Model) -> harness.Model:
    """The model before tuning: where nothing but new adapters was tuned, the same weights."""
    if config.lora.rank and not config.lora.start:
        return dataclasses.replace(tuned, trainable={})
    return arms.load(config, workdir, None, tok)


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


def _ask(config: ConfigDict, voices: list[Voice], line: str, system: str) -> dict[str, str]:
    answers = {}
    for voice in voices:
        said = _turn(config, line, system, first=not voice.turns)
        if len(voices) > 1:
            print(f"[{voice.name}] ", end="")
        answers[voice.name] = voice.answer(said, lambda text: print(text, end="", flush=True))
        print()
    return answers


def _turn(config: ConfigDict, line: str, system: str, first: bool) -> Conversation:
    """What was typed as a row of the training data would be read: template and instruction."""
    reading = framing.reading(config)
    try:
        read, _ = schemas.parse({reading.prompt: line}, "the terminal", reading, answers=False)
    except Reject as error:
        raise UserError(
            f"{error}: rows of config.data.reading have more than a prompt, so that they cannot be "
            "typed here. Set config.data.reading.template = ''."
        ) from None
    turns = read.turns if first else (Turn("user", line),)
    return Conversation(turns, system or read.system, read.source)
