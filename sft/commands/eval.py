"""``sft eval``: the base model, or a checkpoint of a run, on every file of the test set."""

from typing import Any

from ml_collections import ConfigDict

from sft.eval import evaluate
from sft.run import hosts
from sft.session import Session


def main(config: ConfigDict, workdir: str, checkpoint: str) -> dict[str, Any] | None:
    """See ``sft.eval.evaluate.evaluate``."""
    with hosts.started(config):
        return evaluate.evaluate(Session(config, workdir, only_scores=True), checkpoint)
