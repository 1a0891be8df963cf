"""``sft data mine``: how hard every training row is for a model, and subsets by it."""

from typing import Any

from ml_collections import ConfigDict

from sft.eval import mine
from sft.report import mining
from sft.session import Session


def main(config: ConfigDict, workdir: str, checkpoint: str) -> dict[str, Any]:
    """See ``sft.eval.mine.mine``; prints the summary and what to do with the subsets."""
    session = Session(config, workdir)
    summary, parts = mine.mine(session, checkpoint)
    print(mining.table(summary))
    print(mining.onward(session.path / "mine", summary["arm"], config, parts))
    return summary
