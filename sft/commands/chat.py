"""``sft chat``: talk to a run in the terminal, in the very prompt format of its training."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from sft.data.sets import framing
from sft.eval import arms, chat, harness
from sft.eval.arms import BASE
from sft.session import Session


def main(
    config: ConfigDict, workdir: str, checkpoint: str, system: str, beside: bool
) -> dict[str, Any]:
    """Reads turns from the terminal and prints answers until the input ends.

    Args:
      checkpoint: ``base``, ``best``, ``latest`` or a step.
      system: instruction; ``""`` = that of the training rows, if they have one.
      beside: the base model answers too, each in its own conversation.

    Returns:
      ``{"exchanges": [{"prompt", "answers": {arm: text}, "cut": [arm]}]}``; ``cut`` are those that
      reached ``config.eval.max_new_tokens``.

    Raises:
      UserError: no such checkpoint, or no weights.
    """
    session = Session(config, workdir, only_scores=True)
    path = session.path
    arm = arms.which(path, config, checkpoint)
    around = framing.of(config, path)
    model = arms.load(session, arm.step)
    voices = [chat.Voice(arm.name, model, config)]
    if beside and arm != BASE:
        base = _base(session, model)
        voices.append(chat.Voice(BASE.name, base, config))
    print(chat.opening(config, path, arm, [voice.name for voice in voices], around, system))
    return {"exchanges": list(chat.exchanges(config, voices, around, system))}


def _base(session: Session, tuned: harness.Model) -> harness.Model:
    """The model before tuning: where nothing but new adapters was tuned, the same weights."""
    lora = session.config.lora
    if lora.rank and not lora.start:
        return dataclasses.replace(tuned, trainable={})
    return arms.load(session, None)
