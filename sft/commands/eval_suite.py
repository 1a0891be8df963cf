"""``sft eval suite``: the base model, or a checkpoint of a run, on suites of behaviour."""

from typing import Any

from ml_collections import ConfigDict

from sft.eval.suites import compare, evaluate
from sft.report import suite_terminal
from sft.run import hosts
from sft.session import Session


def main(config: ConfigDict, workdir: str, checkpoint: str) -> dict[str, Any] | None:
    """See ``sft.eval.suites.evaluate.evaluate``; prints the results beside those of the base."""
    session = Session(config, workdir, only_scores=True)
    with hosts.started(config):
        results = evaluate.evaluate(session, checkpoint)
    path = session.path
    for name, result in (results or {}).items():
        arm = result["arm"]
        base = None if arm == "base" else compare.load(path, "base", name)
        print(suite_terminal.render(result, base, compare.path_of(path, arm, name)))
    return results
