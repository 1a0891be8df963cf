"""``sft eval judge``: what a language model says of the answers of an arm."""

from typing import Any

from ml_collections import ConfigDict

from sft.eval.judge import judging


def main(config: ConfigDict, workdir: str, checkpoint: str) -> dict[str, Any]:
    """See ``sft.eval.judge.judging.judge``."""
    return judging.judge(config, workdir, checkpoint)
