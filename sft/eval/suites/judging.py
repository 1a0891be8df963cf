"""The model judge of ``config.judge`` for the cases of a suite that have a criterion."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from sft.eval import judge as judging
from sft.eval.suites.cases import Judge, JudgeCase, Verdict


def by_model(config: ConfigDict, workdir: str) -> Judge:
    """Its replies are kept in ``eval/judge.cache.jsonl``.

    Raises:
      UserError: the judge cannot be had; before anything is loaded.
    """
    backend = judging.make(config)

    def decide(cases: Sequence[JudgeCase]) -> list[Verdict]:
        asked = [judging.Case(_prompt(case), case.answer, case.criterion) for case in cases]
        with judging.Cache.of_run(workdir) as cache:
            found = judging.passes(config, backend, asked, cache)
        return [Verdict(verdict.value, verdict.reason or verdict.problem) for verdict in found]

    return decide


def _prompt(case: JudgeCase) -> str:
    """All that the model was told, as text."""
    if case.system is None and len(case.turns) == 1:
        return case.turns[0].text
    system = [] if case.system is None else [("system", case.system)]
    said = [*system, *((turn.role, turn.text) for turn in case.turns)]
    return "\n\n".join(f"{role}: {text}" for role, text in said)
