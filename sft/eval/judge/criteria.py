"""Pass or fail by a criterion in words: for behaviour suites."""

import dataclasses
from collections.abc import Sequence

from ml_collections import ConfigDict

from sft.eval.judge import prompts, verdicts
from sft.eval.judge.backend import Backend
from sft.eval.judge.cache import Cache
from sft.eval.judge.verdicts import Verdict


@dataclasses.dataclass(frozen=True)
class Case:
    """An answer to a prompt, and what must hold of it, as in "It says that it does not know"."""

    prompt: str
    answer: str
    criterion: str


def passes(
    config: ConfigDict, backend: Backend, cases: Sequence[Case], cache: Cache | None = None
) -> list[Verdict]:
    """Whether each answer meets its criterion, in order.

    ``backend`` is ``make(config)``. A ``Verdict`` has ``value`` True, False, or None where the
    judge gave no usable reply in ``config.judge.retries`` further ones (``problem`` says why): such
    a case has neither passed nor failed and is to be counted apart.

        with Cache.of_run(workdir) as cache:
            found = passes(config, make(config), [Case(prompt, answer, criterion)], cache)

    Args:
      cache: replies that are kept; without one they are forgotten with this process.

    Raises:
      UserError: the endpoint is down. With a cache, the same call goes on where this one stopped.
    """
    question = prompts.criterion()
    texts = [
        question.render(prompt=case.prompt, answer=case.answer, criterion=case.criterion)
        for case in cases
    ]
    kept = Cache() if cache is None else cache
    return verdicts.ask(backend, kept, texts, verdicts.PASS, config.judge.retries)
