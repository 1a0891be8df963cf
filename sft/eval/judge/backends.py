"""Who is asked: the choice by ``config.judge.backend``."""

from ml_collections import ConfigDict

from sft.eval.judge import endpoints
from sft.eval.judge.backend import Backend


def make(config: ConfigDict) -> Backend:
    """The backend of ``config.judge.backend``. A local one loads its weights when first asked.

    Raises:
      UserError: no model is named, its package or key is missing, or the files of the local one.
    """
    if config.judge.backend == "local":
        from sft.eval.judge.local import Local  # brings JAX

        return Local(config)
    return endpoints.make(config)
