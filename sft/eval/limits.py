"""Whether expected answers can be generated at all: they must fit the cap and hold no stop string.

What is wrong here shows before anything is loaded or generated, and before training.
"""

import sys
from collections.abc import Sequence

from ml_collections import ConfigDict

from sft.config.text import strings
from sft.data.tokenizer.sentencepiece import Tokenizer
from sft.errors import UserError
from sft.eval import metrics
from sft.run import display, hosts

# Metrics that are 0 for every answer that is not there to its end. Others give part of the credit,
# or, as exact_match_normalised and json_valid do, can be content with a shorter answer.
WHOLE = ("exact_match", "accuracy", "macro_f1", "micro_f1")


def check(config: ConfigDict, name: str, expected: Sequence[str], tok: Tokenizer) -> None:
    """Warns on standard error of expected answers that cannot be generated.

    Args:
      name: of the set, for the message.

    Raises:
      UserError: none can, and the metric that is asked for first could only be 0.
    """
    found = problems(config, name, expected, tok)
    if found and metrics.primary(config) in WHOLE:
        for sentence, all_of_them in found:
            if all_of_them:
                first = metrics.primary(config)
                raise UserError(f"{sentence} So {first} of {name} could only be 0.")
    warn(config, name, expected, tok)


def warn(config: ConfigDict, name: str, expected: Sequence[str], tok: Tokenizer) -> None:
    """As ``check``, and raises nothing."""
    if hosts.is_first():
        for sentence, _ in problems(config, name, expected, tok):
            print(f"warning: {sentence}", file=sys.stderr)


def problems(
    config: ConfigDict, name: str, expected: Sequence[str], tok: Tokenizer
) -> list[tuple[str, bool]]:
    """Sentences, each with whether it is about all answers without exception.

    An answer has to fit with its end of turn, or it counts as cut; what has room for all but that
    can still be right.
    """
    cap, count, look = config.eval.max_new_tokens, len(expected), metrics.looks_at(config)
    texts = [look(text.strip()) for text in expected]
    lengths = [len(tok.encode(text)) for text in texts]
    cut = sum(length + 1 > cap for length in lengths)
    found = []
    if cut:
        found.append(
            (
                f"{name}: {_some(cut, count)} longer than config.eval.max_new_tokens = {cap} "
                "tokens with the end of turn, so that what is generated for them is cut. "
                f"--config.eval.max_new_tokens={max(lengths) + 1} holds all.",
                all(length > cap for length in lengths),
            )
        )
    stops = strings(config.eval.stop)
    stopped = [stop for text in texts for stop in stops if stop in text]
    held = sum(any(stop in text for stop in stops) for text in texts)
    if held:
        found.append(
            (
                f"{name}: {_some(held, count, verb='have')} a stop string of config.eval.stop in "
                f"them ({stopped[0]!r}), at which what is generated ends. Leave it out of "
                "config.eval.stop, or set config.eval.compare=first_line if it is a line break.",
                held == count,
            )
        )
    return found


def _some(part: int, count: int, verb: str = "are") -> str:
    if part == count:
        said = "the expected answer" if count == 1 else f"all {count:,} expected answers"
    else:
        said = f"{part:,} of {display.counted(count, 'expected answer')}"
    if part == 1:
        verb = {"are": "is", "have": "has"}[verb]
    return f"{said} {verb}"
